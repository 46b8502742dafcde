"""Kernel regression with a prior: estimates the outputs of queries, which come without (v* of R6)."""

from dataclasses import dataclass

import torch
from pydantic import ConfigDict
from torch import Tensor

from kdprompt.theory.kernels import Kernel
from kdprompt.theory.regression import shrink_to_prior

__all__ = ["KernelRegression"]


@dataclass(frozen=True)
class KernelRegression:
    """v̂(q) = (Σ_j κ(x_j, q) v_j + λ v̄)/(Σ_j κ(x_j, q) + λ).

    The prior v̄ counts for a kernel mass λ. The support Σκ/(Σκ + λ) in [0, 1) says how much the pool knows about q.

    Attributes:
        kernel: κ of the regression.
        shrinkage: λ ≥ 0, the kernel mass of the prior.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    kernel: Kernel
    shrinkage: float

    def __call__(self, weights: Tensor, values: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates values and how far the pool supports them.

        Args:
            weights: κ of each point with its neighbours ``[..., p, N]``; 0 leaves a neighbour out.
            values: The neighbours' values ``[..., N, c]``.
            prior: v̄ ``[..., c]``.

        Returns:
            Estimates ``[..., p, c]`` and support ``[..., p]`` in [0, 1].
        """
        weights = weights.clamp_min(0)
        mass = weights.sum(-1, keepdim=True)
        estimate = shrink_to_prior(weights @ values, mass, prior[..., None, :], self.shrinkage)
        support = mass / (mass + self.shrinkage).clamp_min(torch.finfo(mass.dtype).tiny)
        return estimate, support.squeeze(-1)
