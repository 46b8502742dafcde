"""Kernel regression with a prior: estimates the outputs of queries, which come without (R6's v*)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.theory.kernels import Kernel

__all__ = ["KernelRegression"]


@dataclass(frozen=True)
class KernelRegression:
    """Kernel regression with a prior.

    Attributes:
        kernel: κ of the regression.
        shrinkage: λ ≥ 0, the kernel mass of the prior.
    """

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
        total = (mass + self.shrinkage).clamp_min(torch.finfo(mass.dtype).tiny)
        estimate = (weights @ values + self.shrinkage * prior[..., None, :]) / total
        return estimate, (mass / total).squeeze(-1)
