"""Kernel regression with a prior: the estimate v̂ of R6, in one formula.

Takes sums over neighbours; gives estimates. ``kdprompt.objective.regression`` applies it to queries and
``kdprompt.theory.bandwidth`` fits its two parameters.
"""

import torch
from torch import Tensor

__all__ = ["shrink_to_prior"]


def shrink_to_prior(weighted_values: Tensor, mass: Tensor, prior: Tensor, shrinkage: float) -> Tensor:
    """v̂ = (Σ_j κ_j v_j + λ v̄)/(Σ_j κ_j + λ): the mean of the neighbours' values, drawn towards the prior.

    Args:
        weighted_values: Σ_j κ_j v_j, ``[..., c]``.
        mass: Σ_j κ_j ≥ 0, ``[..., 1]``.
        prior: v̄, ``[..., c]``.
        shrinkage: λ ≥ 0, the kernel mass that the prior counts for.

    Returns:
        Estimates ``[..., c]``; zero where neither neighbours nor the prior have mass.

    Example:
        >>> import torch
        >>> shrink_to_prior(torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([0.0]), shrinkage=2.0)
        tensor([0.5000])
    """
    total = (mass + shrinkage).clamp_min(torch.finfo(mass.dtype).tiny)
    return (weighted_values + shrinkage * prior) / total
