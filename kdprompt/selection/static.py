"""The way from a sample of the traffic to one prompt that serves all of it."""

from torch import Tensor

from kdprompt.objective.target import estimate_sample_target
from kdprompt.pool.neighbours import Neighbours, find_neighbours
from kdprompt.selection.accounting import Prompts
from kdprompt.selection.candidates import find_static_candidates
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.origin import EXACT_DEVICE, EXACT_DTYPE
from kdprompt.selection.problem import SelectionProblem
from kdprompt.selection.traffic import QuerySample

__all__ = ["account_for_sample", "find_sample_neighbours", "solve_sample"]


def find_sample_neighbours(context: SelectionContext, sample: QuerySample) -> Neighbours:
    """The neighbours of the sample's queries; looked up once for a prompt."""
    return find_neighbours(context.tensors, sample.encoded, context.settings.search.shortlist)


def solve_sample(context: SelectionContext, sample: QuerySample, neighbours: Neighbours) -> Tensor:
    """The set of least J for the whole sample: rows of the pool in reading order ``[1, K]``."""
    pool = context.tensors
    candidates = find_static_candidates(pool, sample.encoded, context.settings.static.shortlist)
    target = estimate_sample_target(pool, neighbours, context.regression)
    return SelectionProblem.build(context, candidates, target).solve()


def account_for_sample(context: SelectionContext, sample: QuerySample, neighbours: Neighbours, rows: Tensor) -> Prompts:
    """A prompt's rows with the exact target by which they are accounted for."""
    exact = neighbours.to(EXACT_DEVICE, EXACT_DTYPE)
    target = estimate_sample_target(context.tensors, exact, context.regression)
    return Prompts((None,), rows, target, sample.encoded, sample.texts, sampled=sample.drawn)
