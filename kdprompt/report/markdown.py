"""A benchmark as Markdown tables: data sets side by side, one table for each suite, k and reader."""

import re
from pathlib import Path

from kdprompt.atomic_write import atomic_write
from kdprompt.evaluate import Results
from kdprompt.evaluate.tables import Row, Table
from kdprompt.printable import make_printable

__all__ = ["escape_markdown", "write_markdown"]

_MARKUP = re.compile(r"[\\`*\[\]<>|$~#&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escape_markdown(name: str) -> str:
    r"""A name as text of a Markdown table or heading: one line, with nothing in it that Markdown reads as markup.

    Example:
        >>> print(escape_markdown("a|b `c` $d$ e_f"))
        a\|b \`c\` \$d\$ e_f
    """
    return _MARKUP.sub(lambda sign: f"\\{sign[0]}", make_printable(" ".join(name.split())))


def write_markdown(results: Results, path: Path) -> None:
    """Writes the tables.

    Args:
        results: Results of ``summarise``.
        path: The file; replaced where it exists.
    """
    groups: dict[tuple[str, int, str], list[Table]] = {}
    for table in results.tables:
        groups.setdefault((table.suite, table.k, table.reader), []).append(table)
    atomic_write(path, "\n".join(_table(*key, tables) for key, tables in groups.items()))


def _table(suite: str, k: int, reader: str, tables: list[Table]) -> str:
    reference, reader = escape_markdown(tables[0].reference), escape_markdown(reader)
    rows = {table.dataset: {row.selector: row for row in table.rows} for table in tables}
    sizes = ", ".join(f"{escape_markdown(table.dataset)} {table.queries}" for table in tables)
    lines = [
        f"### {escape_markdown(suite)}, k = {k}" + (f", {reader}" if reader else ""),
        "",
        f"Score in %, log-loss in nats; in brackets {reference} less the row in points and in nats,",
        f"paired bootstrap 95 %. Queries: {sizes}.",
        "",
        "| selector | " + " | ".join(map(escape_markdown, rows)) + " | mean | one output | tokens |",
        "| --- |" + " --- |" * len(rows) + " ---: | ---: | ---: |",
    ]
    for name in _sort_selectors(tables):
        lines.append(_line(name, [by_selector.get(name) for by_selector in rows.values()], name == tables[0].reference))
    return "\n".join([*lines, ""])


def _sort_selectors(tables: list[Table]) -> list[str]:
    """The reference, then the others from the best mean score to the worst."""
    scores: dict[str, list[float]] = {}
    for row in (row for table in tables for row in table.rows):
        scores.setdefault(row.selector, []).append(row.score)
    return sorted(scores, key=lambda name: (name != tables[0].reference, -_mean(scores[name])))


def _line(name: str, rows: list[Row | None], is_reference: bool) -> str:
    """A selector on every data set; means are left out where it was not run on all of them."""
    known = [row for row in rows if row is not None]
    mean = tokens = alike = ""
    if len(known) == len(rows):
        mean = f"{100 * _mean([row.score for row in known]):.1f}"
        tokens = f"{_mean([row.tokens for row in known]):.0f}"
        shares = [row.one_output for row in known if row.one_output is not None]
        alike = f"{_mean(shares):.0%}" if len(shares) == len(rows) else ""
    title = f"**{escape_markdown(name)}**" if is_reference else escape_markdown(name)
    return "| " + " | ".join([title, *map(_cell, rows), mean, alike, tokens]) + " |"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    loss = "" if row.log_loss is None else f", {row.log_loss:.2f}"
    shown = f"{100 * row.score:.1f}{loss}"
    pair = row.against
    if pair is None:
        return shown
    draws = "" if row.percentile is None else f"; above {row.percentile:.0%} of {len(row.draws)} draws"
    losses = "" if row.loss_against is None else f"; {row.loss_against.nats}"
    return f"{shown} ({pair.points}{losses}{draws})"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
