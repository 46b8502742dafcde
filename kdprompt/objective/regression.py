"""Estimates the outputs of queries, which come without (v* of R6).

Kernel regression looks at the neighbours alone. A ridge regression on the whole pool joins it, since directions of the
embedding that matter everywhere are learnt from everywhere: for labels as a product of shares, for embedded outputs as
a sum of vectors.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from kdprompt.theory.kernels import Kernel
from kdprompt.theory.regression import shrink_to_prior

__all__ = ["SMALLEST_SHARE", "KernelRegression", "RidgePart"]

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SMALLEST_SHARE = 1e-30  # of an output, before its logarithm is taken; one number, whatever the dtype


@dataclass(frozen=True)
class RidgePart:
    """How a ridge regression r joins the kernel regression.

    Labels: log v̂ = exponent·log v̂_kernel + weight·r, up to a constant in the label.
    Embedded outputs: v̂ = exponent·v̂_kernel + weight·r.

    Attributes:
        penalty: α of the ridge regression r, > 0.
        weight: ≥ 0.
        exponent: Of the kernel regression, ≥ 0; a factor where outputs are embedded.
        fitted_to: What the outputs were; of a pool whose outputs enter otherwise by now it says nothing.
        noise: ε, the share of the pool's labels that were drawn uniformly from the possible ones, in [0, 1). v̂ is the
            estimate of what the others say: of the label that is right, not of the one that the pool would show.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight: NotNegative
    exponent: NotNegative
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fitted_to: Literal["labels", "text"] = "labels"

    def combine(self, shares: Tensor, scores: Tensor, possible: Tensor) -> Tensor:
        """Joins the shares of labels by the kernel regression with the scores of the ridge regression.

        Args:
            shares: v̂_kernel ``[..., c]``.
            scores: r ``[..., c]``.
            possible: Which labels can occur ``[..., c]``.

        Returns:
            v̂ ``[..., c]``, summing to 1; 0 for impossible labels.
        """
        logits = self.exponent * shares.clamp_min(SMALLEST_SHARE).log() + self.weight * scores
        return logits.masked_fill(~possible, -torch.inf).softmax(-1)

    def add(self, values: Tensor, scores: Tensor) -> Tensor:
        """Joins embedded outputs by the kernel regression with those of the ridge regression, each ``[..., c]``."""
        return self.exponent * values + self.weight * scores

    def believe(self, values: Tensor, estimate: Tensor) -> Tensor:
        """What is right where the pool shows a label, seeing that the label may be noise: Bayes' rule.

        Args:
            values: Shown labels, one-hot ``[..., c]``.
            estimate: v̂ there, which does not know the label shown, ``[..., c]``; 0 for impossible labels.

        Returns:
            Shares that sum to 1 ``[..., c]``; the values themselves where there is no noise.
        """
        if self.noise == 0:
            return values
        possible = (estimate > 0).to(estimate)
        likelihood = (1 - self.noise) * values + self.noise / possible.sum(-1, keepdim=True).clamp_min(1)
        joint = estimate * likelihood
        return joint / joint.sum(-1, keepdim=True).clamp_min(torch.finfo(joint.dtype).tiny)


@dataclass(frozen=True)
class KernelRegression:
    """v̂(q) = (Σ_j κ(x_j, q) v_j + λ v̄)/(Σ_j κ(x_j, q) + λ).

    The prior v̄ counts for a kernel mass λ. The support Σκ/(Σκ + λ) in [0, 1) says how much the pool knows about q.

    Attributes:
        kernel: κ of the regression.
        shrinkage: λ ≥ 0, the kernel mass of the prior.
        ridge: The ridge regression that joins it, for queries alone; None for none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    kernel: Kernel
    shrinkage: NotNegative
    ridge: RidgePart | None = None

    def ridge_for(self, output_mode: str) -> RidgePart | None:
        """The ridge regression that joins where outputs enter so; one that was fitted to others does not."""
        return self.ridge if self.ridge is not None and self.ridge.fitted_to == output_mode else None

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
