"""Exact accounting of J: every number that a selection or an explanation shows.

The search may run in float32 on an accelerator. What is reported is computed again here, for the demonstrations that
were chosen, in float64 on the CPU and by the same objective. So a report carries no rounding of the search.
``late_accounts`` calls it when somebody looks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdprompt.objective.gram import compute_gram_blocks
from kdprompt.objective.objective import Objective, Terms
from kdprompt.objective.target import Target
from kdprompt.objective.weighted_sets import weighted_terms
from kdprompt.pool.neighbours import take_rows
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.pool.records import Query
from kdprompt.search.ordering import Order
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.notes import list_notes
from kdprompt.selection.origin import EXACT_DEVICE, ExactTarget
from kdprompt.selection.report_bounds import PromptNumbers, report_bounds
from kdprompt.selection.report_evidence import note_one_output, report_evidence
from kdprompt.selection.result import ChosenDemonstration, OutputEvidence, TermValues
from kdprompt.theory.bounds import generalisation_gap, interference

__all__ = ["Prompts", "compute_fields"]


@dataclass(frozen=True)
class Prompts:
    """Prompts to be accounted for.

    Attributes:
        queries: The query of each prompt, ``b`` of them; None for a static prompt.
        rows: Rows of the pool in reading order ``[b, K]``, −1 pads last.
        exact: The targets, ``b`` of them.
        encoded: The queries as tensors: ``b`` of them, or the sample that a static prompt serves.
        texts: Their texts.
        prefix_length: How many of the first demonstrations every prompt shares.
        sampled: Number of queries drawn from the query distribution, 0 where the target is no sample (R5).
        shortages: Why a prompt holds fewer than k demonstrations, by its place.
        notes: What the caller should know of how all of them were chosen.
    """

    queries: tuple[Query | None, ...]
    rows: Tensor
    exact: ExactTarget
    encoded: QueryTensors
    texts: tuple[str, ...]
    prefix_length: int = 0
    sampled: int = 0
    shortages: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> Tensor:
        """Task codes that the queries were given ``[b, q]``, −1 where none was."""
        return self.encoded.task.reshape(len(self.queries), -1)


@dataclass(frozen=True)
class _Ledger:
    """The exact tensors behind a report.

    Attributes:
        weights: Position weights ``[b, K]``.
        attention: a_i(q), mean over the queries ``[b, K]``.
        terms: Of the empty prompt, the prompt, its K prefixes, and it without each member ``[b, 2 + 2K]``.
        conflict: R6 by demonstration and query ``[b, K, q]``.
        other_task: Whether a demonstration's task differs from the query's ``[b, K, q]``.
        gap: R4's gap ``[b]``.
        kernel_max: Largest κ(q, q).
        evidence: What speaks for each output (R9), of each prompt; empty where outputs are no labels.
    """

    weights: Tensor
    attention: Tensor
    terms: Terms
    conflict: Tensor
    other_task: Tensor
    gap: Tensor
    kernel_max: float
    evidence: list[tuple[OutputEvidence, ...]]


def compute_fields(context: SelectionContext, prompts: Prompts) -> list[dict[str, Any]]:
    """Computes what is reported of prompts.

    Args:
        context: The pool, the settings and J's parameters.
        prompts: ``b`` prompts.

    Returns:
        Fields of ``Selection``, of each prompt: all but those that ``account`` knows already.
    """
    with torch.inference_mode():
        ledger = _compute(context, prompts)
    target = prompts.exact.value
    support = (target.support * target.query_mass[:, : target.queries]).sum(-1).tolist()
    cross_task = (ledger.conflict * ledger.other_task).sum((1, 2))
    label_conflict = (ledger.conflict.sum((1, 2)) - cross_task).tolist()
    estimates, members = _estimate_outputs(context.tensors, target), _list_members(context, prompts, ledger)
    before, after = _term_values(ledger.terms, 0), _term_values(ledger.terms, 1)
    gap = ledger.gap.tolist()
    one_output = _list_one_output_notes(context, ledger, members)
    fields: list[dict[str, Any]] = []
    for b, query in enumerate(prompts.queries):
        rows = [row for row in prompts.rows[b].tolist() if row >= 0]
        reason = prompts.shortages.get(b, "")
        tokens = [context.pool.count_tokens(row, context.settings) for row in rows]
        numbers = PromptNumbers(after[b], gap[b], ledger.kernel_max, context.tensors.value_radius, prompts.sampled)
        fields.append(
            dict(
                chosen=members[b],
                empty_terms=before[b],
                terms=after[b],
                cross_task=cross_task[b].item(),
                label_conflict=label_conflict[b],
                support=support[b],
                estimate=estimates[b],
                evidence=ledger.evidence[b],
                bounds=report_bounds(numbers, context.parameters.output_share, context.settings.delta),
                tokens=sum(tokens),
                prefix_tokens=sum(tokens[: prompts.prefix_length]),
                notes=(
                    *prompts.notes,
                    *list_notes(context, query, rows, prompts.prefix_length, support[b], reason),
                    *one_output[b],
                ),
            )
        )
    return fields


def _list_one_output_notes(
    context: SelectionContext, ledger: _Ledger, members: list[tuple[ChosenDemonstration, ...]]
) -> list[tuple[str, ...]]:
    """What each prompt has to say where it shows one output alone."""
    profile = context.parameters.profile
    most = profile.follow + profile.recency
    return [
        tuple(note_one_output(report, most)) if len(shown) > 1 else ()
        for report, shown in zip(ledger.evidence, members, strict=True)
    ]


def _compute(context: SelectionContext, prompts: Prompts) -> _Ledger:
    pool, parameters, order = context.tensors, context.parameters, context.settings.query_order
    rows, target = prompts.rows.to(EXACT_DEVICE), prompts.exact.value
    index = prompts.rows.to(pool.x.device).clamp_min(0)  # index first, then move
    x, v = (take_rows(values, index).to(target.x) for values in (pool.x, pool.v))
    blocks = compute_gram_blocks(parameters.kernel, x, v, target, pool.value_radius)
    reader = context.reader_loss(target)
    objective = Objective.build(blocks, parameters.output_share, parameters.weights, reader)
    arranged = torch.where(rows >= 0, torch.arange(rows.shape[1]), -1)
    sets = _list_sets(arranged)
    weightings = _weigh(sets, order, blocks.inputs_ss)
    weights, last = weightings[:, 1], _find_last(sets)
    terms = weighted_terms(objective, arranged, weightings, last)
    by_query = objective.query_weights[:, None, :]
    attended = interference(weights, objective.attention, torch.ones_like(objective.attention)) * by_query
    evidence: list[tuple[OutputEvidence, ...]] = [()] * len(rows)
    if reader is not None:
        shown = (weights[:, None, :] @ v).squeeze(1)
        with_none = torch.cat([v.new_zeros(len(v), 1, v.shape[2]), v], 1)
        at_end = with_none[torch.arange(len(rows)), last[:, 1] + 1]
        names = _name_labels(pool)
        evidence = report_evidence(reader, names, shown, at_end, objective.query_weights)
    return _Ledger(
        weights=weights,
        attention=attended.sum(-1),
        terms=terms,
        conflict=interference(weights, objective.attention, blocks.conflict) * by_query,
        other_task=_find_other_tasks(pool, target, index, prompts.tasks.to(EXACT_DEVICE)),
        gap=generalisation_gap(terms.complexity[:, 1], weights, delta=context.settings.delta),
        kernel_max=float(parameters.kernel.diagonal(target.x).amax()),
        evidence=evidence,
    )


def _list_sets(arranged: Tensor) -> Tensor:
    """The empty prompt, the prompt ``[b, K]``, its K prefixes, and it without each member, ``[b, 2 + 2K, K]``."""
    size = arranged.shape[1]
    place = torch.arange(size)
    whole = arranged[:, None, :]
    prefixes = torch.where(place <= place[:, None], whole, -1)  # row t keeps places 0 … t
    without = whole.expand(-1, size, -1).masked_fill(torch.eye(size, dtype=torch.bool), -1)
    return torch.cat([torch.full_like(whole, -1), whole, prefixes, without], 1)


def _find_last(sets: Tensor) -> Tensor:
    """The last place that is filled, −1 in an empty set: ``[b, P, K]`` to ``[b, P]``."""
    filled = torch.where(sets >= 0, torch.arange(sets.shape[-1]), -1)
    return torch.nn.functional.pad(filled, (1, 0), value=-1).amax(-1)


def _weigh(sets: Tensor, order: Order, like: Tensor) -> Tensor:
    """Position weights of sets ``[b, P, K]`` with gaps, which close up; zero at the gaps."""
    b, count, size = sets.shape
    flat = sets.reshape(b * count, size)
    place, closed = torch.arange(size), flat.ge(0).cumsum(-1) - 1  # the place of each kept member without the gaps
    table = order.weights(torch.where(place < flat.ge(0).sum(-1, keepdim=True), place, -1), like)
    return (table.gather(-1, closed.clamp_min(0)) * flat.ge(0)).reshape(b, count, size)


def _find_other_tasks(pool: PoolTensors, target: Target, index: Tensor, given: Tensor) -> Tensor:
    """Whether a demonstration's task differs from a query's, given or estimated, ``[b, K, q]``."""
    shown = pool.task[index].to(EXACT_DEVICE)[..., None]
    asked = torch.where(given >= 0, given, target.task)[:, None, :]
    return (shown != asked) & (shown >= 0) & (asked >= 0)


def _list_members(
    context: SelectionContext, prompts: Prompts, ledger: _Ledger
) -> list[tuple[ChosenDemonstration, ...]]:
    size, totals = prompts.rows.shape[1], ledger.terms.total
    path = torch.cat([totals[:, :1], totals[:, 2 : 2 + size]], 1)
    gain, marginal = path[:, :-1] - path[:, 1:], totals[:, 2 + size :] - totals[:, 1:2]
    numbers = torch.stack([ledger.weights, ledger.attention, gain, marginal, ledger.conflict.sum(-1)], -1).tolist()
    is_other = (ledger.other_task.to(totals.dtype).mean(-1) > 0.5).tolist()
    return [
        tuple(
            ChosenDemonstration(
                demonstration=context.pool.demonstration(row),
                weight=weight,
                attention=attention,
                gain=gain,
                marginal=marginal,
                interference=conflict,
                other_task=other,
            )
            for row, (weight, attention, gain, marginal, conflict), other in zip(*columns, strict=True)
            if row >= 0
        )
        for columns in zip(prompts.rows.tolist(), numbers, is_other, strict=True)
    ]


def _term_values(terms: Terms, weighting: int) -> list[TermValues]:
    """The terms of one weighting of each prompt."""
    names = TermValues.model_fields
    columns = (getattr(terms, name)[:, weighting].tolist() for name in names)
    return [TermValues(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _estimate_outputs(pool: PoolTensors, target: Target) -> list[dict[str, float]]:
    """The three likeliest outputs of each target with their estimated shares; labels only."""
    if pool.output_mode != "labels":
        return [{} for _ in range(target.x.shape[0])]
    mean = (target.v[:, : target.queries] * target.query_mass[:, : target.queries, None]).sum(1)
    names = _name_labels(pool)
    top = mean.topk(min(3, mean.shape[-1]), dim=-1)
    return [
        {names[code]: value for value, code in zip(values, codes, strict=True)}
        for values, codes in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def _name_labels(pool: PoolTensors) -> list[str]:
    """The outputs, each with its task before it where there are several tasks."""
    several_tasks = len({task for task, _ in pool.labels}) > 1
    return [f"{task}: {output}" if several_tasks and task else output for task, output in pool.labels]
