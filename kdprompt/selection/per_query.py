"""The way from a query to its prompt: each line of ``select_per_query`` and ``solve_queries`` is one step of it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdprompt.objective.target import estimate_target
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.pool.neighbours import Neighbours, find_neighbours
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.pool.records import Query
from kdprompt.selection.accounting import Prompts
from kdprompt.selection.candidates import find_query_candidates
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.late_accounts import account
from kdprompt.selection.origin import ExactTarget
from kdprompt.selection.prefix import PrefixGroup
from kdprompt.selection.problem import SelectionProblem
from kdprompt.selection.result import Selection
from kdprompt.selection.shortage import LONGEST, describe_shortage, find_shortage

__all__ = ["choose_query_prompts", "select_in_groups", "select_per_query", "solve_queries"]

CHUNK = 128  # queries of one pass
FEW = 16  # the same with long shortlists
CELLS = 1 << 20  # of the Gram matrices of one pass


def select_in_groups(
    context: SelectionContext,
    queries: Sequence[Query],
    encoded: QueryTensors,
    groups: Sequence[PrefixGroup],
    progress: Callable[[int], object] | None = None,
) -> list[Selection]:
    """Chooses for many queries, group by group and in passes of limited size.

    Args:
        context: The pool, the settings and J's parameters.
        queries: As records.
        encoded: The same as tensors.
        groups: Which of them begin with which prefix; every query stands in one group.
        progress: Called with the number of queries done since the last call.

    Returns:
        One selection a query, in the order of the queries.
    """
    selections: dict[int, Selection] = {}
    for group in groups:
        for start in range(0, len(group.queries), CHUNK):
            part = group.queries[start : start + CHUNK]
            places = part.tolist()
            asked = encoded if len(part) == len(queries) else encoded.part(part)  # all of them, in their order
            batch = select_per_query(context, [queries[i] for i in places], asked, group.prefix)
            selections |= zip(places, batch, strict=True)
            if progress is not None:
                progress(len(places))
    return [selections[i] for i in range(len(queries))]


def select_per_query(
    context: SelectionContext, queries: Sequence[Query], encoded: QueryTensors, prefix: Tensor
) -> list[Selection]:
    """Chooses the demonstrations for each of ``b`` queries, and can account for them.

    Args:
        context: The pool, the settings and J's parameters.
        queries: As records.
        encoded: The same as tensors.
        prefix: Rows of the pool that stand first in every prompt ``[c]``.
    """
    return account(context, choose_query_prompts(context, queries, encoded, prefix))


def choose_query_prompts(
    context: SelectionContext, queries: Sequence[Query], encoded: QueryTensors, prefix: Tensor
) -> Prompts:
    """The rows of each query's prompt, with what they are accounted for by."""
    settings = context.settings
    least = 0 if settings.k == "auto" else settings.k
    with torch.inference_mode():  # an operation costs a fifth less where nobody can ask for its gradient
        neighbours = find_neighbours(context.tensors, encoded, max(settings.search.shortlist, least))
        rows = _solve_in_passes(context, encoded, neighbours, prefix)
        shortages = _fill_short_prompts(context, neighbours, rows, prefix)
    exact, texts = ExactTarget(context, encoded, neighbours), tuple(query.text for query in queries)
    return Prompts(tuple(queries), rows, exact, encoded, texts, len(prefix), shortages=shortages)


def _solve_in_passes(
    context: SelectionContext, encoded: QueryTensors, neighbours: Neighbours, prefix: Tensor
) -> Tensor:
    """As ``solve_queries``, for so many queries at a time that their Gram matrices stay near the processor."""
    size = max(1, CELLS // max(neighbours.index.shape[1], 1) ** 2)
    if len(encoded) <= size:
        return solve_queries(context, encoded, neighbours, prefix)
    parts = [slice(start, start + size) for start in range(0, len(encoded), size)]
    return torch.cat([solve_queries(context, encoded.part(part), neighbours.part(part), prefix) for part in parts])


def _fill_short_prompts(
    context: SelectionContext, neighbours: Neighbours, rows: Tensor, prefix: Tensor
) -> dict[int, str]:
    """Why prompts ``rows: [b, K]`` hold fewer than k, after longer shortlists where the first held repeats alone.

    Where k is ``"auto"``, why they hold none behind the prefix, if no example is similar enough.

    The rows change in place. Targets stay those of the first neighbours.
    """
    settings = context.settings
    if settings.k == "auto" and settings.search.min_similarity is None:
        return {}
    enough = len(prefix) + 1 if settings.k == "auto" else settings.k
    short = ((rows >= 0).sum(-1) < enough).nonzero().squeeze(-1).tolist()
    shortages = {b: find_shortage(context, neighbours.part(slice(b, b + 1)), rows[b]) for b in short}
    size = neighbours.index.shape[1]
    while settings.k != "auto" and (size := 4 * size) <= LONGEST:
        ended = [b for b, shortage in shortages.items() if shortage.ends_with_the_shortlist]
        for start in range(0, len(ended), FEW):
            places = torch.tensor(ended[start : start + FEW], device=rows.device)
            first = neighbours.part(places)
            longer = find_neighbours(context.tensors, first.queries, size)
            rows[places] = solve_queries(context, first.queries, first, prefix, longer)
            for i, b in enumerate(places.tolist()):
                shortages[b] = find_shortage(context, longer.part(slice(i, i + 1)), rows[b])
    return {b: describe_shortage(shortage, settings) for b, shortage in shortages.items() if shortage.shown < enough}


def solve_queries(
    context: SelectionContext,
    encoded: QueryTensors,
    neighbours: Neighbours,
    prefix: Tensor,
    options: Neighbours | None = None,
) -> Tensor:
    """A set of small J for each of ``b`` queries, behind the prefix: rows of the pool in reading order ``[b, K]``.

    Args:
        context: The pool, the settings and J's parameters.
        encoded: The queries.
        neighbours: By which their targets are estimated.
        prefix: Rows that stand first ``[c]``.
        options: Among which is searched; None: the neighbours.
    """
    pool, parameters = context.tensors, context.parameters
    nearest = neighbours if options is None else options
    candidates = find_query_candidates(pool, encoded, nearest, context.settings).with_prefix(prefix)
    rows = GatheredRows.take(pool, candidates.index, neighbours if candidates.index is neighbours.index else None)
    target = estimate_target(pool, neighbours, context.regression, parameters.neighbourhood, rows)
    return SelectionProblem.build(context, candidates, target, rows).solve()
