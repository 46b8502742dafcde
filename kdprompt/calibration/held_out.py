"""Rows of the pool that are held out, and their neighbours: each product of a row with the pool is made once.

In a large pool looking them up is most of what calibration costs. There the pseudo-queries are among the rows that the
regression is fitted to, and nobody's neighbours: a few rows in ten thousand are missed by the others.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdprompt.pool.neighbours import Neighbours, find_neighbours, take_nearest_in_turn
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.pool.vectors import normalise_rows
from kdprompt.theory.point_pairs import multiply_with_all

__all__ = ["HeldOutRows", "LeftOutRows", "encode_rows", "hold_out"]

LARGE = 32_768  # rows beyond which pseudo-queries are among those left out in turn
LEFT_OUT = 512


def encode_rows(pool: PoolTensors, rows: Tensor) -> QueryTensors:
    """Rows of a pool as queries; each is left out of its own prompt."""
    return QueryTensors(normalise_rows(pool.take_inputs(rows)), pool.task[rows], pool.text[rows])


@dataclass(frozen=True)
class HeldOutRows:
    """Rows of a pool as queries.

    Attributes:
        rows: The rows ``[h]``.
        neighbours: Theirs, the row itself left out.
    """

    rows: Tensor
    neighbours: Neighbours

    @classmethod
    def apart(cls, pool: PoolTensors, rows: Tensor, size: int) -> "HeldOutRows":
        """Rows with ``size`` neighbours each, none of them one of the rows."""
        return cls(rows, find_neighbours(pool, encode_rows(pool, rows), size, exclude=_mark(pool, rows)))

    def part(self, rows: slice) -> "HeldOutRows":
        """Some of them."""
        return HeldOutRows(self.rows[rows], self.neighbours.part(rows))


@dataclass(frozen=True)
class LeftOutRows:
    """Rows that are left out in turn, in the order in which they were drawn.

    Attributes:
        pool: The pool.
        order: All its rows ``[n]``.
        size: Neighbours of each.
        apart: How many of the first are nobody's neighbours.
    """

    pool: PoolTensors
    order: Tensor
    size: int
    apart: int = 0

    @classmethod
    def draw(cls, pool: PoolTensors, size: int, generator: torch.Generator, apart: int) -> "LeftOutRows":
        """Draws them; in a large pool the first ``apart`` are nobody's neighbours."""
        order = torch.randperm(len(pool), generator=generator).to(pool.x.device)
        return cls(pool, order, size, apart if len(pool) > LARGE else 0)

    @cached_property
    def first(self) -> HeldOutRows:
        """The first 512, looked up when they are asked for."""
        return self._look_up(slice(LEFT_OUT))

    def take(self, count: int) -> HeldOutRows:
        """The first ``count``, at least 512, of which the first are not looked up again."""
        known, rows = self.first, self.order[:count]
        if len(rows) <= len(known.rows):
            return known
        more = self._look_up(slice(LEFT_OUT, count))
        index, valid = (
            torch.cat([getattr(one.neighbours, name) for one in (known, more)]) for name in ("index", "valid")
        )
        return HeldOutRows(rows, Neighbours(index, valid, encode_rows(self.pool, rows)))

    def _look_up(self, which: slice) -> HeldOutRows:
        rows = self.order[which]
        exclude = _mark(self.pool, self.order[: self.apart]) if self.apart else None
        return HeldOutRows(rows, find_neighbours(self.pool, encode_rows(self.pool, rows), self.size, exclude=exclude))


def _mark(pool: PoolTensors, rows: Tensor) -> Tensor:
    """Where these rows are, boolean ``[n]``."""
    marked = torch.zeros(len(pool), dtype=torch.bool, device=pool.x.device)
    marked[rows] = True
    return marked


def hold_out(left_out: LeftOutRows, count: int, generator: torch.Generator, traffic: Tensor | None) -> HeldOutRows:
    """Rows that stand for queries, none of them a neighbour of another.

    Args:
        left_out: Rows that are left out in turn, the first of which are taken where they are nobody's neighbours.
        count: How many.
        generator: Draws a uniform sample.
        traffic: Unit-norm embeddings of queries ``[m, d]``: the nearest row of each, then the second nearest.
    """
    if left_out.apart:
        return left_out.first.part(slice(count))
    pool = left_out.pool
    if traffic is None:
        rows = torch.randperm(len(pool), generator=generator)[:count].to(pool.x.device)
    else:
        sample = traffic[torch.randperm(traffic.shape[0], generator=generator)[:LEFT_OUT].to(traffic.device)]
        similarity = multiply_with_all(sample, pool.x)
        nearest_to_any = similarity.amax(0).topk(count).indices.tolist()  # for traffic that repeats itself
        near = list(dict.fromkeys([*take_nearest_in_turn(similarity, count), *nearest_to_any]))[:count]
        rows = torch.tensor(near, device=pool.x.device)
    return HeldOutRows.apart(pool, rows, left_out.size)
