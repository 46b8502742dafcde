"""A benchmark as one HTML file: tables and pictures inside, nothing loaded from elsewhere."""

from html import escape
from pathlib import Path

from kdprompt.evaluate import Results
from kdprompt.evaluate.tables import Row, Table
from kdprompt.report.page import axes_of, document, svg

__all__ = ["write_page"]

HEADS = (
    "selector", "score", "95 %", "log-loss", "ECE", "tokens", "shown", "off task", "p50 ms", "p99 ms",
    "difference, points", "win / tie / loss", "p (Holm)",
)  # fmt: skip


def write_page(results: Results, path: Path) -> None:
    """Writes the page.

    Args:
        results: Of ``summarise``.
        path: The file; replaced where it exists.

    Raises:
        ImportError: matplotlib is not installed.
    """
    parts = [_section(table) for table in results.tables]
    body = f"{_overview(results)}{''.join(parts)}"
    path.write_text(document("kdprompt benchmark", body, results.about), encoding="utf-8")


def _overview(results: Results) -> str:
    tables = [table for table in results.tables if len(table.rows) > 1]
    if not tables:
        return ""
    reference = tables[0].reference
    figure = _differences(tables)
    return (
        f"<h2>{escape(reference)} against the others</h2><p>Difference of the mean scores in points with paired 95 % "
        f"bootstrap intervals; right of the line {escape(reference)} is better.</p><figure>{figure}</figure>"
    )


def _section(table: Table) -> str:
    rows = sorted(table.rows, key=lambda row: -row.score)
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    body = "".join(_row(row, table.reference) for row in rows)
    title = f"{table.dataset}, {table.suite}, k = {table.k}, {table.queries} queries"
    return (
        f'<h2>{escape(title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f"</table></div><figure>{_scores(rows, table.reference)}</figure>"
    )


def _row(row: Row, reference: str) -> str:
    def optional(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    cells = [
        escape(row.selector),
        f"{row.score:.3f}",
        f"{row.low:.3f} – {row.high:.3f}",
        optional(row.log_loss),
        optional(row.calibration_error),
        f"{row.tokens:.0f}",
        f"{row.shown:.1f}",
        f"{row.off_task:.2f}",
        f"{row.p50:.1f}",
        f"{row.p99:.1f}",
    ]
    marks = [""] * len(cells)
    pair = row.against
    if pair is None:
        cells, marks = cells + [""] * 3, marks + [""] * 3
    else:
        mark = "better" if pair.low > 0 else "worse" if pair.high < 0 else ""
        drawn = (
            "" if row.percentile is None else f"<br><small>above {row.percentile:.0%} of {len(row.draws)} draws</small>"
        )
        cells += [f"{pair.points}{drawn}", f"{pair.wins} / {pair.ties} / {pair.losses}", f"{pair.p:.2g}"]
        marks += [mark, "", ""]
    shown = "".join(f'<td class="{mark}">{cell}</td>' for cell, mark in zip(cells, marks, strict=True))
    kind = ' class="reference"' if row.selector == reference else ""
    return f"<tr{kind}>{shown}</tr>"


def _scores(rows: list[Row], reference: str) -> str:
    """Scores with their intervals, best on top."""
    figure, axes = axes_of(0.9 + 0.27 * len(rows))
    for y, row in enumerate(reversed(rows)):
        colour = "#1d4ed8" if row.selector == reference else "#667085"
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([row.score], [y], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), [row.selector for row in reversed(rows)])
    axes.set(xlabel="mean score, 95 % interval", ylim=(-0.6, len(rows) - 0.4))
    return svg(figure)


def _differences(tables: list[Table]) -> str:
    """The reference's lead on every other selector, one line a table."""
    from matplotlib import colormaps

    others = list(dict.fromkeys(row.selector for t in tables for row in t.rows if row.against is not None))
    figure, axes = axes_of(1.3 + 0.1 * len(others) * (len(tables) + 2))
    colours = colormaps["tab10"]
    for i, table in enumerate(tables):
        label = f"{table.dataset}, {table.suite}, k = {table.k}"
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
    return svg(figure)
