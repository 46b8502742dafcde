"""What a kernel is, and the kernels made of other kernels: κ₁ + κ₂, κ₁·κ₂ and c·κ.

``kdprompt.theory.kernels`` holds the kernels themselves and names these again: import from
there.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kdprompt.tagged_union import TaggedUnion
from kdprompt.theory.point_pairs import PointPairs

__all__ = ["Kernel", "Product", "Scaled", "Sum", "check_positive"]


class Kernel(TaggedUnion, ABC):
    """A positive semi-definite function κ of two points."""

    @abstractmethod
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The Gram matrix κ(x_i, y_j).

        Args:
            x: Points ``[..., n, d]``.
            y: Points ``[..., m, d]``.

        Returns:
            ``[..., n, m]``.
        """

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        """The Gram matrix ``[..., n, m]`` of points whose inner products may be at hand; this looks at points alone."""
        return self(pairs.x, pairs.y)

    @abstractmethod
    def diagonal(self, x: Tensor) -> Tensor:
        """κ(x_i, x_i) for points ``x: [..., n, d]``, as ``[..., n]``."""

    def __add__(self, other: "Kernel") -> "Sum":
        """The kernel κ₁ + κ₂."""
        return Sum(self, other)

    def __mul__(self, other: "Kernel | float") -> "Kernel":
        """The kernel κ₁·κ₂, or c·κ for a number c > 0."""
        return Product(self, other) if isinstance(other, Kernel) else Scaled(self, float(other))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Sum(Kernel):
    """κ₁ + κ₂."""

    first: Kernel
    second: Kernel
    kind: Literal["sum"] = "sum"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.first(x, y) + self.second(x, y)

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        return self.first.of_pairs(pairs) + self.second.of_pairs(pairs)

    def diagonal(self, x: Tensor) -> Tensor:
        return self.first.diagonal(x) + self.second.diagonal(x)


@dataclass(frozen=True)
class Product(Kernel):
    """κ₁ · κ₂."""

    first: Kernel
    second: Kernel
    kind: Literal["product"] = "product"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.first(x, y) * self.second(x, y)

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        return self.first.of_pairs(pairs) * self.second.of_pairs(pairs)

    def diagonal(self, x: Tensor) -> Tensor:
        return self.first.diagonal(x) * self.second.diagonal(x)


@dataclass(frozen=True)
class Scaled(Kernel):
    """c · κ for c > 0.

    Raises:
        ValueError: ``scale`` is not positive.
    """

    base: Kernel
    scale: float
    kind: Literal["scaled"] = "scaled"

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * self.base(x, y)

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        return self.scale * self.base.of_pairs(pairs)

    def diagonal(self, x: Tensor) -> Tensor:
        return self.scale * self.base.diagonal(x)


def check_positive(name: str, value: float) -> None:
    """Refuses a parameter of a kernel that is not above zero; NaN is refused too.

    Raises:
        ValueError: ``value`` is not positive; the message gives ``name`` and ``value``.
    """
    if not value > 0:
        raise ValueError(f"{name} must be a positive number, got {value}")
