"""A pool that was changed against one that was built in one go: the same prompts, whatever came and went.

Examples share inputs, outputs and tasks, so that they repeat one another, take the place of what they repeat, bring new
labels and tasks and take the last one away; vectors are drawn from few, so that ties are common.
"""

import copy
import dataclasses
import pickle
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprompt import CallableEmbedder, DistillationSelector, Pool
from kdprompt.errors import PoolError
from kdprompt.pool.growing_rows import GrowingRows
from kdprompt.selection.embedded_pool import EmbeddedPool
from pool_changes import draw_changes, draw_records
from support import make_settings


def embed(texts):
    """One of seven vectors for each text."""
    seeds = [zlib.crc32(text.encode()) % 7 for text in texts]
    return torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def embed_units(texts):
    """The same, of unit norm: the pool's rows are its embeddings then."""
    return torch.nn.functional.normalize(embed(texts).double(), dim=-1).float()


EMBEDDER = CallableEmbedder(embed)
UNITS = CallableEmbedder(embed_units)
QUERIES = ["a query", "word 1", "another query"]

records = draw_records(9)
changes = draw_changes(records, place=99, most_removed=3, max_size=12)


CALIBRATIONS = {}  # made once for each kind of settings: what is tested here does not depend on it


def make(examples, fields):
    return make_with(EMBEDDER, examples, fields)


def make_with(embedder, examples, fields):
    chosen = make_settings(calibrate=False, k=2, near_duplicate=2.0, **fields)
    if str(fields) not in CALIBRATIONS:
        CALIBRATIONS[str(fields)] = DistillationSelector.from_examples(many(40), EMBEDDER, settings=chosen).calibration
    pool = EmbeddedPool.embed(Pool.from_records(examples), embedder, chosen)
    return DistillationSelector(pool, chosen, None, CALIBRATIONS[str(fields)])


def apply(selector, change):
    ids = [shown.id for shown in selector.pool]
    try:
        if change[0] == "add":
            selector.add_examples(change[1])
        elif change[0] == "update":
            selector.update(ids[change[1] % len(ids)], change[2])
        else:
            selector.remove({ids[i % len(ids)] for i in change[1]})
    except PoolError as error:
        assert "distinct" in str(error) or "empty" in str(error)


def describe(tensors):
    """Everything that the mathematics sees of each id that stands at a row, in the order of ids."""
    order = torch.tensor([tensors.rows.ids.index(ident) for ident in tensors.rows.ordered])
    texts = {code: text for text, code in tensors.text_codes.items()}
    return {
        "ids": tensors.rows.ordered,
        "x": tensors.x[order],
        "v": tensors.v[order],
        "label": tensors.label[order],
        "labels": tensors.labels,
        "task": tensors.task[order],
        "tasks": tensors.tasks,
        "text": [texts[code] for code in tensors.text[order].tolist()],
        "mode": tensors.output_mode,
        "by_content": {content: tensors.rows.ids[row] for content, row in tensors.rows.by_content.items()},
        "repeats": tensors.rows.repeats,
    }


def check_same(changed):
    """Against a selector of the same examples in one go, under the same calibration."""
    ours, chosen = changed._pool, changed.settings
    theirs = EmbeddedPool.build(Pool(ours.pool), ours.vectors, ours.embedder, chosen, None, ours.lexical_share)
    fresh = DistillationSelector(theirs, chosen, None, changed.calibration)
    assert list(ours.pool) == list(theirs.pool) and torch.equal(ours.vectors, theirs.vectors)
    assert [ours.pool.index(shown.id) for shown in ours.pool] == list(range(len(ours.pool)))
    mine, other = describe(ours.tensors), describe(theirs.tensors)
    for name, value in mine.items():
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, name
    torch.testing.assert_close(ours.tensors.priors, theirs.tensors.priors, rtol=1e-12, atol=1e-12)
    assert ours.tensors.value_radius == pytest.approx(theirs.tensors.value_radius, rel=1e-12)
    if ours.tensors.output_mode != "none":
        for name in ("count", "inputs", "values", "squares", "products"):
            mine, other = (getattr(pool.tensors.ridge_sums, name) for pool in (ours, theirs))
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
        for name in ("count", "mean", "intercept", "weights", "inverse"):
            mine, other = (getattr(pool.tensors.ridge(0.3), name) for pool in (ours, theirs))
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    for query in QUERIES:
        assert changed.select(query).ids == fresh.select(query).ids
        for task in ours.tensors.tasks:
            assert changed.select(query, task=task).ids == fresh.select(query, task=task).ids
    assert changed.select_static(QUERIES).ids == fresh.select_static(QUERIES).ids
    assert changed.select_static().ids == fresh.select_static().ids


FIELDS = [
    {},
    {"outputs": "labels", "budget": 40},
    {"outputs": "text"},
    {"lexical_share": 0.3},
    {"shortlist": 3},
    {"half_precision": True},
]


@pytest.mark.parametrize("embedder", [EMBEDDER, UNITS], ids=["any norm", "unit norm"])
@pytest.mark.parametrize("fields", FIELDS, ids=str)
@settings(max_examples=8, deadline=None)
@given(start=st.lists(records, min_size=8, max_size=14), steps=changes, keep_sums=st.booleans())
def test_a_changed_pool_is_the_pool_built_in_one_go(embedder, fields, start, steps, keep_sums):
    base = [{"input": f"base {i}", "output": ["red", "blue"][i % 2], "task": "a"} for i in range(4)]
    selector = make_with(embedder, [*base, *start], fields)
    if keep_sums and selector._pool.tensors.output_mode != "none":
        assert selector._pool.tensors.ridge(0.3).count
    for change in steps:
        apply(selector, change)
    check_same(selector)


def many(count, first=0):
    return [
        {"id": f"{(37 * i) % 1009:04d}", "input": f"text {i}", "output": ["red", "blue"][i % 2]}
        for i in range(first, first + count)
    ]


def test_few_changes_of_a_large_pool_keep_its_rows():
    selector = make(many(300), {})
    before = selector._pool.tensors
    assert before.ridge(0.3).count == 300
    selector.add_examples(many(3, 300))
    added = selector._pool.tensors
    assert added.rows.ids[:300] == before.rows.ids and len(added.x) == 303 and "ridge_sums" in vars(added)
    selector.remove([selector.pool[5].id, selector.pool[301].id])
    selector.update(selector.pool[7].id, {"input": "text 7 in other words", "output": "red"})
    after = selector._pool.tensors
    assert (
        after.ridge(0.3).changes == 7
        and after.x.data_ptr() == added.x.data_ptr()
        and after.rows.gaps == 3
        and len(after) == 301
    )
    check_same(selector)


def holds_once(selector):
    pool = selector._pool
    return pool.embeddings.stored is pool.tensors.memory.x


def test_vectors_of_unit_norm_are_held_once_whatever_comes_and_goes():
    twice = [{**shown, "id": f"again {shown['id']}"} for shown in many(2, 3)]
    selector = make_with(UNITS, [*many(300), *twice], {})
    assert holds_once(selector) and len(selector._pool.tensors.x) == 300
    selector.add_examples([*many(3, 300), {**many(1)[0], "id": "again"}])
    rows = selector._pool.tensors.x
    selector.remove([selector.pool[5].id, selector.pool[303].id])
    selector.update(selector.pool[7].id, {"input": "text 7 in other words", "output": "red"})
    assert holds_once(selector) and selector._pool.tensors.x.data_ptr() == rows.data_ptr()
    texts = [shown.input for shown in selector.pool]
    assert torch.equal(selector._pool.vectors, embed_units(texts))
    check_same(selector)


def test_vectors_of_another_norm_are_held_as_they_came():
    selector = make_with(UNITS, many(60), {})
    selector._pool = dataclasses.replace(selector._pool, embedder=EMBEDDER)  # alike, but for the norm
    before = selector._pool.vectors
    selector.add_examples(many(2, 60))
    assert not holds_once(selector)
    assert torch.equal(selector._pool.vectors, torch.cat([before, embed(["text 60", "text 61"])]))
    selector.remove(selector.pool[3].id)
    selector.update(selector.pool[7].id, {"input": "text 7 in other words", "output": "red"})
    assert torch.equal(selector._pool.vectors[7], embed(["text 7 in other words"])[0])
    assert not holds_once(make(many(60), {}))


@pytest.mark.parametrize("embedded", [embed, embed_units], ids=["any norm", "unit norm"])
@pytest.mark.parametrize("convert", [torch.clone, torch.Tensor.numpy], ids=["tensor", "array"])
def test_given_vectors_may_change_afterwards(embedded, convert):
    examples = many(40)
    given = convert(embedded([shown["input"] for shown in examples]))
    selector = DistillationSelector.from_examples(examples, EMBEDDER, settings=make_settings(k=2), vectors=given)
    expected = selector._pool.vectors.clone()
    assert torch.equal(expected, torch.as_tensor(given))
    given[:] = 0
    assert torch.equal(selector._pool.vectors, expected)
    check_same(selector)


def test_equal_examples_with_vectors_of_their_own_keep_them():
    examples = [{"id": name, "input": "same", "output": "red"} for name in "bc"] + many(3)
    vectors = torch.nn.functional.normalize(torch.randn(5, 6), dim=-1)
    chosen = make_settings(calibrate=False, k=2)
    selector = DistillationSelector.from_examples(examples, UNITS, settings=chosen, vectors=vectors)
    assert torch.equal(selector._pool.vectors, vectors) and not holds_once(selector)


def test_a_loaded_pool_holds_its_vectors_once_after_a_change(tmp_path):
    selector = make_with(UNITS, many(80), {})
    selector.save(tmp_path / "selector")
    loaded = DistillationSelector.load(tmp_path / "selector", UNITS)
    loaded.add_examples(many(2, 80))
    assert holds_once(loaded)
    check_same(loaded)


@pytest.mark.parametrize("embedder", [EMBEDDER, UNITS], ids=["any norm", "unit norm"])
def test_changes_may_be_made_inside_and_outside_of_inference_mode(embedder):
    with torch.inference_mode():
        vectors = embedder.embed_documents([shown["input"] for shown in many(40)])
        selector = make_with(embedder, many(40), {})
        given = DistillationSelector.from_examples(
            many(40), embedder, vectors=vectors, settings=make_settings(calibrate=False, k=2)
        )
        for each in (selector, given):
            each.add_examples(many(1, 40))
    for each in (selector, given):
        each.add_examples(many(1, 41))
        each.remove(each.pool[3].id)
    check_same(selector)


def test_many_gaps_are_closed():
    selector = make(many(300), {})
    for i in range(200):
        selector.remove(selector.pool[i % 50].id)
    tensors = selector._pool.tensors
    assert len(tensors) == 100 and tensors.rows.gaps <= 64 + len(tensors.x) // 4
    assert len(selector._pool.embeddings.stored.rows) <= 64 + 5 * 100 // 4
    check_same(selector)


def test_readers_keep_the_pool_that_they_began_with():
    selector = make(many(60), {})
    selector.add_examples(many(1, 60))  # from here on there is room
    pool, x = selector._pool, selector._pool.tensors.x.clone()
    expected = [selector.select(query).ids for query in QUERIES]
    other = copy.copy(selector)
    for i in range(5):
        selector.add_example({"input": f"mine {i}", "output": "red"})
        other.add_example({"input": f"of the other {i}", "output": "blue"})
    assert torch.equal(pool.tensors.x, x) and len(pool.pool) == 61
    assert [
        DistillationSelector(pool, selector.settings, None, selector.calibration).select(q).ids for q in QUERIES
    ] == (expected)
    for changed, word in ((selector, "mine"), (other, "of the other")):
        assert [shown.input for shown in changed.pool][61:] == [f"{word} {i}" for i in range(5)]
        check_same(changed)


def test_a_changed_selector_can_be_pickled_and_copied():
    selector = make(many(60), {})
    selector.add_examples(many(2, 60))
    selector.remove(selector.pool[3].id)
    for other in (pickle.loads(pickle.dumps(selector)), copy.deepcopy(selector)):
        other.add_example({"input": "a new one", "output": "red"})
        check_same(other)
    assert len(selector.pool) == 61


def test_a_refused_change_leaves_the_pool_as_it_was():
    selector = make(many(4), {"budget": 100})
    selector.add_examples(many(1, 4))
    ids = [shown.id for shown in selector.pool]
    with pytest.raises(PoolError, match="distinct"):
        selector.remove(ids[:4])
    with pytest.raises(PoolError, match="nowhere"):
        selector.update("nowhere", many(1)[0])
    assert [shown.id for shown in selector.pool] == ids
    check_same(selector)


def test_equal_inputs_with_vectors_of_their_own_keep_the_vector_of_the_lowest_id():
    examples = [{"id": name, "input": "same", "output": "red"} for name in "bc"] + many(3)
    vectors = torch.randn(5, 6)
    chosen = make_settings(calibrate=False, k=2)
    selector = DistillationSelector.from_examples(examples, EMBEDDER, settings=chosen, vectors=vectors)
    selector.remove("b")
    expected = EmbeddedPool.build(selector.pool, vectors[1:], EMBEDDER, chosen).tensors
    assert torch.equal(describe(selector._pool.tensors)["x"], describe(expected)["x"])


def test_versions_share_memory_and_see_their_own_rows():
    first = GrowingRows(torch.arange(6.0).view(3, 2))
    second = first.append(torch.ones(1, 2))
    third, other = second.append(torch.full((1, 2), 2.0)), second.append(torch.full((1, 2), 3.0))
    assert third.rows.data_ptr() == second.rows.data_ptr() != first.rows.data_ptr()
    assert other.rows.data_ptr() != second.rows.data_ptr()
    assert first.rows.tolist() == [[0, 1], [2, 3], [4, 5]] and second.rows.tolist()[3:] == [[1, 1]]
    assert third.rows.tolist()[4:] == [[2, 2]] and other.rows.tolist()[4:] == [[3, 3]]
    assert second.append(torch.ones(0, 2)) is second
