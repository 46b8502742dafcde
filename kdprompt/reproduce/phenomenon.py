"""A prediction of the theory with the points that were measured, and the two fits that summarise points.

``scipy.stats`` is imported where it is used: it takes half a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Phenomenon", "fit_line", "rank_correlation"]

Floats = NDArray[np.float64]


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
    """

    name: str
    claim: str
    x_name: str
    y_name: str
    x: list[float]
    y: list[float]
    figures: dict[str, float] = field(default_factory=dict)


def fit_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Fits the least-squares line.

    Args:
        x: ``[n]``, not all equal.
        y: ``[n]``.

    Returns:
        ``slope`` and ``R²``.
    """
    from scipy.stats import linregress

    line = linregress(x, y)
    return {"slope": float(line.slope), "R²": float(line.rvalue**2)}


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
