"""Labels as a tree of tokens, so that one forward pass scores all of them.

Rejected: one pass per label, which reads the common beginnings of labels again and again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["LabelTree"]


@dataclass(frozen=True)
class LabelTree:
    """Labels as a tree whose nodes are tokens; labels that begin alike share their first nodes.

    Attributes:
        token_ids: Token of each node ``[t]``, parents before children.
        parents: Node before each node ``[t]``, −1 for the first token of a label.
        depths: Number of tokens before each node in its label ``[t]``.
        paths: Nodes of each label, in reading order.
    """

    token_ids: Tensor
    parents: Tensor
    depths: Tensor
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def from_token_ids(cls, labels: Sequence[Sequence[int]]) -> "LabelTree":
        """Builds the tree of labels that are given as token ids."""
        nodes: dict[tuple[int, ...], int] = {}
        paths = []
        for label in labels:
            prefixes = [tuple(label[: i + 1]) for i in range(len(label))]
            paths.append(tuple(nodes.setdefault(prefix, len(nodes)) for prefix in prefixes))
        return cls(
            token_ids=torch.tensor([prefix[-1] for prefix in nodes]),
            parents=torch.tensor([nodes.get(prefix[:-1], -1) for prefix in nodes]),
            depths=torch.tensor([len(prefix) - 1 for prefix in nodes]),
            paths=tuple(paths),
        )

    @cached_property
    def internal_nodes(self) -> Tensor:
        """The nodes that have children ``[s]``: the model reads these alone, since leaves are only predicted."""
        nodes: Tensor = self.parents[self.parents >= 0].unique()
        return nodes

    @cached_property
    def logit_rows(self) -> Tensor:
        """Which row of logits predicts each node ``[t]``: 0 at the end of the prompt, 1 + i at internal node i."""
        row_of_node = torch.zeros(len(self.token_ids) + 1, dtype=torch.long)  # index −1, no parent, is the last entry
        row_of_node[self.internal_nodes] = torch.arange(1, len(self.internal_nodes) + 1)
        rows: Tensor = row_of_node[self.parents]
        return rows

    @cached_property
    def attention_mask(self) -> Tensor:
        """Whether node i attends to node j, an ancestor or itself, boolean ``[t, t]``."""
        mask = torch.eye(len(self.token_ids), dtype=torch.bool)
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                mask[node] |= mask[parent]
        return mask
