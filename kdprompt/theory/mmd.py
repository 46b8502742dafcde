r"""Maximum mean discrepancy: the bias of a prompt (R2).

Points ``x: [..., n, d]`` carry weights ``w: [..., n]`` (uniform when absent); leading dimensions broadcast,
so a batch of queries is a leading dimension. Everything is tiled: memory is O(n + m) plus one tile.

A joint sample z = (x, v) of inputs and values is one tensor, built by ``joint_points``, under the kernel
``JointKernel``: κ⊗(z, z′) = κ(x, x′)·((1 − ρ) + ρ⟨v, v′⟩), with the output kernel's share ρ in [0, 1].

Sources: Gretton et al. (2012), "A Kernel Two-Sample Test", JMLR 13; theory R2.
"""

import torch
from torch import Tensor

from kdprompt.theory.kernels import Kernel

__all__ = ["mean_embedding", "mmd", "mmd_squared", "mmd_squared_unbiased", "witness"]

TILE = 2048


def _uniform(x: Tensor, weights: Tensor | None) -> Tensor:
    if weights is not None:
        return weights
    return torch.full_like(x[..., 0], 1 / max(x.shape[-2], 1))


def mean_embedding(kernel: Kernel, at: Tensor, x: Tensor, weights: Tensor | None = None, *, tile: int = TILE) -> Tensor:
    """Σ_j w_j κ(at_i, x_j): the mean embedding of a sample, evaluated at points.

    Args:
        kernel: κ.
        at: Where to evaluate, ``[..., p, d]``.
        x: The sample, ``[..., n, d]``.
        weights: ``[..., n]``, uniform when absent.
        tile: Rows and columns held at a time.

    Returns:
        ``[..., p]``.
    """
    w = _uniform(x, weights)
    batch = torch.broadcast_shapes(at.shape[:-2], x.shape[:-2], w.shape[:-1])
    rows = []
    for start in range(0, at.shape[-2], tile):
        part = at[..., start : start + tile, :]
        row = part.new_zeros((*batch, part.shape[-2]))
        for column in range(0, x.shape[-2], tile):
            gram = kernel(part, x[..., column : column + tile, :])
            row = row + (gram @ w[..., column : column + tile, None]).squeeze(-1)
        rows.append(row)
    return torch.cat(rows, dim=-1) if rows else at.new_zeros((*batch, 0))


def _inner(kernel: Kernel, x: Tensor, wx: Tensor, y: Tensor, wy: Tensor, tile: int) -> Tensor:
    return (mean_embedding(kernel, x, y, wy, tile=tile) * wx).sum(-1)


def mmd_squared(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    wx: Tensor | None = None,
    wy: Tensor | None = None,
    *,
    tile: int = TILE,
) -> Tensor:
    """MMD² ≥ 0 of two weighted samples: the biased (V-statistic) estimate, exact for the samples themselves.

    Args:
        kernel: κ.
        x: First sample ``[..., n, d]``.
        y: Second sample ``[..., m, d]``.
        wx: Weights ``[..., n]``, uniform when absent.
        wy: Weights ``[..., m]``, uniform when absent.
        tile: Rows and columns held at a time.

    Returns:
        ``[...]``, clamped at zero.

    Source:
        R2: ‖W_D − W_Q‖² under κ.

    Example:
        >>> import torch
        >>> from kdprompt.theory.kernels import Linear
        >>> float(mmd_squared(Linear(), torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])))
        9.0
    """
    u, v = _uniform(x, wx), _uniform(y, wy)
    value = _inner(kernel, x, u, x, u, tile) + _inner(kernel, y, v, y, v, tile)
    return (value - 2 * _inner(kernel, x, u, y, v, tile)).clamp_min(0)


def mmd(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    wx: Tensor | None = None,
    wy: Tensor | None = None,
    *,
    tile: int = TILE,
) -> Tensor:
    """MMD in [0, ∞): the square root of ``mmd_squared``."""
    return mmd_squared(kernel, x, y, wx, wy, tile=tile).sqrt()


def mmd_squared_unbiased(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    wx: Tensor | None = None,
    wy: Tensor | None = None,
    *,
    tile: int = TILE,
) -> Tensor:
    """The unbiased (U-statistic) estimate of MMD² between the populations; may be negative.

    Within a sample the pairs i ≠ j alone count, reweighted by 1/(1 − Σ w_i²). Needs at least two points of
    positive weight on each side.

    Args:
        kernel: κ.
        x: First sample ``[..., n, d]``.
        y: Second sample ``[..., m, d]``.
        wx: Weights ``[..., n]``, uniform when absent.
        wy: Weights ``[..., m]``, uniform when absent.
        tile: Rows and columns held at a time.

    Returns:
        ``[...]``.

    Raises:
        ValueError: If a sample has fewer than two points.
    """
    for name, sample in (("x", x), ("y", y)):
        if sample.shape[-2] < 2:
            raise ValueError(f"{name} must hold at least 2 points, got {sample.shape[-2]}; use mmd_squared")
    u, v = _uniform(x, wx), _uniform(y, wy)
    within = _off_diagonal(kernel, x, u, tile) + _off_diagonal(kernel, y, v, tile)
    return within - 2 * _inner(kernel, x, u, y, v, tile)


def _off_diagonal(kernel: Kernel, x: Tensor, w: Tensor, tile: int) -> Tensor:
    total = _inner(kernel, x, w, x, w, tile) - (w.square() * kernel.diagonal(x)).sum(-1)
    return total / (1 - w.square().sum(-1))


def witness(  # noqa: PLR0913 - two weighted samples, a kernel and a place
    kernel: Kernel,
    at: Tensor,
    x: Tensor,
    y: Tensor,
    wx: Tensor | None = None,
    wy: Tensor | None = None,
    *,
    tile: int = TILE,
) -> Tensor:
    """The witness function Σ_i wx_i κ(·, x_i) − Σ_j wy_j κ(·, y_j): positive where x has more mass than y.

    Args:
        kernel: κ.
        at: Where to evaluate, ``[..., p, d]``.
        x: First sample ``[..., n, d]``.
        y: Second sample ``[..., m, d]``.
        wx: Weights ``[..., n]``, uniform when absent.
        wy: Weights ``[..., m]``, uniform when absent.
        tile: Rows and columns held at a time.

    Returns:
        ``[..., p]``, not divided by the MMD.
    """
    return mean_embedding(kernel, at, x, wx, tile=tile) - mean_embedding(kernel, at, y, wy, tile=tile)
