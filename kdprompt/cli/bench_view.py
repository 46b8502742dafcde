"""A benchmark on the terminal."""

from rich.console import Console
from rich.table import Table

from kdprompt.evaluate import Results
from kdprompt.evaluate.summary import Row
from kdprompt.evaluate.summary import Table as Compared

__all__ = ["show"]


def show(console: Console, results: Results) -> None:
    """Prints each table: scores, and the reference against every other selector."""
    for table in results.tables:
        console.print(_table(table))


def _table(compared: Compared) -> Table:
    title = f"{compared.dataset}, {compared.suite}, k = {compared.k}, {compared.queries} queries"
    caption = f"difference: {compared.reference} less the row, paired bootstrap 95 %; p: McNemar, Holm-corrected"
    table = Table(title=title, title_justify="left", title_style="bold", caption=caption, caption_justify="left")
    table.add_column("selector", overflow="fold")
    for name in ("score", "log-loss", "ECE", "tokens", "shown", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    for name in ("win/tie/loss", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(compared.rows, key=lambda row: -row.score):
        style = "bold" if row.selector == compared.reference else None
        table.add_row(*_cells(row), style=style)
    return table


def _cells(row: Row) -> list[str]:
    numbers = [
        f"{row.score:.3f}",
        _number(row.log_loss),
        _number(row.calibration_error),
        f"{row.tokens:.0f}",
        f"{row.shown:.1f}",
        f"{row.p50:.1f}",
        f"{row.p99:.1f}",
    ]
    pair = row.against
    if pair is None:
        return [row.selector, *numbers, "", "", ""]
    difference = f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
    return [row.selector, *numbers, difference, f"{pair.wins}/{pair.ties}/{pair.losses}", f"{pair.p:.3g}"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
