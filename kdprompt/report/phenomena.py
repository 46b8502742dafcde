"""The predictions of the theory as one HTML file with a figure each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdprompt.report.page import figure_to_svg, make_axes, write_template
from kdprompt.reproduce import Phenomenon

__all__ = ["write_phenomena"]

MAX_LEVELS = 10  # up to so many distinct values of x, the means of y are drawn


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
    axes.plot(phenomenon.x, phenomenon.y, "o", color="#1d4ed8", markersize=3.5, alpha=0.5, markeredgewidth=0)
    levels = sorted(set(phenomenon.x))
    if len(levels) <= MAX_LEVELS:
        points = list(zip(phenomenon.x, phenomenon.y, strict=True))
        means = [_mean([y for x, y in points if x == level]) for level in levels]
        axes.plot(levels, means, color="#b42318", linewidth=1.6, label="mean")
        axes.legend(frameon=False)
    if phenomenon.name == "generalisation gap":
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=phenomenon.x_name, ylabel=phenomenon.y_name)
    return figure_to_svg(figure)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
