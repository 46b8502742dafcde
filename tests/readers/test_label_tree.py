"""Labels as a tree: a hand-worked case."""

from kdprompt.readers.label_tree import LabelTree


def test_a_tree_holds_common_beginnings_once():
    tree = LabelTree.from_token_ids([[1, 2, 3], [1, 2], [1, 4], [5]])
    assert tree.token_ids.tolist() == [1, 2, 3, 4, 5] and tree.parents.tolist() == [-1, 0, 1, 0, -1]
    assert tree.depths.tolist() == [0, 1, 2, 1, 0] and tree.paths == ((0, 1, 2), (0, 1), (0, 3), (4,))
    assert tree.attention_mask[2].tolist() == [True, True, True, False, False]


def test_leaves_are_scored_without_being_read():
    tree = LabelTree.from_token_ids([[1, 2, 3], [1, 2], [1, 4], [5]])
    assert tree.internal_nodes.tolist() == [0, 1] and tree.logit_rows.tolist() == [0, 1, 2, 1, 0]
    flat = LabelTree.from_token_ids([[1], [2]])
    assert flat.internal_nodes.tolist() == [] and flat.logit_rows.tolist() == [0, 0]
