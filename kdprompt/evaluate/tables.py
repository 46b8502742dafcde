"""What the cells of a benchmark say: tables of means with intervals, and paired comparisons with a reference."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from kdprompt.evaluate.runner import Cell
from kdprompt.evaluate.statistics import Paired, compare, holm, mean_interval

__all__ = ["Results", "Row", "Table", "joined", "summarise"]

FROZEN = ConfigDict(frozen=True)


class Row(BaseModel):
    """One selector in a table; means over the queries.

    Attributes:
        selector: The contender.
        score: Mean score, with its 95 % bootstrap interval in ``low`` and ``high``.
        low: Lower end.
        high: Upper end.
        log_loss: In nats; None where unknown.
        calibration_error: Expected calibration error; None where unknown.
        tokens: Of a whole prompt.
        shown: Demonstrations shown.
        off_task: Of these, of another task than the query's.
        p50: Median milliseconds of a selection.
        p99: 99th percentile.
        draws: Mean score of each draw, ascending.
        percentile: Share of the draws that the reference's mean score is above, ties counting half, in [0, 1]; None for
            a single draw and for the reference itself.
        against: The reference against this row, its p corrected by Holm's rule for the baselines of the table (for
            scores other than 0 and 1, and for means over draws, the sign test that it is); None for itself.
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
    against: Paired | None = None


class Table(BaseModel):
    """Everything that was compared on one data set, suite and k."""

    model_config = FROZEN

    dataset: str
    suite: str
    k: int
    queries: int
    reference: str
    rows: list[Row]


class Results(BaseModel):
    """A whole benchmark: what was run, its tables, and the cells behind them."""

    model_config = FROZEN

    about: dict[str, Any]
    tables: list[Table]
    cells: list[Cell]


def summarise(cells: Iterable[Cell], reference: str, about: dict[str, Any] | None = None, *, seed: int = 0) -> Results:
    """Tables from cells, one for each data set, suite and k.

    Args:
        cells: In any order.
        reference: The selector that is compared with all others.
        about: What was run, for the record.
        seed: Of the bootstrap.
    """
    kept = list(cells)
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in kept:
        groups.setdefault((cell.suite, cell.dataset, cell.k), []).append(cell)
    tables = [
        Table(
            dataset=dataset,
            suite=suite,
            k=k,
            queries=len(group[0].score),
            reference=reference,
            rows=_rows(group, reference, seed),
        )
        for (suite, dataset, k), group in groups.items()
    ]
    return Results(about=about or {}, tables=tables, cells=kept)


SAME = ("reader", "embedder", "split", "seed")  # what runs must have in common to stand in one table


def joined(parts: Sequence[Results], reference: str | None = None, *, seed: int = 0) -> Results:
    """One benchmark from several that asked the same queries, such as runs on several days or machines.

    Args:
        parts: At least one; where two hold the same cell, the later one stands.
        reference: The selector that is compared with all others; None takes that of the first.
        seed: Of the bootstrap.

    Raises:
        ValueError: They differ in reader, embedder, split, seed or the number of queries of a data set, or none of
            them has the reference.
    """
    first = parts[0].about
    cells: dict[tuple[str, str, int, str], Cell] = {}
    sizes: dict[str, int] = {}
    for part in parts:
        for name in SAME:
            if part.about.get(name) != first.get(name):
                raise ValueError(
                    f"benchmarks in one table must have the same {name}, got {first.get(name)!r} and "
                    f"{part.about.get(name)!r}"
                )
        for cell in part.cells:
            size = sizes.setdefault(cell.dataset, len(cell.score))
            if len(cell.score) != size:
                raise ValueError(
                    f"benchmarks in one table must ask the same queries, got {size} and {len(cell.score)} of the data "
                    f"set {cell.dataset!r}; run them under the same limit"
                )
            cells[cell.suite, cell.dataset, cell.k, cell.selector] = cell
    reference = reference or parts[0].tables[0].reference
    known = sorted({cell.selector for cell in cells.values()})
    if reference not in known:
        raise ValueError(f"the reference must be one of the selectors {known}, got {reference!r}")
    commands = list(dict.fromkeys(line for part in parts for line in str(part.about.get("command", "")).split("\n")))
    about = {**{name: first.get(name) for name in SAME}, "command": "\n".join(commands)}
    return summarise(cells.values(), reference, about, seed=seed)


def _rows(group: Sequence[Cell], reference: str, seed: int) -> list[Row]:
    own = next((cell for cell in group if cell.selector == reference), None)
    against: dict[str, Paired] = {}
    if own is not None:
        others = [cell for cell in group if cell.selector != reference]
        found = [compare(torch.tensor(own.score), torch.tensor(cell.score), seed=seed) for cell in others]
        corrected = holm([pair.p for pair in found])
        for cell, pair, p in zip(others, found, corrected, strict=True):
            against[cell.selector] = replace(pair, p=p)
    return [_row(cell, own, against.get(cell.selector), seed) for cell in group]


def _row(cell: Cell, reference: Cell | None, against: Paired | None, seed: int) -> Row:
    scores = torch.tensor(cell.score, dtype=torch.float64)
    percentile = None
    if reference is not None and against is not None and len(cell.draws) > 1:
        score = _mean(reference.score) or 0.0
        above = sum(score > draw + 1e-4 for draw in cell.draws) + 0.5 * sum(abs(score - d) <= 1e-4 for d in cell.draws)
        percentile = above / len(cell.draws)
    low, high = mean_interval(scores, seed=seed)
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
        percentile=percentile,
        against=against,
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
