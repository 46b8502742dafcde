"""The second calibration, optional, by a reader: everything in J that its answers can choose, for single queries.

The first calibration cannot see how one model takes a prompt. So its profile is measured (R9), and J is calibrated
again with it. Demonstrations that the neighbourhood of a query likes best often have one output, and a small model then
answers with it and is overconfident; a few demonstrations of a good static prompt in front (a prefix) show it the
others. Which end of the prompt a model attends to is its own. So a few recipes for prompts are tried on pool examples
that are held out: J with the profile of a capable reader or with the measured one; no prefix, the last half of the
reader's static prompt, or all of it; and the rest, chosen by J given the prefix, in J's own order or nearest first. The
log-loss on the true outputs decides, the 0-1 loss for a reader that gives no probabilities; of near-ties (one paired
standard error) the one with the fewest wrong answers, then the simplest.

Rejected: the log-loss at a fitted temperature, which decided before. Who reads probabilities reads them as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.calibration.calibration import Calibration, calibrate_pool
from kdprompt.calibration.held_out import encode_rows
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.readers.reader import Reader
from kdprompt.search.order_names import ORDERS
from kdprompt.search.ordering import NearestFirst, Order
from kdprompt.selection.candidates import find_static_candidates
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.per_query import solve_queries
from kdprompt.selection.traffic import QuerySample, Traffic, TrafficRequest, sample_queries
from kdprompt.settings import Settings
from kdprompt.theory.standard_error import is_within_one_standard_error
from kdprompt.tuning.answer_plan import HELD_OUT, AnswerPlan, plan_answers
from kdprompt.tuning.held_out import EvaluationOutcome, HeldOutEvaluation
from kdprompt.tuning.profile_measurement import ProfileMeasurement, UnusableAnswersError, fit_profile
from kdprompt.tuning.static_prompt import choose_by_reader

__all__ = ["calibrate_query_prompts"]

NAMES = {order: name.replace("-", " ") for name, order in ORDERS.items()}


@dataclass(frozen=True)
class _Recipe:
    """How a query's prompt may be made.

    Attributes:
        calibration: What J works with.
        order: Of what is chosen for the query; None: the order that the settings fix.
        prefix: What stands first ``[c]``.
        is_measured: Whether J knows the reader's measured profile.
    """

    calibration: Calibration
    order: Order | None
    prefix: Tensor
    is_measured: bool = False

    def __str__(self) -> str:
        """In words."""
        order = "" if self.order is None else f", {NAMES[type(self.order)]}"
        count = len(self.prefix)
        profile = ", its own profile" if self.is_measured else ""
        return (f"{count} demonstrations of its static prompt first" if count else "no prefix") + order + profile


def calibrate_query_prompts(
    pool: EmbeddedPool,
    traffic: Traffic | None,
    calibration: Calibration,
    settings: Settings,
    reader: Reader,
    max_answers: int | None = None,
) -> Calibration:
    """Chooses the profile of J, prefix and order for single queries by what a reader answers to pool examples.

    Args:
        pool: The pool.
        traffic: A sample of the traffic, without outputs; None takes the pool's own inputs.
        calibration: What J works with where the reader's answers are not better with its measured profile.
        settings: How many, under which limits; what is fixed is not tried otherwise.
        reader: Who answers.
        max_answers: Most answers that it may be asked for; ``plan_answers`` says what is left out for want of them.
            None is no limit.

    Returns:
        The calibration with order, prefix, what the reader knows itself and, in its source, the evidence.
        Deterministic for a seed, a pool and a deterministic reader.

    Raises:
        PoolError: The pool is too small, or has no outputs to compare with.
        ValueError: ``max_answers`` is too small for anything.
        TypeError: What is given is no reader.
    """
    sample = sample_queries(pool, traffic, settings, TrafficRequest())
    generator = torch.Generator().manual_seed(settings.seed + 1)  # other examples than the static prompt's
    candidates = find_static_candidates(pool.tensors, sample.encoded, settings.static.shortlist)
    rows = candidates.index[candidates.valid]
    context = calibration.query_context(pool, settings)
    held_out = HeldOutEvaluation.build(context, reader, rows, HELD_OUT, generator)
    plan = plan_answers(pool.tensors, settings, max_answers)
    measured, about = _measure(held_out, rows, settings, generator) if plan.profile else (None, "")
    static = _static_prompt(pool, sample, calibration, settings, held_out, plan)
    orders = (calibration.choose_order(pool.tensors.output_mode), NearestFirst()) if settings.order is None else (None,)
    recipes = _list_recipes(orders, calibration, static, _calibrate_for(measured, pool, traffic, settings))
    encoded = encode_rows(pool.tensors, held_out.held)
    neighbours = find_neighbours(pool.tensors, encoded, settings.search.shortlist)

    def try_recipe(recipe: _Recipe) -> EvaluationOutcome:
        changed = replace(recipe.calibration, order=recipe.order).query_context(pool, settings)
        prompts = solve_queries(changed, encoded, neighbours, recipe.prefix)
        return held_out.ask([[row for row in prompt if row >= 0] for prompt in prompts.tolist()])

    outcomes = [try_recipe(recipe) for recipe in recipes]
    best = _find_best(outcomes)
    recipe, plain = recipes[best], f"; {recipes[0]}: {outcomes[0]}" if best else ""
    source = (
        f"{recipe.calibration.source}; of {len(recipes)} ways to make prompts {reader.name} answered held-out examples "
        f"of the pool best with {recipe}: {outcomes[best]}{plain}{about}"
    )
    prefix = tuple(pool.demonstration(int(row)).id for row in recipe.prefix)
    return replace(recipe.calibration, order=recipe.order, prefix=prefix, source=source)


def _measure(
    held_out: HeldOutEvaluation, rows: Tensor, settings: Settings, generator: torch.Generator
) -> tuple[ProfileMeasurement | None, str]:
    """The reader's profile, measured on other examples than those held out, and what is to be said of it."""
    others, k = held_out.without_held_out(rows), settings.largest_k
    try:
        measured = fit_profile(held_out.context, held_out.reader, others, k, generator, held_out.labels)
    except UnusableAnswersError as error:
        return None, f"; its profile was not measured: {error}"
    return measured, f"; {measured}"


def _calibrate_for(
    measured: ProfileMeasurement | None, pool: EmbeddedPool, traffic: Traffic | None, settings: Settings
) -> Calibration | None:
    """J calibrated again for the measured reader; None where there is none, or J does not model the reader."""
    if measured is None:
        return None
    objective = settings.objective.model_copy(update={"profile": measured.profile})
    found = calibrate_pool(pool, traffic, settings.model_copy(update={"objective": objective}), measured.own)
    return found if found.parameters.weights.reader > 0 else None


def _static_prompt(
    pool: EmbeddedPool,
    sample: QuerySample,
    calibration: Calibration,
    settings: Settings,
    apart: HeldOutEvaluation,
    plan: AnswerPlan,
) -> Tensor:
    """The reader's static prompt ``[K]``; empty where the plan has no answers for it."""
    if plan.static_rounds is None:
        return torch.zeros(0, dtype=torch.long, device=pool.tensors.x.device)
    rounds = settings.static.model_copy(update={"rounds": plan.static_rounds})
    context = calibration.static_context(pool, settings.model_copy(update={"static": rounds}).for_static_prompt())
    rows = choose_by_reader(context, sample, apart.reader, apart).rows[0]
    return rows[rows >= 0]


def _list_recipes(
    orders: Sequence[Order | None], calibration: Calibration, static: Tensor, measured: Calibration | None
) -> list[_Recipe]:
    """The recipes, the simplest first."""
    half = static[len(static) - len(static) // 2 :]
    prefixes = [static[:0], *([half] if len(half) else [])]
    whole = [_Recipe(calibration, orders[0], static)] if len(static) else []
    plain = [_Recipe(calibration, order, prefix) for prefix in prefixes for order in orders]
    profiled = [] if measured is None else [_Recipe(measured, orders[0], prefix, True) for prefix in prefixes]
    return [*plain, *whole, *profiled]


def _find_best(outcomes: Sequence[EvaluationOutcome]) -> int:
    losses = [torch.tensor(outcome.losses, dtype=torch.float64) for outcome in outcomes]
    leader = min(losses, key=lambda loss: float(loss.mean()))
    tied = [i for i, loss in enumerate(losses) if is_within_one_standard_error(loss, leader)]
    return min(tied, key=lambda i: (sum(outcomes[i].wrong), i))
