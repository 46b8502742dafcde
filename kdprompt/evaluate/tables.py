"""From cells of a benchmark to tables: means with intervals, and paired comparisons with a reference selector."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import ConfigDict

from kdprompt.evaluate.cell import NO_READER, Cell
from kdprompt.evaluate.statistics import PairedComparison, compare, correct_by_holm, mean_interval
from kdprompt.short_repr import Record

__all__ = ["Results", "Row", "Table", "join_results", "summarise"]

FROZEN = ConfigDict(frozen=True)


class Row(Record):
    """One selector in a table; means over the queries.

    Attributes:
        selector: Name of the selector.
        score: Mean score, in [0, 1].
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        log_loss: −log probability of the true label in nats; None where unknown.
        calibration_error: Expected calibration error, in [0, 1]; None where unknown.
        tokens: Length of the whole prompt in tokens.
        shown: Number of demonstrations in the prompt.
        off_task: Number of these that are of another task than the query.
        p50: Median of one query's selection in milliseconds.
        p99: 99th percentile in milliseconds.
        draws: Mean score of each draw, ascending.
        percentile: Share of the draws that are below the reference's mean score, ties counting half, in [0, 1]; None
            for a single draw and for the reference itself.
        against: The reference against this row, with p corrected by Holm's rule for the number of baselines in the
            table; None for the reference itself. For scores other than 0 and 1, and for means over draws, McNemar's
            test is the sign test.
        loss_against: The reference's log-loss less this row's, in nats: below 0 the reference loses less; None where
            either is unknown.
        one_output: Share of the prompts that show one output only, in [0, 1]; None where unknown.
    """

    model_config = FROZEN

    selector: str
    score: float
    low: float
    high: float
    log_loss: float | None
    calibration_error: float | None
    tokens: float
    shown: float
    off_task: float
    p50: float
    p99: float
    draws: list[float]
    percentile: float | None = None
    against: PairedComparison | None = None
    loss_against: PairedComparison | None = None
    one_output: float | None = None


class Table(Record):
    """All selectors on one data set, suite and k, with one reader; rows without a reader stand in the tables of all.

    Attributes:
        dataset: Name of the data set.
        suite: The stress suite; ``clean`` for none.
        k: Demonstrations asked for.
        queries: Number of queries.
        reference: Name of the selector that is compared with all others.
        rows: One row a selector.
        reader: Who answered.
    """

    model_config = FROZEN

    dataset: str
    suite: str
    k: int
    queries: int
    reference: str
    rows: list[Row]
    reader: str = ""


class Results(Record):
    """A whole benchmark.

    Attributes:
        about: What was run: command, reader, embedder, split, seed.
        tables: One table a data set, suite and k.
        cells: The numbers of each query that the tables are made from.
    """

    model_config = FROZEN

    about: dict[str, Any]
    tables: list[Table]
    cells: list[Cell]


Progress = Callable[[int, int], object]
"""Is told how many tables are done, and of how many."""


def summarise(
    cells: Iterable[Cell],
    reference: str,
    about: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Makes tables from cells, one for each reader, data set, suite and k.

    Args:
        cells: Cells in any order.
        reference: Name of the selector that is compared with all others.
        about: What was run.
        seed: Seed of the bootstrap.
        progress: Called when a table is done.
    """
    all_cells = list(cells)
    readers = list(dict.fromkeys(cell.reader for cell in all_cells if cell.reader != NO_READER)) or [NO_READER]
    groups: dict[tuple[str, str, str, int], list[Cell]] = {}
    without_last = sorted(all_cells, key=lambda cell: cell.reader == NO_READER)
    for reader, cell in ((reader, cell) for reader in readers for cell in without_last):
        if cell.reader in (reader, NO_READER):
            groups.setdefault((reader, cell.suite, cell.dataset, cell.k), []).append(cell)
    tables = []
    for (reader, suite, dataset, k), group in groups.items():
        about_table: dict[str, Any] = {
            "dataset": dataset,
            "suite": suite,
            "k": k,
            "queries": len(group[0].score),
            "reader": reader,
        }
        tables.append(Table(**about_table, reference=reference, rows=_rows(group, reference, seed)))
        if progress is not None:
            progress(len(tables), len(groups))
    return Results(about=about or {}, tables=tables, cells=all_cells)


SHARED_SETTINGS = ("embedder", "split", "seed")  # what runs must have in common to stand in one table


def join_results(
    parts: Sequence[Results], reference: str | None = None, *, seed: int = 0, progress: Progress | None = None
) -> Results:
    """Makes one benchmark from several that asked the same queries, such as runs with several readers or on other days.

    Args:
        parts: At least one benchmark; where two hold the same cell, the later one counts.
        reference: Name of the selector that is compared with all others; None takes that of the first benchmark.
        seed: Seed of the bootstrap.
        progress: Called when a table is done.

    Raises:
        ValueError: They differ in embedder, split, seed or the number of queries of a data set, or none of them has
            the reference.
    """
    first = parts[0].about
    for part in parts:
        _check_shared_settings(first, part.about)
    cells = _join_cells(parts)
    reference = reference or parts[0].tables[0].reference
    known = sorted({cell.selector for cell in cells})
    if reference not in known:
        raise ValueError(f"the reference must be one of the selectors {known}, got {reference!r}")
    commands = list(dict.fromkeys(line for part in parts for line in str(part.about.get("command", "")).split("\n")))
    readers = list(dict.fromkeys(cell.reader for cell in cells if cell.reader not in ("", NO_READER)))
    shared = {name: first.get(name) for name in SHARED_SETTINGS}
    about = {"reader": ", ".join(readers), **shared, "command": "\n".join(commands)}
    return summarise(cells, reference, about, seed=seed, progress=progress)


def _check_shared_settings(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for name in SHARED_SETTINGS:
        if other.get(name) != first.get(name):
            raise ValueError(
                f"benchmarks in one table must have the same {name}, got {first.get(name)!r} and {other.get(name)!r}"
            )


def _join_cells(parts: Sequence[Results]) -> list[Cell]:
    """The cells of several benchmarks, the later one of two on the same reader, selector, data set, suite and k."""
    cells: dict[tuple[str, str, str, int, str], Cell] = {}
    sizes: dict[str, int] = {}
    for cell in (_name_reader(cell, part) for part in parts for cell in part.cells):
        size = sizes.setdefault(cell.dataset, len(cell.score))
        if len(cell.score) != size:
            raise ValueError(
                f"benchmarks in one table must ask the same queries, got {size} and {len(cell.score)} of the data "
                f"set {cell.dataset!r}; run them under the same limit"
            )
        cells[cell.reader, cell.suite, cell.dataset, cell.k, cell.selector] = cell
    return list(cells.values())


def _name_reader(cell: Cell, part: Results) -> Cell:
    """The cell with its reader, which files of before state once for all cells."""
    return cell if cell.reader else cell.model_copy(update={"reader": str(part.about.get("reader", ""))})


def _rows(group: Sequence[Cell], reference: str, seed: int) -> list[Row]:
    """A row for each cell of one table."""
    reference_cell = next((cell for cell in group if cell.selector == reference), None)
    comparisons: dict[str, PairedComparison] = {}
    if reference_cell is not None:
        scores = torch.tensor(reference_cell.score)
        others = [cell for cell in group if cell.selector != reference]
        plain = [compare(scores, torch.tensor(cell.score), seed=seed) for cell in others]
        corrected = correct_by_holm([comparison.p for comparison in plain])
        for cell, comparison, p in zip(others, plain, corrected, strict=True):
            comparisons[cell.selector] = replace(comparison, p=p)
    return [_row(cell, reference_cell, comparisons.get(cell.selector), seed) for cell in group]


def _row(cell: Cell, reference: Cell | None, against: PairedComparison | None, seed: int) -> Row:
    scores = torch.tensor(cell.score, dtype=torch.float64)
    low, high = mean_interval(scores, seed=seed)
    loss_against = None
    if reference is not None and cell is not reference and cell.log_loss and reference.log_loss:
        loss_against = compare(torch.tensor(reference.log_loss), torch.tensor(cell.log_loss), seed=seed)
    compared = reference is not None and against is not None and len(cell.draws) > 1
    return Row(
        selector=cell.selector,
        score=float(scores.mean()),
        low=low,
        high=high,
        log_loss=_mean(cell.log_loss),
        calibration_error=cell.calibration_error,
        tokens=_mean(cell.tokens) or 0.0,
        shown=_mean(cell.shown) or 0.0,
        off_task=_mean(cell.off_task) or 0.0,
        p50=cell.latency.p50,
        p99=cell.latency.p99,
        draws=sorted(cell.draws),
        percentile=_percentile(_mean(reference.score) or 0.0, cell.draws) if reference and compared else None,
        against=against,
        loss_against=loss_against,
        one_output=_mean(cell.one_output),
    )


def _percentile(score: float, draws: Sequence[float]) -> float:
    """Share of the draws that are below a score, in [0, 1]; draws within 1e-4 of it count half."""
    below = sum(score > draw + 1e-4 for draw in draws) + 0.5 * sum(abs(score - draw) <= 1e-4 for draw in draws)
    return below / len(draws)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
