"""The way from a sample of the traffic to one prompt that serves all of it.

Where J is the MMD alone, without limits, all rows are candidates and no Gram matrix of them is made. Otherwise the rows
nearest to the queries are, ``settings.static.shortlist`` of them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from kdprompt.objective.target import Target, assume_sample_target, estimate_sample_target
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.pool.query_tensors import QueryTensors, find_allowed_rows
from kdprompt.search.mean_search import MeanProblem, search_by_means
from kdprompt.selection.accounting import Prompts
from kdprompt.selection.candidates import Candidates, find_static_candidates
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.origin import ExactTarget
from kdprompt.selection.problem import SelectionProblem
from kdprompt.selection.traffic import QuerySample

__all__ = ["account_for_sample", "find_sample_target", "solve_target"]

CHUNK = 128  # queries whose allowed rows are held at a time


def find_sample_target(context: SelectionContext, queries: QueryTensors) -> Target:
    """The target of the sample's queries; their outputs are estimated if the choice looks at them."""
    pool, settings = context.tensors, context.settings
    looks_at_inputs_alone = _weighs_means_alone(context) and context.parameters.output_share == 0
    if looks_at_inputs_alone and not settings.query_order.reads_outputs:
        return assume_sample_target(pool, queries)
    neighbours = find_neighbours(pool, queries, settings.search.shortlist)
    return estimate_sample_target(pool, neighbours, context.regression)


def solve_target(
    context: SelectionContext, queries: QueryTensors, target: Target, among: Tensor | None = None
) -> Tensor:
    """A set of small J for a target: rows of the pool in reading order ``[1, K]``.

    Args:
        context: The pool, the settings and J's parameters.
        queries: Rows must serve one of them.
        target: One target.
        among: Rows that may be chosen ``[L]``, in the order of ids; None: all, or the nearest.
    """
    if among is None and _weighs_means_alone(context):
        return _solve_by_means(context, queries, target)
    if among is None:
        candidates = find_static_candidates(context.tensors, queries, context.settings.static.shortlist)
    else:
        candidates = Candidates(among[None], torch.ones_like(among, dtype=torch.bool)[None])
    return SelectionProblem.build(context, candidates, target).solve()


def _weighs_means_alone(context: SelectionContext) -> bool:
    """Whether J is the MMD alone, and nothing but duplicates limits its sets."""
    settings, weights = context.settings, context.parameters.weights
    others = weights.complexity + weights.interference + weights.reader
    is_free = settings.budget is None and settings.quota is None and settings.k != "auto"
    return is_free and weights.bias > 0 and others == 0


def _solve_by_means(context: SelectionContext, queries: QueryTensors, target: Target) -> Tensor:
    """A set of small MMD among all rows: rows of the pool in reading order ``[1, K]``."""
    pool, parameters, settings = context.tensors, context.parameters, context.settings
    problem = MeanProblem(
        x=pool.x,
        v=pool.v,
        kernel=parameters.kernel,
        output_share=parameters.output_share,
        text=pool.text,
        near_duplicate=settings.search.near_duplicate,
        allowed=_find_served_rows(context, queries),
        place=pool.place(torch.arange(len(pool.x), device=pool.x.device)),
    )
    points = problem.find_points(target.x[0])
    mean = problem.evaluate_mean(target.x[0], target.v[0], target.weights[0], points)
    if points is not None and parameters.output_share == 0:  # μ_Q is known at every point of the target
        target = replace(target, squared_norm=(target.weights[:, points] * mean).sum(-1))
    chosen = torch.tensor(search_by_means(problem, mean, settings.largest_k), dtype=torch.long, device=pool.x.device)
    if not len(chosen):
        return chosen.new_full((1, settings.largest_k), -1)
    index = pool.sort_rows(chosen)
    candidates = Candidates(index[None], torch.ones_like(index, dtype=torch.bool)[None])
    places = (chosen[:, None] == index).to(torch.uint8).argmax(-1)
    padded = torch.nn.functional.pad(places, (0, settings.largest_k - len(places)), value=-1)
    return SelectionProblem.build(context, candidates, target).arrange(padded[None])


def _find_served_rows(context: SelectionContext, queries: QueryTensors) -> Tensor:
    """Rows that may serve one of the queries, whatever its own text, boolean ``[n]``."""
    pool = context.tensors
    everywhere = replace(queries, excluded_text=torch.full_like(queries.excluded_text, -1))
    served = torch.zeros(len(pool.x), dtype=torch.bool, device=pool.x.device)
    for start in range(0, len(queries), CHUNK):
        served |= find_allowed_rows(pool, everywhere.part(slice(start, start + CHUNK))).any(0)
        if bool(served.all()):
            break
    return served


def account_for_sample(
    context: SelectionContext, sample: QuerySample, rows: Tensor, notes: tuple[str, ...] = ()
) -> Prompts:
    """A prompt's rows with what they are accounted for by, and notes of their choice behind those of the sample."""
    exact = ExactTarget(context, sample.encoded, is_static=True)
    said = (*sample.notes, *notes)
    return Prompts((None,), rows, exact, sample.encoded, sample.texts, sampled=sample.drawn, notes=said)
