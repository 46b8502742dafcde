"""Rows that grow: versions of a matrix that share memory, so that a few more rows cost a few rows."""

import threading
from typing import Any

import torch
from torch import Tensor

__all__ = ["FEW", "GrowingRows"]

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
            with torch.inference_mode(False):  # a caller's inference mode must not bind what later versions write into
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
