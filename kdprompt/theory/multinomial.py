"""Multinomial logistic regression with constants that all outputs share: few numbers, one convex fit.

Takes features of each output of each case; gives the weights of the features and a leaning to each output. Where asked
to, it tells outputs that were drawn at random from those that the features speak for: such noise keeps the likelihood
of the surest cases from rising to 1, however long the features get.

Source: noise as a mixture of the model with chance, arXiv 1609.03683 (forward correction, one rate).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["MultinomialFit", "fit_multinomial"]

LARGEST_EXPONENT = 700.0  # whose exponential is finite in float64
NOISE_STARTS = (0.05, 0.3, 0.6)
MOST_NOISE = 0.95  # at 1 the features say nothing
TIE = 1e-6  # nats a case; what noise must gain to be found


@dataclass(frozen=True)
class MultinomialFit:
    """log p(y) = ⟨constants, features(y)⟩ + bias_y, up to a constant in y.

    Attributes:
        constants: Weights of the features ``[p]``, float64 on the CPU.
        bias: Leaning to each output ``[c]``, mean 0.
        noise: ε, the share of the cases whose output is drawn uniformly from the possible ones, in [0, 1); p is that of
            the others.
        loss: What the fit made least: nats a case, with the penalties.
    """

    constants: Tensor
    bias: Tensor
    noise: float = 0.0
    loss: float = 0.0

    def log_probs(self, features: Tensor, possible: Tensor | None = None) -> Tensor:
        """Log-probabilities of cases ``[n, c, p]``, ``[n, c]`` in float64 on the CPU; −∞ for impossible outputs."""
        scores = features.cpu().double() @ self.constants + self.bias
        return (scores if possible is None else scores.masked_fill(~possible.cpu(), -torch.inf)).log_softmax(-1)


def fit_multinomial(
    features: Tensor,
    target: Tensor,
    lowest: tuple[float | None, ...],
    ridge: float,
    possible: Tensor | None = None,
    *,
    noise_prior: float | None = None,
) -> MultinomialFit:
    """Fits constants and biases by maximum likelihood.

    Args:
        features: Of each output in each case ``[n, c, p]``, finite.
        target: Which output it was, as shares that sum to 1, ``[n, c]``.
        lowest: Lower bound of each constant; None is no bound.
        ridge: Penalty on each squared bias, where a case counts 1; ``inf`` fits no biases.
        possible: Which outputs can occur, boolean ``[n, c]``, that of the target among them; None: all.
        noise_prior: How many cases are taken to be no chance before any is seen, ≥ 0: ε is fitted as well, with the
            penalty −noise_prior · log(1 − ε) in all. The fit is no longer convex: several starts are tried, and noise
            is found only where it gains more than the penalty. None: ε is 0.

    Returns:
        The optimum; constants on which the cases say nothing are 0.
    """
    n, c, p = features.shape
    barred = np.zeros((n, c), dtype=bool) if possible is None else ~possible.cpu().numpy()
    biased = bool(np.isfinite(ridge))
    x, shares = features.cpu().double().permute(2, 1, 0).contiguous().numpy(), target.cpu().double().numpy()
    likelihood = _Likelihood(x, shares, barred, ridge if biased else 0.0, noise_prior or 0.0)
    slots = [*((low, None) for low in lowest), *([(None, None)] * c if biased else [(0.0, 0.0)] * c)]
    least, found = _minimise(likelihood, slots, 0.0, 0.0)
    for start in () if noise_prior is None else NOISE_STARTS:
        loss, other = _minimise(likelihood, slots, start, MOST_NOISE)
        if loss < least - TIE:
            least, found = loss, other
    bias = torch.from_numpy(found[p:-1])
    return MultinomialFit(torch.from_numpy(found[:p]), bias - bias.mean(), float(found[-1]), least)


def _minimise(likelihood: "_Likelihood", slots: list[Any], noise: float, most_noise: float) -> tuple[float, Any]:
    """Least loss and where it is: constants, biases and noise, from 0 and the noise given."""
    from scipy.optimize import minimize

    start, bounds = np.append(np.zeros(len(slots)), noise), [*slots, (0.0, most_noise)]
    options = {"maxiter": 1000, "ftol": 1e-13}
    result = minimize(likelihood, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    return float(result.fun), result.x


@dataclass(frozen=True)
class _Likelihood:
    """The penalised negative log-likelihood of a case, with its slope; outputs first, so that sums are of long rows.

    Attributes:
        features: ``[p, c, n]``.
        target: ``[n, c]``; the likelihood asks for the outputs that have a share in it, of labels one a case.
        barred: Which outputs cannot occur ``[n, c]``.
        penalty: On each squared bias.
        noise_prior: Cases taken to be no chance.
    """

    features: Any
    target: Any
    barred: Any
    penalty: float
    noise_prior: float

    @cached_property
    def _given(self) -> tuple[Any, Any, Any, Any]:
        """Case, output, share and log-probability by chance of each share above 0."""
        case, output = np.nonzero(self.target)
        return case, output, self.target[case, output], -np.log((~self.barred).sum(-1))[case]

    @cached_property
    def _floor(self) -> Any:
        """−∞ at outputs that cannot occur, else 0 ``[c, n]``."""
        return np.where(self.barred.T, -np.inf, 0.0)

    def __call__(self, parameters: Any) -> tuple[float, Any]:
        """Loss and slope at constants, biases and ε, one behind the other ``[p + c + 1]``."""
        p, c, n = self.features.shape
        constants, bias, noise, prior = parameters[:p], parameters[p:-1], parameters[-1], self.noise_prior
        case, output, share, log_chance = self._given
        scores = np.tensordot(constants, self.features, 1) + bias[:, None] + self._floor
        scores -= scores.max(0)
        odds = np.exp(scores)
        total = odds.sum(0)
        log_sure = scores[output, case] - np.log(total)[case]
        with np.errstate(divide="ignore"):  # no noise: its logarithm is −∞
            log_probs = np.logaddexp(np.log1p(-noise) + log_sure, np.log(noise) + log_chance)
        against_chance = np.minimum(log_chance - log_probs, LARGEST_EXPONENT)
        pull = share * np.exp(np.log1p(-noise) + log_sure - log_probs)  # how far each share is no chance
        error = odds * (np.bincount(case, pull, n) / total)
        error[output, case] -= pull
        slope = [
            self.features.reshape(p, c * n) @ error.ravel() / n,
            error.sum(-1) / n + 2 * self.penalty / n * bias,
            [((share * (np.exp(log_sure - log_probs) - np.exp(against_chance))).sum() + prior / (1 - noise)) / n],
        ]
        loss = self.penalty * (bias**2).sum() - (share * log_probs).sum() - prior * np.log1p(-noise)
        return float(loss / n), np.concatenate(slope)
