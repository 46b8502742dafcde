"""A prediction of the theory with the points that were measured, what they say of it, and the fits that summarise them.

``scipy.stats`` is imported where it is used: it takes half a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Phenomenon", "Verdict", "fit_line", "judge_above", "judge_below", "judge_equal", "rank_correlation"]

Floats = NDArray[np.float64]
Word = Literal["holds", "does not hold", "undecided"]
ROUNDING = 1e-6  # what is claimed exactly may miss by so much


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds of what was measured.

    Attributes:
        claim: The claim as an inequality, in words.
        word: ``holds``: the whole interval agrees; ``does not hold``: the whole interval contradicts; ``undecided``: it
            does neither.
        value: What was measured.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    claim: str
    word: Word
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.claim}: {self.word}, {self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Phenomenon:
    """A prediction of the theory, and the points that test it.

    Attributes:
        name: Name in a few words.
        claim: What the theory predicts, with its R-number.
        x_name: Label of the horizontal axis, with its unit.
        y_name: Label of the vertical axis.
        x: ``[n]``.
        y: ``[n]``.
        figures: Summary of the points: slopes, R², correlations with their intervals.
        verdicts: Whether the claim holds of the points; several where it has several parts.
    """

    name: str
    claim: str
    x_name: str
    y_name: str
    x: list[float]
    y: list[float]
    figures: dict[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()


def judge_above(claim: str, found: Mapping[str, float], bound: float = 0) -> Verdict:
    """A claim that what was measured lies above a bound.

    Args:
        claim: The claim, in words.
        found: What ``fit_line`` or ``rank_correlation`` gave.
        bound: The bound.
    """
    word: Word = "holds" if found["low"] > bound else "does not hold" if found["high"] < bound else "undecided"
    return Verdict(claim, word, _value(found), found["low"], found["high"])


def judge_below(claim: str, found: Mapping[str, float], bound: float = 0) -> Verdict:
    """A claim that what was measured lies below a bound; arguments as ``judge_above``."""
    word: Word = "holds" if found["high"] < bound else "does not hold" if found["low"] > bound else "undecided"
    return Verdict(claim, word, _value(found), found["low"], found["high"])


def judge_equal(claim: str, found: Mapping[str, float], expected: float) -> Verdict:
    """A claim that is exact: the expected number was measured, but for rounding; arguments as ``judge_above``."""
    word: Word = "holds" if abs(_value(found) - expected) <= ROUNDING else "does not hold"
    return Verdict(claim, word, _value(found), found["low"], found["high"])


def _value(found: Mapping[str, float]) -> float:
    return found["slope"] if "slope" in found else found["Spearman"]


def fit_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Fits the least-squares line.

    Args:
        x: ``[n]``, n ≥ 3, not all equal.
        y: ``[n]``.

    Returns:
        ``slope``, the ends ``low`` and ``high`` of its 95 % interval by Student's t, and ``R²``.
    """
    from scipy.stats import linregress, t

    line = linregress(x, y)
    half = float(t.ppf(0.975, len(x) - 2)) * float(line.stderr)
    slope = float(line.slope)
    return {"slope": slope, "low": slope - half, "high": slope + half, "R²": float(line.rvalue**2)}


def rank_correlation(x: Sequence[float], y: Sequence[float], *, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Spearman's rank correlation with a 95 % percentile bootstrap interval over the points.

    Args:
        x: ``[n]``, n ≥ 2.
        y: ``[n]``.
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        ``Spearman``, ``low`` and ``high``; 0 where one side does not vary.
    """
    from scipy.stats import bootstrap

    points = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    interval = bootstrap(
        points,
        _spearman,
        paired=True,
        vectorized=False,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {"Spearman": _spearman(*points), "low": float(interval.low), "high": float(interval.high)}


def _spearman(x: Floats, y: Floats) -> float:
    """The rank correlation; 0 where one side does not vary, which scipy leaves undefined."""
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else 0.0
