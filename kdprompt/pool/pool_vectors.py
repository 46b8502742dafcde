"""The embeddings of a pool's inputs, kept as the pool changes: in memory of their own, or in its tensors' rows.

Most embedders give vectors of unit norm. The rows of the pool's tensors hold the very same numbers then, and the pool
keeps them once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdprompt.pool.distinct_rows import DistinctRows, RowChange, content_of
from kdprompt.pool.growing_rows import FEW, GrowingRows
from kdprompt.pool.pool import Pool
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.records import Demonstration
from kdprompt.pool.vectors import halve_rows

__all__ = ["PoolChange", "PoolVectors"]


@dataclass(frozen=True)
class PoolVectors:
    """The embeddings of a pool's inputs.

    Attributes:
        stored: The embeddings, and those of inputs that have left ``[N, d]``.
        places: Which of them belong to the pool, in its order ``[n]``; None: all of them, in that order.
    """

    stored: GrowingRows
    places: Tensor | None = None

    @classmethod
    def of(cls, pool: Pool, vectors: Tensor, tensors: PoolTensors) -> "PoolVectors":
        """The vectors ``[n, d]`` of a pool: the rows of its tensors where these hold the same, else themselves.

        Where the tensors are of half precision the vectors are, too.
        """
        hold = halve_rows if tensors.is_half else lambda given: given
        if tensors.memory is None or not tensors.memory.holds_given:
            return cls(GrowingRows(hold(vectors)))
        rows, (distinct, places) = torch.empty(len(pool), dtype=torch.long), pool.distinct_rows
        rows[torch.from_numpy(places)] = torch.arange(len(places))
        repeats = [
            (pool.index(ident), distinct.by_content[content])
            for content, of in distinct.repeats.items()
            for ident in of
        ]
        if repeats:
            repeated, standing = torch.tensor(repeats).T
            if not torch.equal(hold(vectors[repeated.to(vectors.device)]), tensors.x[standing.to(vectors.device)]):
                return cls(GrowingRows(hold(vectors)))
            rows[repeated] = standing
        return cls(tensors.memory.x, rows.to(vectors.device))

    def held_by(self, pool: Pool, tensors: PoolTensors) -> "PoolVectors":
        """The same, in the rows of the tensors of a loaded pool, which were made after its vectors were read."""
        is_late = self.places is None and tensors.memory is not None and self.stored is not tensors.memory.x
        return PoolVectors.of(pool, self.stored.rows, tensors) if is_late else self

    @property
    def rows(self) -> Tensor:
        """All of them ``[n, d]``."""
        return self.stored.rows if self.places is None else self.stored.rows[self.places]

    @property
    def width(self) -> int:
        """Dimensions d."""
        return self.stored.rows.shape[-1]

    @property
    def has_many_gaps(self) -> bool:
        """Whether more than a fifth of what is stored has left."""
        return self.places is not None and len(self.stored.rows) > FEW + 5 * len(self.places) // 4

    def at(self, index: Sequence[int]) -> Tensor:
        """Those of some places of the pool ``[m, d]``."""
        places = torch.tensor(index, dtype=torch.long, device=self.stored.rows.device)
        return self.stored.rows[places if self.places is None else self.places[places]]


@dataclass(frozen=True)
class PoolChange:
    """Demonstrations that leave a pool, and others that come.

    Attributes:
        gone: Places of those that leave.
        added: Those that come.
        vectors: Embeddings of their inputs ``[m, d]``, in the dtype and on the device of the pool's.
        place: Where the only one that comes stands, in the place of the only one that leaves; None: those that come
            stand behind.
    """

    gone: Sequence[int]
    added: Sequence[Demonstration]
    vectors: Tensor
    place: int | None = None

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {shown.id: number for number, shown in enumerate(self.added)}

    def take_vectors(self, shown: Sequence[Demonstration]) -> Tensor:
        """The embeddings of some of those that come ``[·, d]``."""
        at = [self._number_of[one.id] for one in shown]
        return self.vectors[torch.tensor(at, dtype=torch.long, device=self.vectors.device)]

    def keeps_vectors(
        self, pool: Pool, vectors: PoolVectors, before: DistinctRows, after: DistinctRows, moved: RowChange
    ) -> bool:
        """Whether each demonstration that takes the row of one that it repeats has the vector of that one.

        Args:
            pool: The pool before the change.
            vectors: Its embeddings.
            before: Its rows.
            after: The rows after it.
            moved: What it does to the rows.
        """
        renamed = [row for row in moved.arrived if row < len(before.ids)]
        if not renamed:
            return True
        fresh = self._number_of
        new = [
            self.vectors[fresh[ident]] if ident in fresh else vectors.at([pool.index(ident)])[0]
            for ident in (after.ids[row] for row in renamed)
        ]
        return torch.equal(vectors.at([pool.index(before.ids[row]) for row in renamed]), torch.stack(new))

    def list_vectors(self, before: PoolVectors) -> Tensor:
        """The embeddings after the change, in the order of the pool, in memory of their own."""
        places, begin = self._place(before, self._behind(before)), len(before.stored.rows)
        vectors = before.stored.rows.index_select(0, places.clamp_max(begin - 1))
        come = places >= begin
        vectors[come] = self.vectors[places[come] - begin]
        return vectors

    def keep(self, before: PoolVectors, earlier: PoolTensors, tensors: PoolTensors) -> PoolVectors:
        """The embeddings after the change.

        Args:
            before: Those before it.
            earlier: The pool's tensors before it.
            tensors: The same after it, made of ``earlier``.
        """
        if earlier.memory is None or tensors.memory is None or before.stored is not earlier.memory.x:
            places = None if before.places is None and not self.gone else self._place(before, self._behind(before))
            return PoolVectors(before.stored.append(self.vectors), places)
        index = [tensors.rows.by_content[content_of(shown)] for shown in self.added]
        rows = torch.tensor(index, dtype=torch.long, device=self.vectors.device)
        if torch.equal(tensors.x[rows], self.vectors):
            return PoolVectors(tensors.memory.x, self._place(before, rows))
        return PoolVectors(GrowingRows(self.list_vectors(before)))

    def _behind(self, before: PoolVectors) -> Tensor:
        """Where the newcomers' embeddings stand if they are put behind all others."""
        begin = len(before.stored.rows)
        return torch.arange(begin, begin + len(self.added), device=self.vectors.device)

    def _place(self, before: PoolVectors, added: Tensor) -> Tensor:
        """Where each embedding stands, in the order of the pool; ``added`` of those that come."""
        device = added.device
        places = torch.arange(len(before.stored.rows), device=device) if before.places is None else before.places
        if self.place is not None:
            return places.index_copy(0, torch.tensor([self.place], device=device), added)
        stays = torch.ones_like(places, dtype=torch.bool)
        stays[torch.tensor(self.gone, dtype=torch.long, device=device)] = False
        return torch.cat([places[stays], added])
