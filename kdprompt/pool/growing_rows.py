"""Rows that grow: versions of a matrix that share memory, so that a few more rows cost a few rows."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["GrowingRows", "PoolVectors"]

SPARE = 8  # rows that are copied get room for an eighth more
FEW = 64  # more, at least; and gaps that never matter


class _Storage:
    """Memory for rows, of which the first ``used`` are taken by some version."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.used = rows, len(rows)
        self.lock = threading.Lock()


class GrowingRows:
    """One version of a matrix: the first rows of a storage that later versions may write behind.

    A version never changes. The newest is lengthened in place; one that has been lengthened already is copied.

    Attributes:
        rows: The rows ``[n, …]``, a view.
    """

    def __init__(self, rows: Tensor) -> None:
        self._storage = _Storage(rows)
        self.rows = rows

    def append(self, more: Tensor) -> "GrowingRows":
        """The version with ``more: [m, …]`` behind these rows."""
        if not len(more):
            return self
        storage, begin, end = self._storage, len(self.rows), len(self.rows) + len(more)
        with storage.lock:
            is_free = storage.used == begin and end <= len(storage.rows)
            if is_free:
                storage.used = end
        if not is_free:
            roomy = self.rows.new_empty((end + max(end // SPARE, FEW), *self.rows.shape[1:]))
            roomy[:begin] = self.rows
            storage = _Storage(roomy)
            storage.used = end
        storage.rows[begin:end] = more
        version = GrowingRows.__new__(GrowingRows)
        version._storage, version.rows = storage, storage.rows[:end]
        return version

    def __reduce__(self) -> tuple[Any, ...]:
        return GrowingRows, (torch.clone(self.rows),)


@dataclass(frozen=True)
class PoolVectors:
    """The embeddings of a pool's inputs, kept as the pool changes.

    Attributes:
        stored: The embeddings, and those of inputs that have left ``[N, d]``.
        places: Which of them belong to the pool, in its order ``[n]``; None: all of them, in that order.
    """

    stored: GrowingRows
    places: Tensor | None = None

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

    def append(self, more: Tensor) -> "PoolVectors":
        """With ``more: [m, d]`` behind."""
        stored = self.stored.append(more.to(self.stored.rows))
        return PoolVectors(stored, None if self.places is None else torch.cat([self.places, self._behind(stored)]))

    def replace(self, place: int, vector: Tensor) -> "PoolVectors":
        """With another vector ``[1, d]`` in one place of the pool."""
        stored = self.stored.append(vector.to(self.stored.rows))
        places = self._all_places().clone()
        places[place] = self._behind(stored)[0]
        return PoolVectors(stored, places)

    def without(self, gone: Sequence[int]) -> "PoolVectors":
        """Without some places of the pool; the others move up."""
        places = self._all_places()
        stays = torch.ones_like(places, dtype=torch.bool)
        stays[torch.tensor(gone, dtype=torch.long, device=stays.device)] = False
        return PoolVectors(self.stored, places[stays])

    def _all_places(self) -> Tensor:
        rows = self.stored.rows
        return torch.arange(len(rows), device=rows.device) if self.places is None else self.places

    def _behind(self, stored: GrowingRows) -> Tensor:
        return torch.arange(len(self.stored.rows), len(stored.rows), device=stored.rows.device)
