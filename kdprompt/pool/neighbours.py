"""The demonstrations nearest to each query, and which of them repeat one another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors, find_allowed_rows

__all__ = ["Neighbours", "find_duplicates", "find_neighbours", "rank_in_turn", "shortlist_nearest"]


def shortlist_nearest(x: Tensor, q: Tensor, allowed: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The rows nearest to each query by inner product, in ascending row order (so ties go to the lowest id).

    Args:
        x: Unit-norm rows ``[n, d]``.
        q: Unit-norm queries ``[b, d]``.
        allowed: Boolean ``[b, n]``.
        size: Rows a query, at most n are given.

    Returns:
        Row indices ``[b, L]`` and, where fewer than L rows are allowed, which of them are valid ``[b, L]``.
    """
    similarity = (q @ x.T).masked_fill(~allowed, -torch.inf)
    size = min(size, x.shape[0])
    edge = similarity.topk(size, dim=-1).values[:, -1:]
    rounding = 8 * torch.finfo(similarity.dtype).eps
    inside = similarity > edge + rounding
    tied = ~inside & (similarity >= edge - rounding)
    inside |= tied & (tied.cumsum(-1) <= size - inside.sum(-1, keepdim=True))
    index = inside.nonzero()[:, 1].view(-1, size)
    return index, allowed.gather(-1, index)


def find_duplicates(features: PoolTensors, index: Tensor, threshold: float) -> Tensor:
    """Which of the rows ``index: [b, L]`` are never shown together: same text, or a cosine from ``threshold`` up.

    Returns:
        Boolean ``[b, L, L]``, true on the diagonal.
    """
    x, text = features.x[index], features.text[index]
    return (text[:, :, None] == text[:, None, :]) | (x @ x.transpose(-1, -2) >= threshold)


def rank_in_turn(similarity: Tensor, size: int) -> list[int]:
    """The nearest row of each query, then the second nearest of each, and so on, each row once.

    Args:
        similarity: Of ``m`` queries with ``n`` rows ``[m, n]``; −inf bars a row from a query.
        size: Most rows; fewer come back where the queries share their ``4·size/m`` nearest.
    """
    depth = -(-size // len(similarity))
    near = similarity.topk(min(4 * depth, similarity.shape[-1]), dim=-1)
    turns = near.indices.T[near.values.T.isfinite()].tolist()
    return list(dict.fromkeys(turns))[:size]


CHUNK = 128


@dataclass(frozen=True)
class Neighbours:
    """The pool around each of ``b`` queries.

    Attributes:
        q: The queries' embeddings ``[b, d]``.
        index: Rows of the features ``[b, L]``, ascending.
        valid: Which of them are allowed ``[b, L]``.
        task: Task code of each query ``[b]``, −1 for any; says which prior v̄ holds.
    """

    q: Tensor
    index: Tensor
    valid: Tensor
    task: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> "Neighbours":
        """The same on another device in another dtype."""
        return Neighbours(self.q.to(device, dtype), self.index.to(device), self.valid.to(device), self.task.to(device))


def find_neighbours(
    features: PoolTensors, wanted: QueryTensors, size: int, *, exclude: Tensor | None = None
) -> Neighbours:
    """Looks up the nearest rows that may serve each query, tile by tile.

    Args:
        features: ``n`` rows.
        wanted: ``b`` queries.
        size: Neighbours a query.
        exclude: Rows that may serve no query, boolean ``[n]``.
    """
    index, valid = [], []
    for start in range(0, len(wanted), CHUNK):
        part = wanted.part(slice(start, start + CHUNK))
        allowed = find_allowed_rows(features, part)
        if exclude is not None:
            allowed &= ~exclude
        near, ok = shortlist_nearest(features.x, part.q, allowed, size)
        index.append(near)
        valid.append(ok)
    return Neighbours(wanted.q, torch.cat(index), torch.cat(valid), wanted.task)
