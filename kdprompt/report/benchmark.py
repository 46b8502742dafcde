"""A benchmark as one HTML file: tables and figures inside, nothing loaded from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdprompt.evaluate import Results
from kdprompt.evaluate.tables import Row, Table
from kdprompt.report.page import figure_to_image, make_axes, write_template

__all__ = ["write_page"]

COLUMNS = (
    "selector", "score", "95 %", "log-loss", "ECE", "one output", "tokens", "shown", "off task", "p50 ms", "p99 ms",
    "difference, points", "in nats", "win / tie / loss", "p (Holm)",
)  # fmt: skip


@dataclass(frozen=True)
class _Overview:
    """The reference against all other selectors in all tables."""

    reference: str
    figure: str


@dataclass(frozen=True)
class _Section:
    """One table with its rows from the best score to the worst, and a figure of the scores."""

    table: Table
    rows: list[Row]
    figure: str


def write_page(results: Results, path: Path) -> None:
    """Writes the page.

    Args:
        results: Results of ``summarise``.
        path: The file; replaced where it exists.

    Raises:
        ImportError: matplotlib is not installed.
    """
    write_template(
        path,
        "benchmark",
        title="kdprompt benchmark",
        about=results.about,
        overview=_overview(results.tables),
        columns=COLUMNS,
        sections=[_section(table) for table in results.tables],
    )


def _overview(tables: Sequence[Table]) -> _Overview | None:
    comparing = [table for table in tables if len(table.rows) > 1]
    return _Overview(comparing[0].reference, _plot_differences(comparing)) if comparing else None


def _section(table: Table) -> _Section:
    rows = sorted(table.rows, key=lambda row: -row.score)
    return _Section(table, rows, _plot_scores(rows, table.reference))


def _plot_scores(rows: Sequence[Row], reference: str) -> str:
    """Scores with their intervals, the first row on top."""
    figure, axes = make_axes(0.9 + 0.27 * len(rows))
    for y, row in enumerate(reversed(rows)):
        colour = "#1d4ed8" if row.selector == reference else "#667085"
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([row.score], [y], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), [row.selector for row in reversed(rows)])
    axes.set(xlabel="mean score, 95 % interval", ylim=(-0.6, len(rows) - 0.4))
    return figure_to_image(figure)


def _plot_differences(tables: Sequence[Table]) -> str:
    """The reference's score less that of every other selector, one colour a table."""
    from matplotlib import colormaps

    others = list(dict.fromkeys(row.selector for t in tables for row in t.rows if row.against is not None))
    figure, axes = make_axes(1.3 + 0.1 * len(others) * (len(tables) + 2))
    colours = colormaps["tab10"]
    for i, table in enumerate(tables):
        label = ", ".join(filter(None, [table.dataset, table.suite, f"k = {table.k}", table.reader]))
        for row in table.rows:
            if row.against is None:
                continue
            y = len(others) - 1 - others.index(row.selector) + 0.4 - 0.8 * (i + 0.5) / len(tables)
            ends = [100 * row.against.low, 100 * row.against.high]
            axes.plot(ends, [y, y], color=colours(i % 10), linewidth=1.6, label=label)
            axes.plot([100 * row.against.difference], [y], "o", color=colours(i % 10), markersize=3.5)
            label = "_"
    axes.axvline(0, color="#98a2b3", linewidth=1)
    axes.set_yticks(range(len(others)), list(reversed(others)))
    axes.set_xlabel("points")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)
    return figure_to_image(figure)
