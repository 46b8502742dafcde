"""The second calibration, which is optional and asks a reader: what stands first in a query's prompt, in which order.

The first calibration cannot see how one model takes a prompt. Demonstrations that the neighbourhood of a query likes
best often have one output, and a small model then answers with it, far too sure of itself; a few demonstrations of a
good static prompt in front (a core) show it the others. And which end of the prompt it heeds is its own. So a few ways
to make prompts are tried on pool examples that are held out: the core is nothing, the last half of the reader's static
prompt, or all of it, and the rest, chosen by J given the core, stands likeliest last or nearest first. As in the first
calibration the 0–1 loss decides, and near-ties (one paired standard error) are decided by the log-loss at a fitted
temperature; without probabilities, by what is simpler.

Rejected: the plain log-loss. It takes a prompt that makes a reader hedge for one that makes it right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.calibration.pseudo_queries import query_tensors_of_rows
from kdprompt.errors import PoolError, QueryError
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.readers.reader import Reader
from kdprompt.search.ordering import LikeliestLast, NearestFirst, Order
from kdprompt.selection.embedded_pool import EmbeddedPool, Traffic, query_distribution
from kdprompt.selection.problem import query_rows, static_candidates
from kdprompt.selection.result import Selection
from kdprompt.settings import Settings
from kdprompt.theory.standard_error import is_within_one_standard_error
from kdprompt.tuning.held_out import EvaluationOutcome, HeldOutEvaluation
from kdprompt.tuning.static_prompt import static_rows

__all__ = ["Core", "by_core", "calibrate_query_prompts"]

Core = Selection | Sequence[str]
HELD_OUT = 192
NAMES = {LikeliestLast: "likeliest last", NearestFirst: "nearest first"}


@dataclass(frozen=True)
class _Way:
    """How a query's prompt may be made: the order of what is chosen for it, behind the core ``[c]``."""

    order: Order | None
    core: Tensor

    def __str__(self) -> str:
        """In words."""
        order = "" if self.order is None else f", {NAMES[type(self.order)]}"
        return (f"{len(self.core)} demonstrations of its static prompt first" if len(self.core) else "no core") + order


def calibrate_query_prompts(
    corpus: EmbeddedPool, traffic: Traffic | None, calibration: Calibration, settings: Settings, reader: Reader
) -> Calibration:
    """Chooses core and order for single queries by what a reader answers to pool examples.

    Args:
        corpus: The pool.
        traffic: A sample of the traffic, without outputs; None takes the pool's own inputs.
        calibration: What J works with; it stays.
        settings: How many, under which limits; an order that is pinned is not tried otherwise.
        reader: Who answers.

    Returns:
        The calibration with order, core and, in its source, the evidence. Deterministic for a seed, a pool and a
        deterministic reader.

    Raises:
        PoolError: The pool is too small, or has no outputs to compare with.
        TypeError: What is given is no reader.
    """
    wanted, _ = query_distribution(corpus, traffic, settings)
    generator = torch.Generator().manual_seed(settings.seed + 1)  # other examples than the static prompt's
    options = static_candidates(corpus.features, wanted, settings.static_shortlist)
    examination = HeldOutEvaluation.of(corpus, settings, reader, options.index[options.valid], HELD_OUT, generator)
    ways = _ways(settings, _static_prompt(corpus, wanted, calibration, settings, examination))
    pseudo = query_tensors_of_rows(corpus.features, examination.held)
    near = find_neighbours(corpus.features, pseudo, settings.shortlist)

    def outcome(way: _Way) -> EvaluationOutcome:
        under = replace(calibration, order=way.order).under(settings)
        rows = query_rows(corpus.features, pseudo, near, calibration, under, corpus.lengths, way.core)
        return examination.ask([[row for row in each if row >= 0] for each in rows.tolist()])

    outcomes = [outcome(way) for way in ways]
    best = _best(outcomes)
    way, plain = ways[best], f"; {ways[0]}: {outcomes[0]}" if best else ""
    source = (
        f"{calibration.source}; of {len(ways)} ways to make prompts {reader.name} answered held-out examples of the "
        f"pool best with {way}: {outcomes[best]}{plain}"
    )
    core = tuple(corpus.at(int(row)).id for row in way.core)
    return replace(calibration, order=way.order, core=core, source=source)


def by_core(
    corpus: EmbeddedPool, wanted: QueryTensors, calibration: Calibration, settings: Settings, given: Core | None
) -> list[tuple[Tensor, Tensor]]:
    """Which queries get which core.

    Args:
        corpus: The pool.
        wanted: The queries.
        calibration: Its core serves the queries that permit its outputs and are not in it; none of them, if one of its
            examples left the pool, or k or the budget shrank.
        settings: k and the budget.
        given: Another core, for all queries.

    Returns:
        Pairs of queries and rows of the features.

    Raises:
        PoolError, QueryError: The core that is given cannot stand, as ``EmbeddedPool.core``.
    """
    every = torch.arange(len(wanted), device=wanted.q.device)
    if given is not None:
        return [(every, corpus.core(given.ids if isinstance(given, Selection) else given, settings))]
    core, features = _core_in_force(corpus, calibration, settings), corpus.features
    takes = ~(wanted.own[:, None] == features.text[core]).any(-1)
    if wanted.permitted is not None:
        label = features.label[core]
        takes &= (wanted.permitted[:, label.clamp_min(0)] & (label >= 0)).all(-1)
    return [(rows, shown) for rows, shown in ((every[takes], core), (every[~takes], core[:0])) if len(rows)]


def _core_in_force(corpus: EmbeddedPool, calibration: Calibration, settings: Settings) -> Tensor:
    try:
        return corpus.core(calibration.core, settings)
    except (PoolError, QueryError):
        return corpus.core((), settings)


def _static_prompt(
    corpus: EmbeddedPool, wanted: QueryTensors, calibration: Calibration, settings: Settings, apart: HeldOutEvaluation
) -> Tensor:
    """The reader's static prompt ``[K]``; none for several tasks, which would stand in each other's prompts."""
    if len(corpus.features.tasks) > 1 or not settings.most:
        return corpus.core((), settings)
    rows, _ = static_rows(corpus, wanted, calibration, settings.static(), apart.reader, apart)
    return rows[0][rows[0] >= 0]


def _ways(settings: Settings, static: Tensor) -> list[_Way]:
    orders = (None,) if settings.order is not None else (LikeliestLast(), NearestFirst())
    half = static[len(static) - len(static) // 2 :]
    cores = [static[:0], *([half] if len(half) else [])]
    whole = [_Way(orders[0], static)] if len(static) else []
    return [*(_Way(order, core) for core in cores for order in orders), *whole]


def _best(outcomes: Sequence[EvaluationOutcome]) -> int:
    losses = [torch.tensor(outcome.wrong or outcome.losses, dtype=torch.float64) for outcome in outcomes]
    leader = min(losses, key=lambda each: float(each.mean()))
    tied = [i for i, each in enumerate(losses) if is_within_one_standard_error(each, leader)]
    return min(tied, key=lambda i: (outcomes[i].fitted_log_loss() or 0.0, i))
