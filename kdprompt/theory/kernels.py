r"""Kernels κ: two sets of points in, a Gram matrix out.

A kernel is a small frozen object; ``k1 + k2`` and ``k1 * k2`` are kernels again. Points are tensors
``x: [..., n, d]`` of any floating dtype on any device, with leading dimensions that broadcast.

Softmax attention on unit-norm keys is the Gaussian kernel: exp((⟨x, x′⟩ − 1)/t) = exp(−‖x − x′‖²/2t).
Temperature t and bandwidth h are one knob, t = h², so the Gaussian is the default and takes ``temperature``.

Rejected: bandwidths inferred on the first call (hidden state). A data-dependent temperature is a function
call that you see, in ``kdprompt.theory.bandwidth``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Cosine",
    "Gaussian",
    "JointKernel",
    "Kernel",
    "Laplace",
    "Linear",
    "Polynomial",
    "Product",
    "RationalQuadratic",
    "Scaled",
    "Sum",
    "joint_points",
]


class Kernel(ABC):
    """A positive semi-definite function of two points."""

    @abstractmethod
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The Gram matrix κ(x_i, y_j).

        Args:
            x: Points ``[..., n, d]``.
            y: Points ``[..., m, d]``.

        Returns:
            ``[..., n, m]``.
        """

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


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖² in [0, ∞) as ``[..., n, m]``, from one matrix product (clamped at zero)."""
    own = x.square().sum(-1)
    other = own if y is x else y.square().sum(-1)
    norms = own[..., :, None] + other[..., None, :]
    return norms.sub_(x @ y.transpose(-1, -2), alpha=2).clamp_min(0)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be a positive number, got {value}")


@dataclass(frozen=True)
class Gaussian(Kernel):
    """exp(−‖x − y‖²/2t) in (0, 1]: softmax attention with temperature t on unit-norm keys.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> Gaussian(temperature=1.0)(x, x)[0, 1]  # exp(⟨x, y⟩ − 1)
        tensor(0.3679)
    """

    temperature: float = 1.0
    kind: Literal["gaussian"] = "gaussian"

    def __post_init__(self) -> None:
        _require_positive("temperature", self.temperature)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (squared_distances(x, y) / (-2 * self.temperature)).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[..., 0])


@dataclass(frozen=True)
class Laplace(Kernel):
    """exp(−‖x − y‖₂/h) in (0, 1], with the Euclidean distance."""

    bandwidth: float = 1.0
    kind: Literal["laplace"] = "laplace"

    def __post_init__(self) -> None:
        _require_positive("bandwidth", self.bandwidth)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        # The square root at zero would amplify the rounding of a matrix product: differences here.
        distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        return (-distance / self.bandwidth).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[..., 0])


@dataclass(frozen=True)
class RationalQuadratic(Kernel):
    """(1 + ‖x − y‖²/(2 α t))^(−α) in (0, 1]: a scale mixture of Gaussians."""

    temperature: float = 1.0
    alpha: float = 1.0
    kind: Literal["rational_quadratic"] = "rational_quadratic"

    def __post_init__(self) -> None:
        _require_positive("temperature", self.temperature)
        _require_positive("alpha", self.alpha)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        scaled = squared_distances(x, y) / (2 * self.alpha * self.temperature)
        return (1 + scaled).pow(-self.alpha)

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[..., 0])


@dataclass(frozen=True)
class Linear(Kernel):
    """⟨x, y⟩: linear attention; MMD under it compares means only."""

    kind: Literal["linear"] = "linear"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y.transpose(-1, -2)

    def diagonal(self, x: Tensor) -> Tensor:
        return x.square().sum(-1)


@dataclass(frozen=True)
class Cosine(Kernel):
    """⟨x, y⟩/(‖x‖‖y‖) in [−1, 1]; a zero vector has similarity 0 to everything."""

    kind: Literal["cosine"] = "cosine"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return _unit(x) @ _unit(y).transpose(-1, -2)

    def diagonal(self, x: Tensor) -> Tensor:
        return (x != 0).any(-1).to(x.dtype)


def _unit(x: Tensor) -> Tensor:
    scaled = x / x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)  # squares stay in the dtype
    return torch.nn.functional.normalize(scaled, dim=-1)


@dataclass(frozen=True)
class Polynomial(Kernel):
    """(⟨x, y⟩ + c)^p for a whole p ≥ 1 and c ≥ 0."""

    degree: int = 2
    offset: float = 1.0
    kind: Literal["polynomial"] = "polynomial"

    def __post_init__(self) -> None:
        if self.degree < 1 or self.degree != int(self.degree):
            raise ValueError(f"degree must be a whole number from 1, got {self.degree}")
        if not self.offset >= 0:
            raise ValueError(f"offset must be at least 0 (else not a kernel), got {self.offset}")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.transpose(-1, -2) + self.offset).pow(self.degree)

    def diagonal(self, x: Tensor) -> Tensor:
        return (x.square().sum(-1) + self.offset).pow(self.degree)


@dataclass(frozen=True)
class Sum(Kernel):
    """κ₁ + κ₂."""

    first: Kernel
    second: Kernel

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.first(x, y) + self.second(x, y)

    def diagonal(self, x: Tensor) -> Tensor:
        return self.first.diagonal(x) + self.second.diagonal(x)


@dataclass(frozen=True)
class Product(Kernel):
    """κ₁ · κ₂."""

    first: Kernel
    second: Kernel

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.first(x, y) * self.second(x, y)

    def diagonal(self, x: Tensor) -> Tensor:
        return self.first.diagonal(x) * self.second.diagonal(x)


@dataclass(frozen=True)
class Scaled(Kernel):
    """c · κ for c > 0."""

    base: Kernel
    scale: float

    def __post_init__(self) -> None:
        _require_positive("scale", self.scale)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * self.base(x, y)

    def diagonal(self, x: Tensor) -> Tensor:
        return self.scale * self.base.diagonal(x)


@dataclass(frozen=True)
class JointKernel(Kernel):
    """κ⊗((x, v), (x′, v′)) = κ(x, x′)·((1 − ρ) + ρ⟨v, v′⟩) on points made by ``joint_points``.

    Attributes:
        inputs: The kernel of the inputs.
        width: Number of input dimensions d; the value starts after it.
        share: ρ in [0, 1]. 0 ignores the outputs, 1 is the product kernel of R2.
    """

    inputs: Kernel
    width: int
    share: float = 1.0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        values = x[..., self.width :] @ y[..., self.width :].transpose(-1, -2)
        return self.inputs(x[..., : self.width], y[..., : self.width]) * mix(values, self.share)

    def diagonal(self, x: Tensor) -> Tensor:
        values = x[..., self.width :].square().sum(-1)
        return self.inputs.diagonal(x[..., : self.width]) * mix(values, self.share)


def mix(values: Tensor, share: float) -> Tensor:
    """(1 − ρ) + ρ⟨v, v′⟩: the inner product of the values (√(1−ρ), √ρ·v)."""
    return (1 - share) + share * values


def joint_points(x: Tensor, v: Tensor) -> Tensor:
    """Inputs ``[..., n, d]`` and values ``[..., n, c]`` as joint points ``[..., n, d + c]``."""
    return torch.cat([x, v], dim=-1)
