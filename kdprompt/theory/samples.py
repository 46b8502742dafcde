"""Samples of a distribution: points, or inputs with values, and the weight of each.

Takes tensors and checks their shapes once; what works on samples (``mmd``, ``results``) trusts them.

Rejected: points and weights as separate arguments of every function. Four functions had five tensors each, and
nothing kept a weight with its points.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["JointSample", "Sample", "WeightedSample", "join_inputs_and_values", "to_weighted_sample"]


@dataclass(frozen=True)
class WeightedSample:
    """Points with a weight each.

    Attributes:
        points: ``[..., n, d]``.
        weights: ``[..., n]``, with leading dimensions that broadcast with those of the points; None for uniform ones.

    Raises:
        ValueError: The points have no dimension n, or the weights do not fit them.

    Example:
        >>> import torch
        >>> WeightedSample(torch.zeros(4, 2)).filled_weights
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    points: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.points.ndim < 2:
            raise ValueError(f"points must be of shape [..., n, d], got {_shape(self.points)}")
        if self.weights is not None:
            _check_weights(self.weights, self.points)

    @property
    def filled_weights(self) -> Tensor:
        """The weights; 1/n each, ``[..., n]``, where they are None."""
        if self.weights is not None:
            return self.weights
        return torch.full_like(self.points[..., 0], 1 / max(self.points.shape[-2], 1))


@dataclass(frozen=True)
class JointSample:
    """Inputs with their values, z = (x, v), and a weight each.

    Attributes:
        inputs: x, ``[..., n, d]``.
        values: v, ``[..., n, c]``.
        weights: ``[..., n]``, with leading dimensions that broadcast with those of the points; None for uniform ones.

    Raises:
        ValueError: Inputs and values differ in more than their last dimension, or the weights do not fit them.
    """

    inputs: Tensor
    values: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        _check_values(self.inputs, self.values)
        if self.weights is not None:
            _check_weights(self.weights, self.inputs)

    def to_weighted_sample(self) -> WeightedSample:
        """The same sample with joint points ``[..., n, d + c]``, for a ``JointKernel``."""
        return WeightedSample(join_inputs_and_values(self.inputs, self.values), self.weights)


Sample = WeightedSample | Tensor
"""What functions on samples take: a weighted sample, or its points ``[..., n, d]`` alone for uniform weights."""


def to_weighted_sample(sample: Sample) -> WeightedSample:
    """The sample itself, or points with uniform weights.

    Raises:
        ValueError: The points have no dimension n.
    """
    return sample if isinstance(sample, WeightedSample) else WeightedSample(sample)


def join_inputs_and_values(inputs: Tensor, values: Tensor) -> Tensor:
    """Joint points for a ``JointKernel``.

    Args:
        inputs: x, ``[..., n, d]``.
        values: v, ``[..., n, c]``.

    Returns:
        ``[..., n, d + c]``.

    Raises:
        ValueError: Inputs and values differ in more than their last dimension.
    """
    _check_values(inputs, values)
    return torch.cat([inputs, values], dim=-1)


def _check_values(inputs: Tensor, values: Tensor) -> None:
    if inputs.ndim < 2 or inputs.shape[:-1] != values.shape[:-1]:
        shapes = f"{_shape(inputs)} and {_shape(values)}"
        raise ValueError(f"inputs and values must be of shapes [..., n, d] and [..., n, c], got {shapes}")


def _check_weights(weights: Tensor, points: Tensor) -> None:
    fits = weights.ndim > 0 and weights.shape[-1] == points.shape[-2]
    if not fits or not _broadcast(weights.shape[:-1], points.shape[:-2]):
        raise ValueError(
            f"weights must be of shape [..., n] for points [..., n, d], got {_shape(weights)} for {_shape(points)}"
        )


def _broadcast(first: torch.Size, second: torch.Size) -> bool:
    pairs = zip(reversed(first), reversed(second), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
