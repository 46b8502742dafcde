"""A selection as one figure: map, outputs, contributions, and J against the number of demonstrations."""

from typing import Any

from kdprompt.report.selection import sum_gains
from kdprompt.selection.portrait import DrawnPoint, Portrait, draw_portrait
from kdprompt.selection.result import Selection
from kdprompt.short_repr import shorten

__all__ = ["plot_selection"]

OURS, THEIRS = "#1d4ed8", "#667085"


def plot_selection(selection: Selection) -> Any:
    """Draws a selection.

    Args:
        selection: The selection. One that was read from JSON has lost what it was chosen from: the map stays empty and
            says so.

    Returns:
        A matplotlib ``Figure``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'kdprompt[bench]'; to_html does not") from error
    figure = Figure(figsize=(11, 8), layout="constrained")
    parts: Any = figure.subfigures(2, 1)
    above, below = parts
    place, outputs = above.subplots(1, 2, width_ratios=(3, 2))
    members, falls = below.subplots(1, 2)
    portrait = None if selection.origin is None else draw_portrait(selection, selection.origin)
    _plot_map(place, portrait)
    _plot_outputs(outputs, selection)
    _plot_members(members, selection)
    _plot_falls(falls, selection, None if portrait is None else portrait.nearest)
    title = "one prompt for the query distribution" if selection.query is None else shorten(selection.query.text, 100)
    figure.suptitle(_plain(title))
    return figure


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def _plot_map(axes: Any, portrait: Portrait | None) -> None:
    axes.set(title="pool; colour: witness μ_Q − μ_D (red: not covered)", xticks=[], yticks=[])
    if portrait is None:
        axes.text(0.5, 0.5, "stored selection: its pool is not at hand", ha="center", transform=axes.transAxes)
        return
    points, queries = portrait.points, portrait.queries
    everything: list[DrawnPoint] = [*points, *queries]
    largest = max((abs(point.witness) for point in everything), default=0.0) or 1.0
    style = {"cmap": "coolwarm", "vmin": -(largest**0.5), "vmax": largest**0.5}
    for drawn, marker, size in ((points, "o", 22), (queries, "D", 55)):
        roots = [abs(point.witness) ** 0.5 * (1 if point.witness > 0 else -1) for point in drawn]
        edges = "black" if marker == "D" else "#98a2b3"
        axes.scatter(
            [p.x for p in drawn],
            [p.y for p in drawn],
            c=roots,
            marker=marker,
            s=size,
            edgecolors=edges,
            linewidths=0.7,
            **style,
        )
    for point in points:
        if point.place:
            axes.annotate(str(point.place), (point.x, point.y), fontweight="bold", ha="center", va="center", fontsize=9,
                          bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": "black"})  # fmt: skip
    axes.set_xlabel(f"two principal axes, {portrait.explained:.0%} of the variance")


def _plot_outputs(axes: Any, selection: Selection) -> None:
    evidence = selection.evidence[::-1]
    if not evidence:
        axes.set(title="estimated outputs", xticks=[], yticks=[])
        axes.text(0.5, 0.5, "outputs are no labels", ha="center", transform=axes.transAxes)
        return
    for offset, name, colour, values in (
        (0.2, "aim: pool and reader know", THEIRS, [item.target for item in evidence]),
        (-0.2, "expected with this prompt", OURS, [item.expected for item in evidence]),
    ):
        axes.barh([i + offset for i in range(len(evidence))], values, 0.38, color=colour, label=name)
    axes.set_yticks(range(len(evidence)), [_plain(shorten(item.output, 28)) for item in evidence])
    axes.set(title="outputs (R9)", xlim=(0, 1), xlabel="probability")
    axes.legend(frameon=False)


def _plot_members(axes: Any, selection: Selection) -> None:
    members = selection.chosen[::-1]
    names = []
    for number, shown in zip(range(len(members), 0, -1), (m.demonstration for m in members), strict=True):
        output = "" if shown.output is None else f" → {shorten(shown.output, 14)}"
        names.append(f"{number}  {shorten(shown.input, 30)}{output}")
    axes.barh(range(len(members)), [member.marginal for member in members], color=OURS)
    axes.set_yticks(range(len(members)), [_plain(name) for name in names])
    axes.axvline(0, color=THEIRS, linewidth=1)
    axes.set(title="J would rise by this without it")


def _plot_falls(axes: Any, selection: Selection, nearest: Selection | None) -> None:
    axes.plot(sum_gains(selection), "o-", color=OURS, label="this prompt")
    if nearest is not None:
        axes.plot(sum_gains(nearest), "o--", color=THEIRS, label="nearest neighbours")
    axes.set(title="J of the first k demonstrations", xlabel="k")
    axes.legend(frameon=False)
