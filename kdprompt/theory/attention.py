"""Attention as shares: what softmax does to the pull of each demonstration on a query."""

import torch
from torch import Tensor

__all__ = ["normalise_attention"]


def normalise_attention(pull: Tensor, dim: int) -> Tensor:
    """Divides pulls by their sum along one dimension: a_i(q) = w_i κ(x_i, q)/Σ_j w_j κ(x_j, q), as softmax does.

    Args:
        pull: w_i κ(x_i, q) ≥ 0, ``[...]``.
        dim: The dimension that the demonstrations lie along.

    Returns:
        Shares of the shape of ``pull``, summing to 1 along ``dim``; zero where no demonstration attends to q.

    Example:
        >>> import torch
        >>> normalise_attention(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), dim=-1).tolist()
        [[0.25, 0.75], [0.0, 0.0]]
    """
    total = pull.sum(dim, keepdim=True)
    return pull / torch.where(total > 0, total, 1)
