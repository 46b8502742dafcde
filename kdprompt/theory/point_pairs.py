"""Two sets of points, and what several kernels look at: their inner products, computed once."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["PointPairs", "combine_squares", "multiply_with_all", "widen"]

FEW = 4  # points, for which a processor is faster with the many rows first,
LARGE = 1 << 21  # where these are so many numbers that a cache holds them no longer when the next query comes
WIDENED = 1 << 20  # numbers of half precision that one thread widens at a time: few enough for its cache,
SHARED_WIDENED = 1 << 22  # that several threads do: many enough that waking them costs less,
MANY_WIDENED = 1 << 27  # and that an accelerator does


@dataclass(frozen=True)
class PointPairs:
    """The pairs of points ``x: [..., n, d]`` and ``y: [..., m, d]``; where both are one tensor, pairs among them."""

    x: Tensor
    y: Tensor

    @cached_property
    def inner(self) -> Tensor:
        """⟨x_i, y_j⟩ ``[..., n, m]``."""
        return self.x @ self.y.transpose(-1, -2)

    @cached_property
    def x_norms(self) -> Tensor:
        """‖x_i‖² ``[..., n]``."""
        return self.inner.diagonal(dim1=-2, dim2=-1) if self.x is self.y else self.x.square().sum(-1)

    @cached_property
    def y_norms(self) -> Tensor:
        """‖y_j‖² ``[..., m]``."""
        return self.x_norms if self.x is self.y else self.y.square().sum(-1)

    def squared_distances(self) -> Tensor:
        """‖x_i − y_j‖² in [0, ∞) as ``[..., n, m]``, computed anew."""
        return combine_squares(self.x_norms, self.y_norms, self.inner)

    def with_known(self, **known: Tensor) -> "PointPairs":
        """The same pairs, of which ``inner``, ``x_norms`` or ``y_norms`` are at hand."""
        same = replace(self)
        vars(same).update(known)
        return same


def combine_squares(x_norms: Tensor, y_norms: Tensor, inner: Tensor) -> Tensor:
    """‖x‖² + ‖y‖² − 2⟨x, y⟩, clamped at zero, ``[..., n, m]``."""
    return torch.sub(y_norms[..., None, :], inner, alpha=2).add_(x_norms[..., :, None]).clamp_min_(0)


def multiply_with_all(few: Tensor, x: Tensor) -> Tensor:
    """Inner products of some points with many rows, at the pace at which memory gives them.

    On a processor (MKL) a product of many rows with one vector reads them at half the pace of a product with two, one
    of two to four vectors with many columns at a fifth of that with the rows first; and both keep to one thread. So the
    rows stand first where they are too many for a cache, and a single point is multiplied twice.

    Args:
        few: The points ``[m, d]``.
        x: The rows ``[n, d]``, in the dtype of the points or in half precision; sums are in the dtype of the points.

    Returns:
        ``[m, n]``, contiguous.
    """
    if x.dtype != few.dtype:
        inner = few.new_empty(len(few), len(x))
        step = max(1, _count_widened(x.device) // x.shape[-1])
        wide = few.new_empty(min(step, len(x)), x.shape[-1])  # once: memory that is new each time costs more than x
        for start in range(0, len(x), step):
            part = x[start : start + step]
            inner[:, start : start + step] = multiply_with_all(few, wide[: len(part)].copy_(part))
        return inner
    if len(few) > FEW or x.numel() < LARGE or x.device.type != "cpu":
        return few @ x.T
    inner = x @ (few.repeat(2, 1) if len(few) == 1 else few).T  # a copy: with an expanded one the product is slow
    return inner.T[: len(few)].contiguous()


def widen(x: Tensor) -> Tensor:
    """Numbers of half precision in single precision; others as they are, themselves."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _count_widened(device: torch.device) -> int:
    if device.type != "cpu":
        return MANY_WIDENED
    return WIDENED if torch.get_num_threads() == 1 else SHARED_WIDENED
