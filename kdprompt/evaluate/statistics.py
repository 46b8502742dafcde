"""Paired statistics of two selectors on the same queries.

Sources: Efron & Tibshirani (1993) for the bootstrap; McNemar (1947), Psychometrika 12, in its exact form; Holm (1979),
Scand. J. Statistics 6; Naeini et al. (2015, AAAI) for the expected calibration error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Paired", "calibration_error", "compare", "holm", "mcnemar", "mean_interval", "paired_interval"]


@dataclass(frozen=True)
class Paired:
    """One selector against a baseline.

    Attributes:
        difference: Mean of the score less the baseline's.
        low: Lower end of its 95 % interval.
        high: Upper end.
        wins: Queries that it alone gets right (or where its score is larger).
        ties: Queries with the same score.
        losses: Queries that the baseline alone gets right.
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


def compare(scores: Tensor, baseline: Tensor, *, seed: int = 0) -> Paired:
    """Compares two selectors by their scores on the same queries, ``[m]`` each."""
    low, high = paired_interval(scores, baseline, seed=seed)
    wins, losses = int((scores > baseline).sum()), int((scores < baseline).sum())
    difference = float((scores - baseline).double().mean())
    return Paired(difference, low, high, wins, len(scores) - wins - losses, losses, mcnemar(wins, losses))


def paired_interval(
    scores: Tensor, baseline: Tensor, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean difference over queries drawn with replacement.

    Args:
        scores: ``[m]``.
        baseline: ``[m]``, on the same queries.
        level: Of the interval, in (0, 1).
        draws: Bootstrap samples.
        seed: Of the draws.
    """
    return mean_interval(scores.double() - baseline.double(), level=level, draws=draws, seed=seed)


def mean_interval(values: Tensor, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values: [m]``."""
    values = values.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    means = []
    for start in range(0, draws, 500):  # 500 × m indices at a time
        count = min(500, draws - start)
        index = torch.randint(len(values), (count, len(values)), generator=generator)
        means.append(values[index].mean(-1))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.cat(means).quantile(ends)
    return float(low), float(high)


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided p-value in (0, 1] that wins and losses are a fair coin's.

    Example:
        >>> round(mcnemar(9, 1), 4)
        0.0215
    """
    n = wins + losses
    tail: int = sum(math.comb(n, i) for i in range(min(wins, losses) + 1))
    return min(1.0, float(2 * tail / 2**n))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down rule, in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = running
    return corrected


def calibration_error(confidence: Tensor, correct: Tensor, *, bins: int = 10) -> float:
    """Expected calibration error in [0, 1]: mean gap of confidence and accuracy over bins of equal width.

    Args:
        confidence: Probability given to the answer ``[m]``.
        correct: Whether it was right ``[m]``.
        bins: Number of bins.
    """
    place = (confidence.double() * bins).long().clamp(0, bins - 1)
    gap = confidence.double() - correct.double()
    sums = torch.zeros(bins, dtype=torch.float64).index_add(0, place, gap)
    return float(sums.abs().sum() / max(len(confidence), 1))
