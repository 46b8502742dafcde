"""Rows of a pool, gathered once for everything that looks at them."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from kdprompt.pool.neighbours import Neighbours, take_rows
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.theory.point_pairs import PointPairs

__all__ = ["GatheredRows"]


@dataclass(frozen=True)
class GatheredRows:
    """Rows for each of ``b`` queries, in the pool's dtype on its device.

    Attributes:
        x: Inputs ``[b, L, d]``.
        v: Values ``[b, L, c]``.
        neighbours: The queries whose neighbours they are; None where they are others.
    """

    x: Tensor
    v: Tensor
    neighbours: Neighbours | None = None

    @classmethod
    def take(cls, pool: PoolTensors, index: Tensor, neighbours: Neighbours | None = None) -> "GatheredRows":
        """The rows ``index: [b, L]``, and whose neighbours they are if they are neighbours."""
        return cls(pool.take_inputs(index), take_rows(pool.v, index), neighbours)

    @cached_property
    def among(self) -> PointPairs:
        """Pairs of the rows' inputs ``[b, L, L]``: for the kernel, and for what is a duplicate of what."""
        return PointPairs(self.x, self.x)

    @cached_property
    def with_query(self) -> PointPairs | None:
        """Pairs of the rows' inputs with their query ``[b, L, 1]``, their products as the look-up found them."""
        if self.neighbours is None or self.neighbours.similarity is None:
            return None
        pairs = PointPairs(self.x, self.neighbours.q[:, None, :])
        return pairs.with_known(inner=self.neighbours.similarity[..., None], x_norms=self.among.x_norms)
