"""A benchmark as one HTML file: tables, intervals, and the prompts and answers behind them; nothing from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdprompt.evaluate import Cell, Results
from kdprompt.evaluate.cell import NO_READER, AnsweredPrompt
from kdprompt.evaluate.tables import Row, Table
from kdprompt.report.charts import Scale, Tick
from kdprompt.report.page import write_template
from kdprompt.short_repr import shorten

__all__ = ["write_page"]

LABELS, RIGHT, LINE = 150, 390, 18  # where labels end and lines end, and how high a line is, in units of the drawing
MOST_OPEN = 40  # lines of a chart that is shown at once; a longer one opens when it is asked for


@dataclass(frozen=True)
class _Interval:
    """A line of a chart: its label, the places of interval and mean, and what it says."""

    label: str
    y: float
    low: float
    high: float
    mean: float
    is_reference: bool
    says: str


@dataclass(frozen=True)
class _Chart:
    """Intervals one below the other.

    Attributes:
        lines: The intervals.
        ticks: Of their axis.
        zero: Place of the line at zero, or None.
        height: Of the drawing.
        unit: What the axis counts.
    """

    lines: list[_Interval]
    ticks: list[Tick]
    zero: float | None
    height: int
    unit: str

    @property
    def is_long(self) -> bool:
        """Whether it is longer than what is shown at once."""
        return len(self.lines) > MOST_OPEN


@dataclass(frozen=True)
class _Asked:
    """A query with the prompt and the answer of every selector."""

    text: str
    output: str
    answers: list[tuple[str, AnsweredPrompt]]


@dataclass(frozen=True)
class _Section:
    """One table with its rows from the best score to the worst, its chart, and the queries that are shown whole."""

    table: Table
    rows: list[Row]
    chart: _Chart
    asked: list[_Asked]


def write_page(results: Results, path: Path) -> None:
    """Writes the page.

    Args:
        results: Results of ``summarise``.
        path: The file; replaced where it exists.
    """
    comparing = [table for table in results.tables if len(table.rows) > 1]
    write_template(
        path,
        "benchmark",
        title="kdprompt benchmark",
        about=results.about,
        reference=comparing[0].reference if comparing else None,
        overview=_draw_differences(comparing),
        sections=[_section(table, results.cells) for table in results.tables],
    )


def _section(table: Table, cells: Sequence[Cell]) -> _Section:
    rows = sorted(table.rows, key=lambda row: -row.score)
    return _Section(table, rows, _draw_scores(rows, table.reference), _collect_answers(table, cells))


def _collect_answers(table: Table, cells: Sequence[Cell]) -> list[_Asked]:
    """The queries whose prompts and answers the table's cells hold, the reference's answer first."""
    inside = [
        cell
        for cell in cells
        if (cell.dataset, cell.suite, cell.k) == (table.dataset, table.suite, table.k)
        and cell.reader in (table.reader, NO_READER)
    ]
    asked: dict[int, _Asked] = {}
    for cell in sorted(inside, key=lambda cell: cell.selector != table.reference):
        for answered in cell.answered:
            query = asked.setdefault(answered.query, _Asked(answered.text, answered.output, []))
            query.answers.append((cell.selector, answered))
    return [asked[query] for query in sorted(asked)]


def _draw_scores(rows: Sequence[Row], reference: str) -> _Chart:
    """Scores with their intervals, the best on top."""
    numbers = [(row.selector, row.low, row.high, row.score, row.selector == reference) for row in rows]
    return _draw(numbers, "mean score, 95 % interval", digits=3)


def _draw_differences(tables: Sequence[Table]) -> _Chart | None:
    """The reference's score less that of every other selector, in points; labels say what tells the lines apart."""
    others = list(dict.fromkeys(row.selector for t in tables for row in t.rows if row.against is not None))
    named = [(table.dataset, table.suite, f"k = {table.k}", table.reader) for table in tables]
    varies = [len({names[place] for names in named}) > 1 for place in range(4)]
    numbers = []
    for other in others:
        for table, names in zip(tables, named, strict=True):
            told = [name for name, tells in zip((other, *names), (len(others) > 1, *varies), strict=True) if tells]
            for row in table.rows:
                if row.selector == other and (pair := row.against) is not None:
                    low, high, mean = 100 * pair.low, 100 * pair.high, 100 * pair.difference
                    numbers.append((", ".join(filter(None, told)) or other, low, high, mean, True))
    return _draw(numbers, "points", digits=1) if numbers else None


def _draw(numbers: Sequence[tuple[str, float, float, float, bool]], unit: str, *, digits: int) -> _Chart:
    ends = [end for _, low, high, *_ in numbers for end in (low, high)]
    scale = Scale.over(ends, LABELS + 8, RIGHT)
    lines = []
    for i, (label, low, high, mean, is_reference) in enumerate(numbers):
        says = f"{label}: {mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
        y = LINE * (i + 0.7)
        lines.append(_Interval(shorten(label, 26), y, scale(low), scale(high), scale(mean), is_reference, says))
    zero = scale(0.0) if unit == "points" and scale.low <= 0 <= scale.high else None
    return _Chart(lines, scale.ticks(), zero, LINE * len(numbers) + 36, unit)
