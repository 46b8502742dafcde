"""Rules that choose a kernel's temperature from the pool: named functions, called where you see them.

Takes embeddings, or similarities with values; gives a temperature.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.theory.kernels import squared_distances
from kdprompt.theory.point_pairs import widen
from kdprompt.theory.regression import shrink_to_prior
from kdprompt.theory.standard_error import is_within_one_standard_error

__all__ = ["SHRINKAGES", "TEMPERATURES", "LeaveOneOutFit", "fit_by_leave_one_out", "median_heuristic"]

TEMPERATURES = (0.02, 0.03, 0.04, 0.055, 0.075, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8)
TIE = 1e-6  # mean losses that differ by less are equal: rounding decides nothing
SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # multiples of the median kernel mass


def median_heuristic(x: Tensor, *, max_points: int = 2000) -> float:
    """The median heuristic: temperature t = h² with h the median distance between distinct points.

    Args:
        x: Points ``[n, d]``.
        max_points: Where n exceeds it, that many evenly spaced points are taken.

    Returns:
        A positive temperature; 1 where all points coincide (to a distance of 0.001).

    Source:
        Garreau, Jitkrittum, Kanagawa (2017), "Large sample analysis of the median heuristic",
        arXiv 1707.07269.
    """
    points = widen(_take_evenly(x, max_points))
    pairs = squared_distances(points, points).triu_(diagonal=1)  # each once, zeros elsewhere
    distinct = pairs.masked_select(pairs > 1e-6)  # without the indices that indexing makes, four times as large
    return float(distinct.median()) if distinct.numel() else 1.0


def _take_evenly(x: Tensor, max_points: int) -> Tensor:
    if x.shape[0] <= max_points:
        return x
    return x[torch.linspace(0, x.shape[0] - 1, max_points, device=x.device).long()]


@dataclass(frozen=True)
class LeaveOneOutFit:
    """The temperature and shrinkage that leave-one-out chose, and their loss.

    Attributes:
        temperature: t of the Gaussian kernel of the regression.
        shrinkage: λ ≥ 0, the kernel mass that the prior (the mean value) counts for.
        loss: Mean loss at the choice: negative log-likelihood in nats for labels, else squared distance.
        prior_loss: The same for the prior alone.
    """

    temperature: float
    shrinkage: float
    loss: float
    prior_loss: float


@dataclass(frozen=True)
class _Option:
    """A temperature and shrinkage that were tried, with the loss on each held-out point ``[h]``."""

    temperature: float
    shrinkage: float
    losses: Tensor

    @property
    def mean_loss(self) -> float:
        return float(self.losses.mean())


def fit_by_leave_one_out(
    similarities: Tensor, values: Tensor, held_out_values: Tensor, prior: Tensor, *, labels: bool
) -> LeaveOneOutFit:
    """Fits the regression's temperature and shrinkage to the pool's own outputs (the estimate of v* in R6).

    Each held-out point is predicted from its neighbours by v̂ = (Σ_j κ_j v_j + λ v̄)/(Σ_j κ_j + λ). λ is tried in
    multiples of the median kernel mass, so that the grid means the same at every temperature.

    Args:
        similarities: ⟨x_i, x_j⟩ of held-out points with their neighbours, itself left out, ``[h, N]``.
        values: Values of the neighbours, ``[h, N, c]``.
        held_out_values: True values of the held-out points, ``[h, c]``.
        prior: v̄, ``[c]``.
        labels: Values are one-hot: score by likelihood, else by squared distance.

    Returns:
        The largest temperature that comes within one standard error (paired) of the smallest mean loss, with its
        best shrinkage: in a small pool, where little can be told apart, the smooth estimate.
    """
    options: list[_Option] = []
    for temperature in TEMPERATURES:
        weights = ((similarities - 1) / temperature).exp()
        mass = weights.sum(-1, keepdim=True)
        weighted_values = (weights[:, None, :] @ values).squeeze(1)
        for multiple in SHRINKAGES:
            shrinkage = float(multiple * mass.median())
            estimates = shrink_to_prior(weighted_values, mass, prior, shrinkage)
            options.append(_Option(temperature, shrinkage, _losses(estimates, held_out_values, labels)))
    best = min(options, key=lambda option: option.mean_loss)
    near_ties = (
        option
        for option in options
        if option.mean_loss <= best.mean_loss + TIE or is_within_one_standard_error(option.losses, best.losses)
    )
    temperature = max(option.temperature for option in near_ties)
    smoothest = [option for option in options if option.temperature == temperature]
    least = min(option.mean_loss for option in smoothest)
    chosen = next(option for option in smoothest if option.mean_loss <= least + TIE)
    prior_losses = _losses(prior.expand_as(held_out_values), held_out_values, labels)
    return LeaveOneOutFit(chosen.temperature, chosen.shrinkage, chosen.mean_loss, float(prior_losses.mean()))


def _losses(estimates: Tensor, true_values: Tensor, labels: bool) -> Tensor:
    """Loss of each estimate, ``[h]``."""
    if labels:
        return -(estimates * true_values).sum(-1).clamp_min(1e-9).log()
    return (estimates - true_values).square().sum(-1)
