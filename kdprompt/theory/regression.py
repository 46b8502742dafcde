"""Regressions that estimate the output of a query, v̂ of R6: kernel regression with a prior, and ridge regression.

Kernel regression takes sums over neighbours; ``kdprompt.objective.regression`` applies it to queries and
``kdprompt.theory.bandwidth`` fits its two parameters. Ridge regression takes the whole pool at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RidgeFit", "ridge_regression", "shrink_to_prior"]


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


@dataclass(frozen=True)
class RidgeFit:
    """A linear map from inputs to values, r(x) = v̄ + Wᵀ(x − x̄), fitted by ridge regression.

    Attributes:
        weights: W ``[d, c]``.
        mean: x̄ ``[d]``.
        intercept: v̄ ``[c]``.
        inverse: ((X − x̄)ᵀ(X − x̄) + αI)⁻¹ ``[d, d]``.
        count: Number of points n.
    """

    weights: Tensor
    mean: Tensor
    intercept: Tensor
    inverse: Tensor
    count: int

    def predict(self, q: Tensor) -> Tensor:
        """r(q) of points ``[..., d]``, ``[..., c]``."""
        return (q - self.mean) @ self.weights + self.intercept

    def predict_without(self, q: Tensor, copies: Tensor, values: Tensor) -> Tensor:
        """r(q) as it would be without the points that lie at q: leave-one-out, exact, without another fit.

        Args:
            q: Points ``[b, d]``.
            copies: How many of the fitted points lie at each, and are left out, ``[b]``; 0 for a new point.
            values: The sum of their values ``[b, c]``.

        Returns:
            ``[b, c]``.
        """
        centred = q - self.mean
        leverage = ((centred @ self.inverse) * centred).sum(-1) + 1 / self.count
        left_out = copies * leverage
        without = (self.predict(q) - leverage[:, None] * values) / (1 - left_out).clamp_min(1e-9)[:, None]
        return torch.where(left_out[:, None] < 1, without, self.intercept)


def ridge_regression(x: Tensor, v: Tensor, penalty: float) -> RidgeFit:
    """Fits v ≈ v̄ + Wᵀ(x − x̄) with a penalty α‖W‖² on the weights, none on the intercept.

    Args:
        x: Inputs ``[n, d]``.
        v: Values ``[n, c]``.
        penalty: α > 0.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> round(float(ridge_regression(x, 3 * x, penalty=1e-9).predict(x.new_tensor([4.0]))), 6)
        12.0
    """
    mean, intercept = x.mean(0), v.mean(0)
    centred = x - mean
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    inverse = torch.linalg.inv(centred.T @ centred + penalty * identity)
    return RidgeFit(inverse @ (centred.T @ (v - intercept)), mean, intercept, inverse, len(x))
