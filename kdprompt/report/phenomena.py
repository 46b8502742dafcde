"""The theory's phenomena as one HTML file with a picture each."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from kdprompt.report.page import axes_of, document, svg
from kdprompt.reproduce.phenomena import Phenomenon

__all__ = ["write_phenomena"]


def write_phenomena(found: Sequence[Phenomenon], path: Path, about: Mapping[str, object] | None = None) -> None:
    """Writes the page.

    Args:
        found: What was measured, in order.
        path: The file; replaced where it exists.
        about: How, for the record.

    Raises:
        ImportError: matplotlib is not installed.
    """
    parts = "".join(_section(item) for item in found)
    path.write_text(document("kdprompt: the theory, measured", parts, about or {}), encoding="utf-8")


def _section(item: Phenomenon) -> str:
    figures = ", ".join(f"{escape(name)} {value:.3f}" for name, value in item.figures.items())
    return (
        f"<h2>{escape(item.name)}</h2><p>{escape(item.claim)}.</p><p><strong>Measured:</strong> {figures}; "
        f"{len(item.x)} points.</p><figure>{_picture(item)}</figure>"
    )


def _picture(item: Phenomenon) -> str:
    figure, axes = axes_of(3.6, width=7)
    axes.plot(item.x, item.y, "o", color="#1d4ed8", markersize=3.5, alpha=0.5, markeredgewidth=0)
    levels = sorted(set(item.x))
    if len(levels) <= 10:  # a few values of x: their means
        means = [_mean([y for x, y in zip(item.x, item.y, strict=True) if x == level]) for level in levels]
        axes.plot(levels, means, color="#b42318", linewidth=1.6, label="mean")
        axes.legend(frameon=False)
    if item.name == "generalisation gap":
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=item.x_name, ylabel=item.y_name)
    return svg(figure)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
