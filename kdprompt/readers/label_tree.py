"""Labels as a tree of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["LabelTree"]


@dataclass(frozen=True)
class LabelTree:
    """Labels as a tree of tokens: common beginnings stand once, and one forward pass scores them all.

    Attributes:
        tokens: Token of each node ``[t]``, parents before children.
        parent: Node before it ``[t]``, −1 for the first token of a label.
        depth: Tokens before it in its label ``[t]``.
        paths: Nodes of each label.
    """

    tokens: Tensor
    parent: Tensor
    depth: Tensor
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, labels: Sequence[Sequence[int]]) -> "LabelTree":
        """The tree of labels given as token ids."""
        nodes: dict[tuple[int, ...], int] = {}
        paths = []
        for label in labels:
            prefixes = [tuple(label[: i + 1]) for i in range(len(label))]
            paths.append(tuple(nodes.setdefault(prefix, len(nodes)) for prefix in prefixes))
        return cls(
            tokens=torch.tensor([prefix[-1] for prefix in nodes]),
            parent=torch.tensor([nodes.get(prefix[:-1], -1) for prefix in nodes]),
            depth=torch.tensor([len(prefix) - 1 for prefix in nodes]),
            paths=tuple(paths),
        )

    @cached_property
    def inner(self) -> Tensor:
        """The nodes that something follows ``[s]``: the model need not read the others to score them."""
        inner: Tensor = self.parent[self.parent >= 0].unique()
        return inner

    @cached_property
    def rows(self) -> Tensor:
        """Where each node is predicted ``[t]``: 0 at the end of the prompt, 1 + i at the i-th inner node."""
        place = torch.zeros(len(self.tokens) + 1, dtype=torch.long)  # the last stands for parent −1
        place[self.inner] = torch.arange(1, len(self.inner) + 1)
        found: Tensor = place[self.parent]
        return found

    @cached_property
    def visible(self) -> Tensor:
        """Which nodes each node attends to, its ancestors and itself, ``[t, t]``."""
        size = len(self.tokens)
        seen = torch.eye(size, dtype=torch.bool)
        for node in range(size):
            parent = int(self.parent[node])
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen
