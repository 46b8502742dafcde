"""Sets of demonstrations as J sees them: the sums over their members, and the terms that come of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NOTHING", "SetSums", "Terms", "gather_rows"]

NOTHING = torch.empty(0)  # sums that no term asks for


def gather_rows(matrix: Tensor, index: Tensor) -> Tensor:
    """Rows ``index: [b, K]`` of ``matrix: [b, L, …]``, ``[b, K, …]``."""
    b, candidates = matrix.shape[:2]
    if b == 1:
        return matrix.index_select(1, index.view(-1))
    first = torch.arange(b, device=index.device).mul_(candidates)[:, None]
    return matrix.flatten(0, 1).index_select(0, (index + first).flatten()).view(*index.shape, *matrix.shape[2:])


@dataclass(frozen=True)
class Terms:
    """The terms of J, unweighted, and J itself; tensors of one shape.

    Attributes:
        bias: MMD to the target (R2).
        complexity: R3.
        interference: R6, scaled by the support of v̂; of a prompt that nothing attends to, support·‖v̂‖.
        reader: L of R9, in nats; 0 where no reader is modelled.
        total: J.
    """

    bias: Tensor
    complexity: Tensor
    interference: Tensor
    reader: Tensor
    total: Tensor


@dataclass(frozen=True)
class SetSums:
    """The sums over the members of a set that determine its terms; members count with weight 1 or as given.

    Attributes:
        squared: MMD² before it is clamped at zero ``[b, …]``, of ``Objective.squared_mmd``.
        diagonal: Σ_i κ(x_i, x_i) ``[b, …]``.
        conflict: Σ_i κ(x_i, q)·conflict_i(q) ``[b, …, q]``.
        attention: Σ_i κ(x_i, q) ``[b, …, q]``.
        shown: Σ_i v_i ``[b, …, c]``, for R9; c = 0 where no reader is modelled.
        divisor: What turns the sums into means: the number of members, or 1 where the weights sum to 1; broadcasts
            to ``[b, …]``.
        last: v of the last demonstration ``[b, …, c]``; None: the mean of the members'.
        code: Which place of the last of the dimensions of ``shown`` before c speaks for each set ``[b, L]``, where sets
            that show the same outputs stand there once; None: each set has its own.
    """

    squared: Tensor
    diagonal: Tensor
    conflict: Tensor
    attention: Tensor
    shown: Tensor
    divisor: Tensor | float
    last: Tensor | None = None
    code: Tensor | None = None
