"""The demonstrations nearest to each query, and which of them repeat one another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors, find_allowed_rows

__all__ = ["Neighbours", "find_duplicates", "find_nearest", "find_neighbours", "take_nearest_in_turn"]

CHUNK = 128  # queries whose similarities to the whole pool are held at a time


@dataclass(frozen=True)
class Neighbours:
    """The pool around each of ``b`` queries.

    Attributes:
        index: Rows of the pool's tensors ``[b, L]``, in the order of ids.
        valid: Which of them may serve the query ``[b, L]``.
        queries: The queries.
    """

    index: Tensor
    valid: Tensor
    queries: QueryTensors

    @property
    def q(self) -> Tensor:
        """The queries' embeddings ``[b, d]``."""
        return self.queries.q

    @property
    def task(self) -> Tensor:
        """Task code of each query ``[b]``, −1 for any; says which prior v̄ holds."""
        return self.queries.task

    def part(self, rows: slice) -> "Neighbours":
        """Those of some of the queries."""
        return Neighbours(self.index[rows], self.valid[rows], self.queries.part(rows))

    def to(self, device: torch.device, dtype: torch.dtype) -> "Neighbours":
        """The same on another device in another dtype."""
        return Neighbours(self.index.to(device), self.valid.to(device), self.queries.to(device, dtype))

    def __len__(self) -> int:
        return len(self.queries)


def find_neighbours(
    pool: PoolTensors, queries: QueryTensors, size: int, *, exclude: Tensor | None = None
) -> Neighbours:
    """Looks up the nearest rows that may serve each query, some queries at a time.

    Args:
        pool: ``n`` rows.
        queries: ``b`` queries.
        size: Neighbours a query.
        exclude: Rows that may serve no query, boolean ``[n]``.
    """
    index, valid = [], []
    for start in range(0, len(queries), CHUNK):
        part = queries.part(slice(start, start + CHUNK))
        allowed = find_allowed_rows(pool, part)
        if exclude is not None:
            allowed &= ~exclude
        nearest, is_allowed = find_nearest(pool.x, part.q, allowed, min(size, len(pool)), pool.rank)
        index.append(nearest)
        valid.append(is_allowed)
    return Neighbours(torch.cat(index), torch.cat(valid), queries)


def find_nearest(x: Tensor, q: Tensor, allowed: Tensor, size: int, rank: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The rows nearest to each query by inner product, in the order of ids (so ties go to the lowest id).

    Args:
        x: Unit-norm rows ``[n, d]``.
        q: Unit-norm queries ``[b, d]``.
        allowed: Boolean ``[b, n]``.
        size: Rows a query, at most n are given.
        rank: Place of each row in the order of ids ``[n]``; None: the rows stand in it.

    Returns:
        Row indices ``[b, L]`` and, where fewer than L rows are allowed, which of them are valid ``[b, L]``.
    """
    similarity = (q @ x.T).masked_fill(~allowed, -torch.inf)
    size = min(size, x.shape[0])
    edge = similarity.topk(size, dim=-1).values[:, -1:]
    rounding = 8 * torch.finfo(similarity.dtype).eps
    inside = similarity > edge + rounding
    tied = ~inside & (similarity >= edge - rounding)
    if rank is None:
        inside |= tied & (tied.cumsum(-1) <= size - inside.sum(-1, keepdim=True))
        index = inside.nonzero()[:, 1].view(-1, size)
    else:
        turn = torch.where(inside, -1, torch.where(tied, rank, len(rank)))
        index = turn.topk(size, dim=-1, largest=False).indices
        index = index.gather(-1, rank[index].argsort(-1))
    return index, allowed.gather(-1, index)


def find_duplicates(pool: PoolTensors, index: Tensor, threshold: float) -> Tensor:
    """Which rows are never shown together: those of one text, or with a cosine of at least ``threshold``.

    Args:
        pool: The pool.
        index: Rows ``[b, L]``.
        threshold: Cosine of two inputs.

    Returns:
        Boolean ``[b, L, L]``, true on the diagonal.
    """
    x, text = pool.x[index], pool.text[index]
    return (text[:, :, None] == text[:, None, :]) | (x @ x.transpose(-1, -2) >= threshold)


def take_nearest_in_turn(similarity: Tensor, size: int) -> list[int]:
    """The nearest row of each query, then the second nearest of each, and so on, each row once.

    Args:
        similarity: Of ``m`` queries with ``n`` rows ``[m, n]``; −inf bars a row from a query.
        size: Most rows; fewer come back where the queries share their ``4·size/m`` nearest.
    """
    depth = -(-size // len(similarity))
    nearest = similarity.topk(min(4 * depth, similarity.shape[-1]), dim=-1)
    turns = nearest.indices.T[nearest.values.T.isfinite()].tolist()
    return list(dict.fromkeys(turns))[:size]
