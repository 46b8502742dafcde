"""Fits the regression that estimates the outputs of queries to the pool's own, each left out in turn.

A ridge regression on the whole pool joins that of the neighbours: labels by their likelihood, embedded outputs by least
squares.

Wrong labels in the pool make every label look less sure than it is. So labels are also taken for a mixture of what the
regression says and of chance; of few labels the two cannot be told apart, so chance must first be worth a little, and
where it might be there more rows are left out: 2,048 of pools of up to 16,384, fewer of larger ones, whose rows each
cost more, down to 512 from 65,536 on.
"""

from dataclasses import dataclass, field, replace

import torch
from scipy.optimize import nnls
from torch import Tensor

from kdprompt.calibration.held_out import HeldOutRows, LeftOutRows
from kdprompt.objective.regression import SMALLEST_SHARE, KernelRegression, RidgePart
from kdprompt.objective.ridge_estimate import predict_by_ridge
from kdprompt.objective.target import CHUNK, estimate_query_target
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.settings import Settings
from kdprompt.theory.bandwidth import fit_by_leave_one_out, median_heuristic
from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.multinomial import MultinomialFit, fit_multinomial

__all__ = ["fit_kernel_regression", "fit_regression"]

HELD_OUT_FOR_NOISE = 2048
PAIRS_FOR_NOISE = 1 << 25  # of these rows with the pool, at most
FEWEST_FOR_NOISE = 256  # labels below which noise is not told from inputs that are hard
NOISE_PRIOR = 2.0  # labels that are taken to be no chance beforehand
SMALLEST = 8  # pool below which nothing is fitted
LEAST_GAIN = 1e-5  # share of the squared error of embedded outputs
TIE = 1e-5  # nats; smaller differences are rounding, and the weaker penalty stays
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)  # of the ridge regression of labels on unit-norm inputs
VALUE_PENALTIES = (0.03, 0.1, 0.3, 1.0)  # of embedded outputs


def fit_regression(pool: PoolTensors, settings: Settings, left_out: LeftOutRows) -> KernelRegression:
    """The regression by leave-one-out; by the median heuristic where there is nothing to predict.

    Args:
        pool: The pool.
        settings: The kernel that stands in where nothing is fitted.
        left_out: The rows that are left out in turn.
    """
    regression = fit_kernel_regression(pool, settings, left_out)
    if not _has_enough(pool):
        return regression
    if pool.output_mode == "text":
        return replace(regression, ridge=_fit_values(pool, regression, left_out.first))
    cases = _LabelCases.build(pool, regression, left_out.first)
    ridge = _fit_labels(pool, cases)
    if ridge is not None and cases.fit(pool, ridge.penalty, 0.0).noise > 0:
        more = left_out.take(min(HELD_OUT_FOR_NOISE, PAIRS_FOR_NOISE // len(pool)))
        cases = cases if more is left_out.first else _LabelCases.build(pool, regression, more)
        ridge = _fit_noise(pool, cases) or ridge
    return replace(regression, ridge=ridge)


def fit_kernel_regression(pool: PoolTensors, settings: Settings, left_out: LeftOutRows) -> KernelRegression:
    """The part of the regression that looks at the neighbours alone; arguments as ``fit_regression`` has them."""
    if not _has_enough(pool):
        kernel = settings.objective.kernel or Gaussian(median_heuristic(pool.x))
        return KernelRegression(kernel, 0.1)
    rows, neighbours = left_out.first.rows, left_out.first.neighbours
    similarity = (pool.take_inputs(neighbours.index) @ neighbours.q[..., None]).squeeze(-1)
    fit = fit_by_leave_one_out(
        similarity.masked_fill(~neighbours.valid, -torch.inf),
        pool.v[neighbours.index],
        pool.v[rows],
        pool.prior(rows.new_tensor([-1]), pool.v)[0],
        labels=pool.output_mode == "labels",
    )
    return KernelRegression(Gaussian(fit.temperature), fit.shrinkage)


def _has_enough(pool: PoolTensors) -> bool:
    """Whether there is something to predict, and to fit to."""
    return pool.output_mode != "none" and len(pool) >= SMALLEST


def _estimate(pool: PoolTensors, regression: KernelRegression, left_out: HeldOutRows) -> Tensor:
    """The values of rows that are left out, ``[n, c]``."""
    neighbours = left_out.neighbours
    parts = [neighbours.part(slice(start, start + CHUNK)) for start in range(0, len(neighbours), CHUNK)]
    return torch.cat([estimate_query_target(pool, part, regression).v[:, 0] for part in parts])


def _fit_values(pool: PoolTensors, regression: KernelRegression, left_out: HeldOutRows) -> RidgePart | None:
    """How a ridge regression joins for embedded outputs, both weighed by least squares and neither below 0.

    None where it brings the left-out rows' outputs no nearer.
    """
    known = (pool.label[left_out.rows] >= 0).cpu()
    if int(known.sum()) < SMALLEST:
        return None
    true = pool.v[left_out.rows].cpu().double()[known]
    by_kernel = _estimate(pool, regression, left_out).cpu().double()[known]
    best, least, flat = None, float((true - by_kernel).square().sum()), true.flatten().numpy()
    for penalty in VALUE_PENALTIES:
        by_ridge = predict_by_ridge(pool, left_out.neighbours.queries, penalty)[known]
        (of_kernel, of_ridge), distance = nnls(torch.stack([by_kernel, by_ridge], -1).flatten(0, 1).numpy(), flat)
        if of_ridge > 0 and distance**2 < least * (1 - LEAST_GAIN):
            best, least = RidgePart(penalty, float(of_ridge), float(of_kernel), fitted_to="text"), distance**2
    return best


@dataclass(frozen=True)
class _LabelCases:
    """Labelled rows, each left out in turn.

    Attributes:
        queries: The rows as queries, those without a label among them.
        labelled: Which of them have one.
        log_shares: What the kernel regression says of those, logarithms ``[n, c]`` in float64 on the CPU.
        labels: Theirs, one-hot ``[n, c]``.
        possible: Which labels are possible ``[n, c]``.
    """

    queries: QueryTensors
    labelled: Tensor
    log_shares: Tensor
    labels: Tensor
    possible: Tensor
    _scores: dict[float, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def build(cls, pool: PoolTensors, regression: KernelRegression, left_out: HeldOutRows) -> "_LabelCases":
        """Takes rows of the pool with their neighbours."""
        rows, neighbours = left_out.rows, left_out.neighbours
        labelled = pool.label[rows] >= 0
        shares = _estimate(pool, regression, left_out)
        prior = pool.prior(neighbours.task, neighbours.q)
        log_shares = shares.clamp_min(SMALLEST_SHARE).log()[labelled].cpu().double()
        labels, possible = pool.v[rows][labelled].cpu().double(), (prior > 0)[labelled].cpu()
        return cls(neighbours.queries, labelled, log_shares, labels, possible)

    def fit(self, pool: PoolTensors, penalty: float, noise_prior: float | None = None) -> MultinomialFit:
        """The exponent of the kernel regression and the weight of a ridge regression that make the labels likeliest."""
        if penalty not in self._scores:
            self._scores[penalty] = predict_by_ridge(pool, self.queries, penalty)[self.labelled.cpu()]
        features = torch.stack([self.log_shares, self._scores[penalty]], -1)
        return fit_multinomial(features, self.labels, (0.0, 0.0), torch.inf, self.possible, noise_prior=noise_prior)


def _fit_labels(pool: PoolTensors, cases: _LabelCases) -> RidgePart | None:
    """The ridge regression that makes the left-out labels likeliest; None where it adds nothing."""
    best, least = None, -float((cases.labels * cases.log_shares).sum(-1).mean())
    for penalty in PENALTIES:
        fit = cases.fit(pool, penalty)
        if fit.loss < least - TIE:
            exponent, weight = fit.constants.tolist()
            best, least = RidgePart(penalty, weight, exponent), fit.loss
    return best


def _fit_noise(pool: PoolTensors, cases: _LabelCases) -> RidgePart | None:
    """The ridge regression of the labels that are no noise; None where noise is not found, or the cases are few."""
    if cases.labels.shape[0] < FEWEST_FOR_NOISE:
        return None
    fits = {penalty: cases.fit(pool, penalty, NOISE_PRIOR) for penalty in PENALTIES}
    penalty = min(fits, key=lambda penalty: fits[penalty].loss)
    exponent, weight = fits[penalty].constants.tolist()
    return RidgePart(penalty, weight, exponent, fits[penalty].noise) if fits[penalty].noise > 0 else None
