"""Rules that choose a kernel's temperature from the pool: named functions, called where you see them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.theory.kernels import squared_distances
from kdprompt.theory.standard_error import is_within_one_standard_error

__all__ = ["LeaveOneOutFit", "fit_by_leave_one_out", "median_temperature"]

TEMPERATURES = (0.02, 0.03, 0.04, 0.055, 0.075, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8)
SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def median_temperature(x: Tensor, *, sample: int = 2000) -> float:
    """The median heuristic: t = h² with h the median distance between distinct points.

    Args:
        x: Points ``[n, d]``; evenly spaced ones are taken where n exceeds ``sample``.
        sample: Most points looked at.

    Returns:
        A positive temperature; 1 where all points coincide (to a distance of 0.001).

    Source:
        Garreau, Jitkrittum, Kanagawa (2017), "Large sample analysis of the median heuristic",
        arXiv 1707.07269.
    """
    points = _spread(x, sample)
    distances = squared_distances(points, points)
    upper = distances[torch.triu(torch.ones_like(distances, dtype=torch.bool), diagonal=1)]
    positive = upper[upper > 1e-6]
    return float(positive.median()) if positive.numel() else 1.0


def _spread(x: Tensor, sample: int) -> Tensor:
    if x.shape[0] <= sample:
        return x
    return x[torch.linspace(0, x.shape[0] - 1, sample, device=x.device).long()]


@dataclass(frozen=True)
class LeaveOneOutFit:
    """What leave-one-out chose.

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


def fit_by_leave_one_out(
    similarities: Tensor, values: Tensor, own: Tensor, prior: Tensor, *, labels: bool
) -> LeaveOneOutFit:
    """Chooses the regression's temperature and shrinkage by the pool's own outputs (R6's estimate of v*).

    Each held-out point is predicted from its neighbours by v̂ = (Σ_j κ_j v_j + λ v̄)/(Σ_j κ_j + λ). λ is tried in
    multiples of the median kernel mass, so that the grid means the same at every temperature.

    Args:
        similarities: ⟨x_i, x_j⟩ of held-out points with their neighbours, itself left out, ``[h, N]``.
        values: Values of the neighbours, ``[h, N, c]``.
        own: The held-out points' own values, ``[h, c]``.
        prior: v̄, ``[c]``.
        labels: Values are one-hot: score by likelihood, else by squared distance.

    Returns:
        The largest temperature that comes within one standard error (paired) of the smallest mean loss, with its
        best shrinkage: in a small pool, where little can be told apart, the smooth estimate.
    """
    tried: list[tuple[float, float, Tensor]] = []
    for temperature in TEMPERATURES:
        weights = ((similarities - 1) / temperature).exp()
        mass = weights.sum(-1, keepdim=True)
        sums = (weights[:, None, :] @ values).squeeze(1)
        for relative in SHRINKAGES:
            pull = float(relative * mass.median())
            estimate = (sums + pull * prior) / (mass + pull)
            tried.append((temperature, pull, _loss(estimate, own, labels)))
    best = min(tried, key=lambda option: float(option[2].mean()))
    smoothest = max(option[0] for option in tried if is_within_one_standard_error(option[2], best[2]))
    temperature, shrinkage, loss = min(
        (option for option in tried if option[0] == smoothest), key=lambda option: float(option[2].mean())
    )
    prior_loss = _loss(prior.expand_as(own), own, labels)
    return LeaveOneOutFit(temperature, shrinkage, float(loss.mean()), float(prior_loss.mean()))


def _loss(estimate: Tensor, own: Tensor, labels: bool) -> Tensor:
    if labels:
        return -(estimate * own).sum(-1).clamp_min(1e-9).log()
    return (estimate - own).square().sum(-1)
