r"""Kernels κ: two sets of points in, a Gram matrix out.

A kernel is a small frozen object; ``k1 + k2``, ``k1 * k2`` and ``2 * k1`` are kernels again. Points are tensors
``x: [..., n, d]`` of any floating dtype on any device, with leading dimensions that broadcast.

Softmax attention on unit-norm keys is the Gaussian kernel: exp((⟨x, x′⟩ − 1)/t) = exp(−‖x − x′‖²/2t).
Temperature t and bandwidth h are one knob, t = h², so the Gaussian is the default and takes ``temperature``.

To add a kernel, follow "Add a kernel" in ``CONTRIBUTING.md``: a class here, an entry with its formula in
``tests/theory/test_kernels.py``.

Rejected: bandwidths inferred on the first call (hidden state). A data-dependent temperature is a function
call that you see, in ``kdprompt.theory.bandwidth``.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kdprompt.theory.kernel_algebra import Kernel, Product, Scaled, Sum, check_positive
from kdprompt.theory.point_pairs import PointPairs, combine_squares

__all__ = [
    "KERNELS",
    "Cosine",
    "Gaussian",
    "JointKernel",
    "Kernel",
    "Laplace",
    "Linear",
    "Matern",
    "Polynomial",
    "Product",
    "RationalQuadratic",
    "Scaled",
    "Sum",
    "mix_output_kernel",
    "squared_distances",
]


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖² in [0, ∞) as ``[..., n, m]``, from one matrix product (clamped at zero)."""
    x_norms = x.square().sum(-1)
    y_norms = x_norms if y is x else y.square().sum(-1)
    return combine_squares(x_norms, y_norms, x @ y.transpose(-1, -2))


@dataclass(frozen=True)
class Gaussian(Kernel):
    """exp(−‖x − y‖²/2t) in (0, 1]: softmax attention with temperature t on unit-norm keys.

    Raises:
        ValueError: ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> Gaussian(temperature=1.0)(x, x)[0, 1]  # exp(⟨x, y⟩ − 1)
        tensor(0.3679)
    """

    temperature: float = 1.0
    kind: Literal["gaussian"] = "gaussian"

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self._of_squares(squared_distances(x, y))

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        return self._of_squares(pairs.squared_distances())

    def _of_squares(self, squares: Tensor) -> Tensor:
        """The kernel at squared distances of nobody else's: they are overwritten, as matrices are large."""
        return squares.div_(-2 * self.temperature).exp_()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[..., 0])


@dataclass(frozen=True)
class Laplace(Kernel):
    """exp(−‖x − y‖₂/h) in (0, 1], with the Euclidean distance.

    Raises:
        ValueError: ``bandwidth`` is not positive.
    """

    bandwidth: float = 1.0
    kind: Literal["laplace"] = "laplace"

    def __post_init__(self) -> None:
        check_positive("bandwidth", self.bandwidth)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (-_distances(x, y) / self.bandwidth).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[..., 0])


@dataclass(frozen=True)
class Matern(Kernel):
    """Matérn kernel in (0, 1] of r = √(2ν)·‖x − y‖₂/ℓ: e^(−r), (1 + r)·e^(−r) or (1 + r + r²/3)·e^(−r).

    Between the Laplace kernel, which is ν = 1/2, and the Gaussian, its limit for ν → ∞ with ``temperature`` ℓ².

    Attributes:
        smoothness: ν: 0.5, 1.5 or 2.5, the ones with a closed form.
        length_scale: ℓ > 0, in units of the inputs.

    Raises:
        ValueError: ``smoothness`` is none of the three, or ``length_scale`` is not positive.

    Source: Rasmussen, Williams (2006), Gaussian Processes for Machine Learning, eq. 4.14 to 4.17.
    """

    smoothness: float = 2.5
    length_scale: float = 1.0
    kind: Literal["matern"] = "matern"

    def __post_init__(self) -> None:
        if self.smoothness not in (0.5, 1.5, 2.5):
            raise ValueError(f"smoothness must be 0.5, 1.5 or 2.5, got {self.smoothness}")
        check_positive("length_scale", self.length_scale)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        scaled = _distances(x, y) * (math.sqrt(2 * self.smoothness) / self.length_scale)
        scaled = scaled.clamp_max(800)  # where e^(−r) is 0 in every dtype; else ∞ · 0 at points far apart
        factor = 1 + scaled if self.smoothness > 1 else torch.ones_like(scaled)
        if self.smoothness > 2:
            factor = factor + scaled.square() / 3
        return factor * (-scaled).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[..., 0])


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖₂ ``[..., n, m]`` from differences: a square root at zero amplifies rounding of a matrix product."""
    distances: Tensor = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distances


@dataclass(frozen=True)
class RationalQuadratic(Kernel):
    """(1 + ‖x − y‖²/(2 α t))^(−α) in (0, 1]: a scale mixture of Gaussians.

    Raises:
        ValueError: ``temperature`` or ``alpha`` is not positive.
    """

    temperature: float = 1.0
    alpha: float = 1.0
    kind: Literal["rational_quadratic"] = "rational_quadratic"

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_positive("alpha", self.alpha)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self._of_squares(squared_distances(x, y))

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        return self._of_squares(pairs.squared_distances())

    def _of_squares(self, squares: Tensor) -> Tensor:
        return (1 + squares / (2 * self.alpha * self.temperature)).pow(-self.alpha)

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[..., 0])


@dataclass(frozen=True)
class Linear(Kernel):
    """⟨x, y⟩: linear attention; MMD under it compares means only."""

    kind: Literal["linear"] = "linear"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y.transpose(-1, -2)

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        return pairs.inner

    def diagonal(self, x: Tensor) -> Tensor:
        return x.square().sum(-1)


@dataclass(frozen=True)
class Cosine(Kernel):
    """⟨x, y⟩/(‖x‖‖y‖) in [−1, 1]; a zero vector has similarity 0 to everything."""

    kind: Literal["cosine"] = "cosine"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return _normalise(x) @ _normalise(y).transpose(-1, -2)

    def diagonal(self, x: Tensor) -> Tensor:
        return (x != 0).any(-1).to(x.dtype)


def _normalise(x: Tensor) -> Tensor:
    scaled = x / x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)  # squares stay in the dtype
    return torch.nn.functional.normalize(scaled, dim=-1)


@dataclass(frozen=True)
class Polynomial(Kernel):
    """(⟨x, y⟩ + c)^p for a whole p ≥ 1 and c ≥ 0.

    Raises:
        ValueError: ``degree`` is not a whole number from 1, or ``offset`` is negative.
    """

    degree: int = 2
    offset: float = 1.0
    kind: Literal["polynomial"] = "polynomial"

    def __post_init__(self) -> None:
        if self.degree < 1 or self.degree != int(self.degree):
            raise ValueError(f"degree must be a whole number from 1, got {self.degree}")
        if not self.offset >= 0:
            raise ValueError(f"offset must be at least 0 (else not a kernel), got {self.offset}")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self._of_products(x @ y.transpose(-1, -2))

    def of_pairs(self, pairs: PointPairs) -> Tensor:
        return self._of_products(pairs.inner)

    def _of_products(self, products: Tensor) -> Tensor:
        return (products + self.offset).pow(self.degree)

    def diagonal(self, x: Tensor) -> Tensor:
        return (x.square().sum(-1) + self.offset).pow(self.degree)


@dataclass(frozen=True)
class JointKernel(Kernel):
    """κ⊗((x, v), (x′, v′)) = κ(x, x′)·((1 − ρ) + ρ⟨v, v′⟩) on joint points: inputs, then values, in one vector.

    ``kdprompt.theory.samples.join_inputs_and_values`` makes the joint points.

    Attributes:
        input_kernel: κ.
        input_width: Number of input dimensions d; the value starts after them.
        output_share: ρ in [0, 1]. 0 ignores the outputs, 1 is the product kernel of R2.
    """

    input_kernel: Kernel
    input_width: int
    output_share: float = 1.0
    kind: Literal["joint"] = "joint"

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        value_products = self._values(x) @ self._values(y).transpose(-1, -2)
        return self.input_kernel(self._inputs(x), self._inputs(y)) * mix_output_kernel(
            value_products, self.output_share
        )

    def diagonal(self, x: Tensor) -> Tensor:
        value_products = self._values(x).square().sum(-1)
        return self.input_kernel.diagonal(self._inputs(x)) * mix_output_kernel(value_products, self.output_share)

    def _inputs(self, points: Tensor) -> Tensor:
        return points[..., : self.input_width]

    def _values(self, points: Tensor) -> Tensor:
        return points[..., self.input_width :]


def mix_output_kernel(value_products: Tensor, output_share: float) -> Tensor:
    """The output kernel (1 − ρ) + ρ⟨v, v′⟩: the inner product of (√(1−ρ), √ρ·v) and (√(1−ρ), √ρ·v′).

    Args:
        value_products: ⟨v, v′⟩, ``[...]``.
        output_share: ρ in [0, 1].

    Returns:
        ``[...]``.
    """
    return (output_share * value_products).add_(1 - output_share)


KERNELS: tuple[type[Kernel], ...] = Kernel.members()
"""Every kernel class, told apart by its ``kind``: what can be stored, and what ``tests/theory`` checks."""
