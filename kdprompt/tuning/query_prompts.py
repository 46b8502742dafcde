"""The second calibration, optional, by a reader: the prefix and the reading order of prompts for one query.

The first calibration cannot see how one model takes a prompt. Demonstrations that the neighbourhood of a query likes
best often have one output, and a small model then answers with it and is overconfident; a few demonstrations of a good
static prompt in front (a prefix) show it the others. Which end of the prompt a model attends to is its own. So a few
recipes for prompts are tried on pool examples that are held out: the prefix is empty, the last half of the reader's
static prompt, or all of it, and the rest, chosen by J given the prefix, stands in J's own order or nearest first. The
0–1 loss decides, and near-ties (one paired standard error) are decided by the log-loss at a
fitted temperature; without probabilities, by what is simpler.

Rejected: the plain log-loss. It takes a prompt that makes a reader hedge for one that makes it right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.calibration.pseudo_queries import encode_rows
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.readers.reader import Reader
from kdprompt.search.ordering import EvidenceLast, LikeliestLast, NearestFirst, Order
from kdprompt.selection.candidates import find_static_candidates
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.per_query import solve_queries
from kdprompt.selection.static import find_sample_neighbours
from kdprompt.selection.traffic import QuerySample, Traffic, TrafficRequest, sample_queries
from kdprompt.settings import Settings
from kdprompt.theory.standard_error import is_within_one_standard_error
from kdprompt.tuning.held_out import EvaluationOutcome, HeldOutEvaluation
from kdprompt.tuning.static_prompt import choose_by_reader

__all__ = ["calibrate_query_prompts"]

HELD_OUT = 192
NAMES = {EvidenceLast: "evidence last", LikeliestLast: "likeliest last", NearestFirst: "nearest first"}


@dataclass(frozen=True)
class _Recipe:
    """How a query's prompt may be made: the order of what is chosen for it, behind the prefix ``[c]``."""

    order: Order | None
    prefix: Tensor

    def __str__(self) -> str:
        """In words."""
        order = "" if self.order is None else f", {NAMES[type(self.order)]}"
        count = len(self.prefix)
        return (f"{count} demonstrations of its static prompt first" if count else "no prefix") + order


def calibrate_query_prompts(
    pool: EmbeddedPool, traffic: Traffic | None, calibration: Calibration, settings: Settings, reader: Reader
) -> Calibration:
    """Chooses prefix and order for single queries by what a reader answers to pool examples.

    Args:
        pool: The pool.
        traffic: A sample of the traffic, without outputs; None takes the pool's own inputs.
        calibration: What J works with; it stays.
        settings: How many, under which limits; an order that is fixed is not tried otherwise.
        reader: Who answers.

    Returns:
        The calibration with order, prefix and, in its source, the evidence. Deterministic for a seed, a pool and a
        deterministic reader.

    Raises:
        PoolError: The pool is too small, or has no outputs to compare with.
        TypeError: What is given is no reader.
    """
    sample = sample_queries(pool, traffic, settings, TrafficRequest())
    generator = torch.Generator().manual_seed(settings.seed + 1)  # other examples than the static prompt's
    candidates = find_static_candidates(pool.tensors, sample.encoded, settings.static.shortlist)
    rows = candidates.index[candidates.valid]
    held_out = HeldOutEvaluation.build(calibration.query_context(pool, settings), reader, rows, HELD_OUT, generator)
    order = EvidenceLast() if calibration.parameters.weights.reader > 0 else LikeliestLast()
    recipes = _list_recipes(settings, order, _static_prompt(pool, sample, calibration, settings, held_out))
    encoded = encode_rows(pool.tensors, held_out.held)
    neighbours = find_neighbours(pool.tensors, encoded, settings.search.shortlist)

    def try_recipe(recipe: _Recipe) -> EvaluationOutcome:
        context = replace(calibration, order=recipe.order).query_context(pool, settings)
        prompts = solve_queries(context, encoded, neighbours, recipe.prefix)
        return held_out.ask([[row for row in prompt if row >= 0] for prompt in prompts.tolist()])

    outcomes = [try_recipe(recipe) for recipe in recipes]
    best = _find_best(outcomes)
    recipe, plain = recipes[best], f"; {recipes[0]}: {outcomes[0]}" if best else ""
    source = (
        f"{calibration.source}; of {len(recipes)} ways to make prompts {reader.name} answered held-out examples of the "
        f"pool best with {recipe}: {outcomes[best]}{plain}"
    )
    prefix = tuple(pool.demonstration(int(row)).id for row in recipe.prefix)
    return replace(calibration, order=recipe.order, prefix=prefix, source=source)


def _static_prompt(
    pool: EmbeddedPool, sample: QuerySample, calibration: Calibration, settings: Settings, apart: HeldOutEvaluation
) -> Tensor:
    """The reader's static prompt ``[K]``; none for several tasks, which would stand in each other's prompts."""
    if len(pool.tensors.tasks) > 1 or not settings.largest_k:
        return torch.zeros(0, dtype=torch.long, device=pool.tensors.x.device)
    context = calibration.static_context(pool, settings.for_static_prompt())
    neighbours = find_sample_neighbours(context, sample)
    rows = choose_by_reader(context, sample, neighbours, apart.reader, apart).rows[0]
    return rows[rows >= 0]


def _list_recipes(settings: Settings, order: Order, static: Tensor) -> list[_Recipe]:
    orders = (None,) if settings.order is not None else (order, NearestFirst())
    half = static[len(static) - len(static) // 2 :]
    prefixes = [static[:0], *([half] if len(half) else [])]
    whole = [_Recipe(orders[0], static)] if len(static) else []
    return [*(_Recipe(order, prefix) for prefix in prefixes for order in orders), *whole]


def _find_best(outcomes: Sequence[EvaluationOutcome]) -> int:
    losses = [torch.tensor(outcome.wrong or outcome.losses, dtype=torch.float64) for outcome in outcomes]
    leader = min(losses, key=lambda loss: float(loss.mean()))
    tied = [i for i, loss in enumerate(losses) if is_within_one_standard_error(loss, leader)]
    return min(tied, key=lambda i: (outcomes[i].fitted_log_loss() or 0.0, i))
