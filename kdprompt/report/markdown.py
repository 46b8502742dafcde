"""A benchmark as Markdown tables: data sets side by side, one table for each suite and k."""

from pathlib import Path

from kdprompt.evaluate import Results
from kdprompt.evaluate.tables import Row, Table

__all__ = ["write_markdown"]


def write_markdown(results: Results, path: Path) -> None:
    """Writes the tables.

    Args:
        results: Of ``summarise``.
        path: The file; replaced where it exists.
    """
    groups: dict[tuple[str, int], list[Table]] = {}
    for table in results.tables:
        groups.setdefault((table.suite, table.k), []).append(table)
    parts = [_table(suite, k, tables) for (suite, k), tables in groups.items()]
    path.write_text("\n".join(parts), encoding="utf-8")


def _table(suite: str, k: int, tables: list[Table]) -> str:
    reference = tables[0].reference
    rows = {table.dataset: {row.selector: row for row in table.rows} for table in tables}
    names = list(dict.fromkeys(row.selector for table in tables for row in table.rows))
    names.sort(
        key=lambda name: (name != reference, -_mean([found[name].score for found in rows.values() if name in found]))
    )
    sizes = ", ".join(f"{table.dataset} {table.queries}" for table in tables)
    lines = [
        f"### {suite}, k = {k}",
        "",
        f"Score in %, log-loss in nats; in brackets {reference} less the row in points, paired bootstrap 95 %. "
        f"Queries: {sizes}.",
        "",
        "| selector | " + " | ".join(rows) + " | mean | tokens |",
        "| --- |" + " --- |" * len(rows) + " ---: | ---: |",
    ]
    for name in names:
        found = [group[name] for group in rows.values() if name in group]
        whole = len(found) == len(rows)
        mean = f"{100 * _mean([row.score for row in found]):.1f}" if whole else ""
        tokens = f"{_mean([row.tokens for row in found]):.0f}" if whole else ""
        cells = [_cell(group.get(name)) for group in rows.values()]
        lines.append(
            f"| {'**' + name + '**' if name == reference else name} | " + " | ".join([*cells, mean, tokens]) + " |"
        )
    return "\n".join([*lines, ""])


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    loss = "" if row.log_loss is None else f", {row.log_loss:.2f}"
    shown = f"{100 * row.score:.1f}{loss}"
    pair = row.against
    if pair is None:
        return shown
    drawn = "" if row.percentile is None else f"; above {row.percentile:.0%} of {len(row.draws)} draws"
    return f"{shown} ({pair.points}{drawn})"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
