"""Paired statistics of two selectors on the same queries.

Sources: Efron & Tibshirani (1993) for the percentile bootstrap, by ``scipy.stats.bootstrap``; McNemar (1947),
Psychometrika 12, in its exact form, by ``scipy.stats.binomtest``; Holm (1979), Scand. J. Statistics 6; Naeini et al.
(2015, AAAI) for the expected calibration error. ``scipy.stats`` is imported where it is used: it takes half a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "PairedComparison",
    "calibration_error",
    "compare",
    "correct_by_holm",
    "mcnemar_p_value",
    "mean_interval",
    "paired_interval",
]

RESAMPLES_AT_ONCE = 500  # bounds the memory of the bootstrap to 500 × m numbers


@dataclass(frozen=True)
class PairedComparison:
    """One selector against another on the same queries.

    Attributes:
        difference: Mean score less the other's.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        wins: Queries whose score is larger than the other's.
        ties: Queries with the same score.
        losses: Queries whose score is smaller than the other's.
        p: McNemar's exact p-value, two-sided; ``compare`` gives it uncorrected.
    """

    difference: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    p: float

    @property
    def points(self) -> str:
        """Difference and interval in hundredths, as ``+4.2 [+0.6, +8.0]``."""
        return f"{100 * self.difference:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"

    @property
    def nats(self) -> str:
        """Difference and interval of a loss, as ``-0.12 [-0.17, -0.07]``."""
        return f"{self.difference:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def compare(scores: Tensor, baseline: Tensor, *, seed: int = 0) -> PairedComparison:
    """Compares a selector with a baseline by their scores on the same queries.

    Args:
        scores: Scores of the selector ``[m]``.
        baseline: Scores of the baseline ``[m]``.
        seed: Seed of the bootstrap.
    """
    low, high = paired_interval(scores, baseline, seed=seed)
    wins, losses = int((scores > baseline).sum()), int((scores < baseline).sum())
    return PairedComparison(
        difference=float((scores - baseline).double().mean()),
        low=low,
        high=high,
        wins=wins,
        ties=len(scores) - wins - losses,
        losses=losses,
        p=mcnemar_p_value(wins, losses),
    )


def paired_interval(
    scores: Tensor, baseline: Tensor, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean difference over queries drawn with replacement.

    Args:
        scores: ``[m]``.
        baseline: ``[m]``, on the same queries.
        level: Confidence level of the interval, in (0, 1).
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    return mean_interval(scores.double() - baseline.double(), level=level, draws=draws, seed=seed)


def mean_interval(values: Tensor, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean.

    Args:
        values: ``[m]``, m ≥ 1.
        level: Confidence level of the interval, in (0, 1).
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        Lower and upper end; both are the value itself where there is only one.

    Raises:
        ValueError: There are no values.
    """
    from scipy.stats import bootstrap

    if not len(values):
        raise ValueError("a bootstrap interval needs at least 1 value, got none")
    if len(values) == 1:
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values.double().cpu().numpy(),),
        np.mean,
        n_resamples=draws,
        batch=RESAMPLES_AT_ONCE,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def mcnemar_p_value(wins: int, losses: int) -> float:
    """McNemar's exact test: two-sided p-value that a query is as likely won as lost, in (0, 1].

    Args:
        wins: Queries with a larger score.
        losses: Queries with a smaller score.

    Example:
        >>> round(mcnemar_p_value(9, 1), 4)
        0.0215
    """
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number by Holm's step-down rule, in the order given.

    Example:
        >>> correct_by_holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def calibration_error(confidence: Tensor, correct: Tensor, *, bins: int = 10) -> float:
    """Expected calibration error in [0, 1]: mean gap of confidence and accuracy over bins of equal width.

    Args:
        confidence: Probability given to the answer ``[m]``.
        correct: Whether it was right ``[m]``.
        bins: Number of bins.
    """
    bin_index = (confidence.double() * bins).long().clamp(0, bins - 1)
    gap = confidence.double() - correct.double()
    sums = torch.zeros(bins, dtype=torch.float64).index_add(0, bin_index, gap)
    return float(sums.abs().sum() / max(len(confidence), 1))
