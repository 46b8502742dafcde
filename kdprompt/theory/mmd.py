r"""Maximum mean discrepancy: the bias of a prompt (R2).

Takes a kernel and two samples, each a ``WeightedSample`` or its points ``[..., n, d]`` alone (uniform weights).
Leading dimensions broadcast, so a batch of queries is a leading dimension. Everything is tiled: memory is O(n + m)
plus one tile.

For samples z = (x, v) of inputs and values, give ``JointSample(...).to_weighted_sample()`` under a ``JointKernel``:
κ⊗(z, z′) = κ(x, x′)·((1 − ρ) + ρ⟨v, v′⟩), with the output kernel's share ρ in [0, 1].

Sources: Gretton et al. (2012), "A Kernel Two-Sample Test", JMLR 13; R2 of ``docs/theory.md``.
"""

import torch
from torch import Tensor

from kdprompt.theory.kernels import Kernel
from kdprompt.theory.samples import Sample, WeightedSample, to_weighted_sample

__all__ = ["mean_embedding", "mmd", "mmd_squared", "mmd_squared_unbiased", "witness"]

TILE = 2048


def mean_embedding(kernel: Kernel, at: Tensor, sample: Sample, *, tile: int = TILE) -> Tensor:
    """Σ_j w_j κ(at_i, x_j): the mean embedding of a sample, evaluated at points.

    Args:
        kernel: κ.
        at: Where to evaluate, ``[..., p, d]``.
        sample: Points x_j ``[..., n, d]`` with weights w_j ``[..., n]``.
        tile: Rows and columns held at a time.

    Returns:
        ``[..., p]``; zero for an empty sample.

    Raises:
        ValueError: The sample's points have no dimension n.
    """
    sample = to_weighted_sample(sample)
    points, weights = sample.points, sample.filled_weights
    batch = torch.broadcast_shapes(at.shape[:-2], points.shape[:-2], weights.shape[:-1])
    blocks = []
    for start in range(0, at.shape[-2], tile):
        at_block = at[..., start : start + tile, :]
        block = at_block.new_zeros((*batch, at_block.shape[-2]))
        for column in range(0, points.shape[-2], tile):
            gram = kernel(at_block, points[..., column : column + tile, :])
            block = block + (gram @ weights[..., column : column + tile, None]).squeeze(-1)
        blocks.append(block)
    return torch.cat(blocks, dim=-1) if blocks else at.new_zeros((*batch, 0))


def _inner_product(kernel: Kernel, first: WeightedSample, second: WeightedSample, tile: int) -> Tensor:
    """⟨μ_first, μ_second⟩ of the mean embeddings, ``[...]``."""
    return (mean_embedding(kernel, first.points, second, tile=tile) * first.filled_weights).sum(-1)


def mmd_squared(kernel: Kernel, first: Sample, second: Sample, *, tile: int = TILE) -> Tensor:
    """MMD² ≥ 0 of two weighted samples: the biased (V-statistic) estimate, exact for the samples themselves.

    Args:
        kernel: κ.
        first: Points ``[..., n, d]`` with weights ``[..., n]``.
        second: Points ``[..., m, d]`` with weights ``[..., m]``.
        tile: Rows and columns held at a time.

    Returns:
        ``[...]``, clamped at zero.

    Raises:
        ValueError: A sample's points have no dimension n.

    Source:
        R2: ‖W_D − W_Q‖² under κ.

    Example:
        >>> import torch
        >>> from kdprompt.theory.kernels import Linear
        >>> float(mmd_squared(Linear(), torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])))
        9.0
    """
    first, second = to_weighted_sample(first), to_weighted_sample(second)
    within = _inner_product(kernel, first, first, tile) + _inner_product(kernel, second, second, tile)
    return (within - 2 * _inner_product(kernel, first, second, tile)).clamp_min(0)


def mmd(kernel: Kernel, first: Sample, second: Sample, *, tile: int = TILE) -> Tensor:
    """MMD in [0, ∞): the square root of ``mmd_squared``, with the same arguments; ``[...]``."""
    return mmd_squared(kernel, first, second, tile=tile).sqrt()


def mmd_squared_unbiased(kernel: Kernel, first: Sample, second: Sample, *, tile: int = TILE) -> Tensor:
    """The unbiased (U-statistic) estimate of MMD² between the populations; may be negative.

    Within a sample the pairs i ≠ j alone count, reweighted by 1/(1 − Σ w_i²). Needs at least two points of
    positive weight on each side.

    Args:
        kernel: κ.
        first: Points ``[..., n, d]`` with weights ``[..., n]``.
        second: Points ``[..., m, d]`` with weights ``[..., m]``.
        tile: Rows and columns held at a time.

    Returns:
        ``[...]``.

    Raises:
        ValueError: A sample has fewer than two points, or its points have no dimension n.
    """
    first, second = to_weighted_sample(first), to_weighted_sample(second)
    for name, sample in (("first", first), ("second", second)):
        if sample.points.shape[-2] < 2:
            raise ValueError(f"{name} must hold at least 2 points, got {sample.points.shape[-2]}; use mmd_squared")
    within = _off_diagonal_mean(kernel, first, tile) + _off_diagonal_mean(kernel, second, tile)
    return within - 2 * _inner_product(kernel, first, second, tile)


def _off_diagonal_mean(kernel: Kernel, sample: WeightedSample, tile: int) -> Tensor:
    """The weighted mean of κ(x_i, x_j) over i ≠ j, ``[...]``."""
    squares = sample.filled_weights.square()
    total = _inner_product(kernel, sample, sample, tile) - (squares * kernel.diagonal(sample.points)).sum(-1)
    return total / (1 - squares.sum(-1))


def witness(kernel: Kernel, at: Tensor, first: Sample, second: Sample, *, tile: int = TILE) -> Tensor:
    """The witness function Σ_i u_i κ(·, x_i) − Σ_j w_j κ(·, y_j): positive where the first sample has more mass.

    Args:
        kernel: κ.
        at: Where to evaluate, ``[..., p, d]``.
        first: Points x_i ``[..., n, d]`` with weights u_i ``[..., n]``.
        second: Points y_j ``[..., m, d]`` with weights w_j ``[..., m]``.
        tile: Rows and columns held at a time.

    Returns:
        ``[..., p]``, not divided by the MMD.

    Raises:
        ValueError: A sample's points have no dimension n.
    """
    return mean_embedding(kernel, at, first, tile=tile) - mean_embedding(kernel, at, second, tile=tile)
