"""A pool as the checks see it: its distinct inputs, their vectors and neighbours, and codes of tasks and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdprompt.diagnose.nearest_inputs import NearestInputs, find_nearest_inputs
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import normalise_text
from kdprompt.pool.vectors import normalise_rows

__all__ = ["EmbeddedTexts", "ExaminedPool"]

NEIGHBOURS = 32
CHUNK = 1024  # texts whose similarities to the whole pool are held at a time


@dataclass(frozen=True)
class EmbeddedTexts:
    """Texts with their embeddings: a sample of the traffic, or an evaluation set.

    Attributes:
        texts: The texts, ``m`` of them.
        vectors: Their embeddings ``[m, d]``.
    """

    texts: Sequence[str]
    vectors: Tensor


class ExaminedPool:
    """A pool with embeddings of its inputs; what several checks need is worked out once.

    Args:
        pool: The pool, ``n`` examples.
        vectors: Embeddings of its inputs ``[n, d]``.

    Raises:
        ValueError: There is not one vector an example.
    """

    def __init__(self, pool: Pool, vectors: Tensor) -> None:
        if len(pool) != len(vectors):
            raise ValueError(f"a pool of {len(pool)} examples needs one vector each, got {len(vectors)}")
        self.pool = pool
        self.vectors = vectors
        rows: dict[str, list[int]] = {}
        for i, demonstration in enumerate(pool):
            rows.setdefault(normalise_text(demonstration.input), []).append(i)
        self.rows_by_text = rows
        self.repeated = {text: its for text, its in rows.items() if len(its) > 1}
        self.first = torch.tensor([its[0] for its in rows.values()], dtype=torch.long)

    @cached_property
    def x(self) -> Tensor:
        """Unit-norm embeddings of the distinct inputs ``[m, d]``, float32 on the CPU, in the order of the pool."""
        return normalise_rows(self.vectors.float().cpu().index_select(0, self.first))

    @cached_property
    def nearest(self) -> NearestInputs:
        """The nearest other inputs of each distinct input."""
        return find_nearest_inputs(self.x, NEIGHBOURS)

    def pairs(self, cosine: float) -> tuple[Tensor, Tensor]:
        """Pairs of distinct inputs with at least a cosine, as the first example of each ``[p, 2]``, and it ``[p]``."""
        left, place = (self.nearest.similarity >= cosine).nonzero().T
        right = self.nearest.index[left, place]
        ordered = torch.stack([torch.minimum(left, right), torch.maximum(left, right)], -1)
        pairs, inverse = ordered.unique(dim=0, return_inverse=True)
        similarity = self.x.new_zeros(len(pairs)).index_copy(0, inverse, self.nearest.similarity[left, place])
        return self.first[pairs], similarity

    def find_nearest(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The example nearest to each of other texts: cosines and rows of the pool ``[m]`` each."""
        q = normalise_rows(vectors.float().cpu())
        best = [(part @ self.x.T).max(-1) for part in q.split(CHUNK)]
        return torch.cat([part.values for part in best]), self.first[torch.cat([part.indices for part in best])]
