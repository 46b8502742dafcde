"""The predictions of the theory as one HTML file: a verdict for each claim, and a figure for each phenomenon."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from kdprompt.report.page import figure_to_image, make_axes, write_template
from kdprompt.reproduce import Phenomenon

__all__ = ["write_phenomena"]

MAX_LEVELS = 10  # up to so many distinct values of x, the means of y are drawn
MIN_POINTS = 5  # at each of them; a mean of fewer says too little to be drawn


@dataclass(frozen=True)
class _Section:
    """A phenomenon and its figure."""

    phenomenon: Phenomenon
    figure: str


def write_phenomena(phenomena: Sequence[Phenomenon], path: Path, about: Mapping[str, object] | None = None) -> None:
    """Writes the page.

    Args:
        phenomena: What was measured, in the order of the page.
        path: The file; replaced where it exists.
        about: How it was measured.

    Raises:
        ImportError: matplotlib is not installed.
    """
    write_template(
        path,
        "phenomena",
        title="kdprompt: the theory, measured",
        about=about or {},
        sections=[_Section(phenomenon, _plot(phenomenon)) for phenomenon in phenomena],
    )


def _plot(phenomenon: Phenomenon) -> str:
    figure, axes = make_axes(3.6, width=7)
    means = _find_means(phenomenon)
    faint = bool(means)
    axes.plot(phenomenon.x, phenomenon.y, "o", color="#1d4ed8", markersize=3.5, alpha=0.35 if faint else 0.7, mew=0)
    if means:
        levels, values, halves = zip(*means, strict=True)
        style = {"fmt": "s", "markersize": 5, "capsize": 3, "color": "#b42318", "label": "mean, 95 % interval"}
        axes.errorbar(levels, values, yerr=halves, **style)
        axes.legend(frameon=False)
    if phenomenon.name == "generalisation gap":
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=phenomenon.x_name, ylabel=phenomenon.y_name)
    return figure_to_image(figure)


def _find_means(phenomenon: Phenomenon) -> list[tuple[float, float, float]]:
    """Each level of x, the mean of y and half its 95 % interval; empty where levels are many or have few points.

    Single points get no curve: a line through them would say that what lies between was measured.
    """
    at: dict[float, list[float]] = {}
    for x, y in zip(phenomenon.x, phenomenon.y, strict=True):
        at.setdefault(x, []).append(y)
    if len(at) > MAX_LEVELS or min(map(len, at.values())) < MIN_POINTS:
        return []
    return [(level, mean(ys), 1.96 * stdev(ys) / len(ys) ** 0.5) for level, ys in sorted(at.items())]
