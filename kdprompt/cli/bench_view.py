"""A benchmark on the terminal."""

from rich.table import Table

from kdprompt.cli.terminal import Terminal
from kdprompt.evaluate import Results
from kdprompt.evaluate.tables import Row
from kdprompt.evaluate.tables import Table as Compared

__all__ = ["show"]

PAIR = ("difference", "in nats", "win/tie/loss", "p")
WIDE = 152  # columns that one table needs; narrower terminals get two


def show(console: Terminal, results: Results) -> None:
    """Prints each table: scores, and the reference against every other selector."""
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # a file has room
    for compared in results.tables:
        what = [compared.dataset, compared.suite, f"k = {compared.k}", f"{compared.queries} queries", compared.reader]
        title = ", ".join(filter(None, what))
        rows = sorted(compared.rows, key=lambda row: -row.score)
        parts = [_scores, _comparison] if console.width < WIDE else [_whole]
        console.print(title, style="bold")
        for part in parts:
            part(table := Table(), compared, rows)
            console.print(table)
        if len(rows) > 1:
            console.print(
                f"difference: {compared.reference} less the row, in points of the score and in nats of the log-loss "
                "(below 0 it loses less), paired bootstrap 95 %; p: McNemar, Holm\n",
                style="dim",
            )


def _whole(table: Table, compared: Compared, rows: list[Row]) -> None:
    _columns(table, "score", "log-loss", "ECE", "one output", "tokens", "ms (p99)", *PAIR)
    for row in rows:
        table.add_row(row.selector, *_numbers(row), *_pair(row), style=_style(row, compared))


def _scores(table: Table, compared: Compared, rows: list[Row]) -> None:
    _columns(table, "score", "log-loss", "ECE", "one output", "tokens", "ms (p99)")
    for row in rows:
        table.add_row(row.selector, *_numbers(row), style=_style(row, compared))


def _comparison(table: Table, compared: Compared, rows: list[Row]) -> None:
    _columns(table, *PAIR)
    for row in rows:
        if row.against is not None:
            table.add_row(row.selector, *_pair(row))


def _columns(table: Table, *names: str) -> None:
    table.add_column("selector", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def _style(row: Row, compared: Compared) -> str | None:
    return "bold" if row.selector == compared.reference else None


def _numbers(row: Row) -> list[str]:
    def optional(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    alike = "" if row.one_output is None else f"{row.one_output:.0%}"
    shown = [f"{row.score:.3f}", optional(row.log_loss), optional(row.calibration_error), alike, f"{row.tokens:.0f}"]
    return [*shown, f"{row.p50:.1f} ({row.p99:.0f})"]


def _pair(row: Row) -> list[str]:
    pair = row.against
    if pair is None:
        return [""] * len(PAIR)
    nats = "" if row.loss_against is None else row.loss_against.nats
    return [pair.points, nats, f"{pair.wins}/{pair.ties}/{pair.losses}", f"{pair.p:.2g}"]
