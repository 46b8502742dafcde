"""Fits the regression that estimates the outputs of queries to the pool's own, each left out in turn."""

import torch
from torch import Tensor

from kdprompt.calibration.pseudo_queries import encode_rows
from kdprompt.objective.regression import SMALLEST_SHARE, KernelRegression, RidgePart
from kdprompt.objective.target import score_labels
from kdprompt.pool.neighbours import Neighbours, find_neighbours
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.settings import Settings
from kdprompt.theory.bandwidth import fit_by_leave_one_out, median_heuristic
from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.multinomial import fit_multinomial

__all__ = ["HELD_OUT", "fit_regression"]

HELD_OUT = 512
SMALLEST = 8  # pool below which nothing is fitted
TIE = 1e-5  # nats; smaller differences are rounding, and the weaker penalty stays
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)  # of the ridge regression on unit-norm inputs


def fit_regression(pool: PoolTensors, settings: Settings, generator: torch.Generator) -> KernelRegression:
    """The regression by leave-one-out; by the median heuristic where there is nothing to predict.

    Args:
        pool: The pool.
        settings: The kernel that stands in where nothing is fitted, and the size of shortlists.
        generator: Draws the rows that are left out in turn.
    """
    if pool.output_mode == "none" or len(pool) < SMALLEST:
        kernel = settings.objective.kernel or Gaussian(median_heuristic(pool.x))
        return KernelRegression(kernel, 0.1)
    rows = torch.randperm(len(pool), generator=generator)[: min(HELD_OUT, len(pool))].to(pool.x.device)
    neighbours = find_neighbours(pool, encode_rows(pool, rows), settings.search.shortlist)
    similarity = (pool.x[neighbours.index] @ neighbours.q[..., None]).squeeze(-1)
    fit = fit_by_leave_one_out(
        similarity.masked_fill(~neighbours.valid, -torch.inf),
        pool.v[neighbours.index],
        pool.v[rows],
        pool.prior(rows.new_tensor([-1]), pool.v)[0],
        labels=pool.output_mode == "labels",
    )
    regression = KernelRegression(Gaussian(fit.temperature), fit.shrinkage)
    if pool.output_mode != "labels":
        return regression
    labelled = pool.label[rows] >= 0
    return KernelRegression(regression.kernel, fit.shrinkage, _fit_ridge(pool, regression, neighbours, rows, labelled))


def _fit_ridge(
    pool: PoolTensors, regression: KernelRegression, neighbours: Neighbours, rows: Tensor, labelled: Tensor
) -> RidgePart | None:
    """The ridge regression that makes the left-out outputs likeliest; None where it adds nothing."""
    weights = regression.kernel(neighbours.q[:, None, :], pool.x[neighbours.index]).squeeze(1) * neighbours.valid
    prior = pool.prior(neighbours.task, neighbours.q)
    shares, _ = regression(weights[:, None, :], pool.v[neighbours.index], prior)
    kernel_part = shares[:, 0].clamp_min(SMALLEST_SHARE).log()[labelled].cpu().double()
    target, possible = pool.v[rows][labelled].cpu().double(), (prior > 0)[labelled].cpu()
    codes = target.argmax(-1, keepdim=True)
    best, least = None, -float(kernel_part.gather(-1, codes).mean())
    for penalty in PENALTIES:
        scores = score_labels(pool, neighbours.queries, penalty)[labelled].cpu().double()
        features = torch.stack([kernel_part, scores], -1)
        fit = fit_multinomial(features, target, lowest=(0.0, 0.0), ridge=torch.inf, possible=possible)
        loss = -float(fit.log_probs(features, possible).gather(-1, codes).mean())
        if loss < least - TIE:
            exponent, weight = fit.constants.tolist()
            best, least = RidgePart(penalty, weight, exponent), loss
    return best
