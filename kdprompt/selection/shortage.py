"""Prompts that hold fewer demonstrations than were asked for: why, and whether a longer shortlist would help."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.pool.neighbours import Neighbours
from kdprompt.pool.query_tensors import find_allowed_rows
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.long_inputs import find_repeats
from kdprompt.settings import Settings
from kdprompt.theory.point_pairs import multiply_with_all

__all__ = ["LONGEST", "Shortage", "describe_shortage", "find_shortage"]

LONGEST = 1024  # candidates of a query, beyond which no more are looked for


@dataclass(frozen=True)
class Shortage:
    """Why a prompt holds fewer demonstrations than were asked for.

    Attributes:
        shown: Demonstrations of the prompt.
        considered: Candidates of the query: the nearest ones that are similar enough.
        allowed: Rows of the pool that may serve the query and are similar enough.
        free: Candidates that repeat none of those shown, and are not shown.
        nearest_below: Largest similarity of the rows that are not similar enough; None where there are none.
    """

    shown: int
    considered: int
    allowed: int
    free: int
    nearest_below: float | None = None

    @property
    def ends_with_the_shortlist(self) -> bool:
        """Whether rows that were not considered might be shown."""
        return self.free == 0 and self.considered < self.allowed


def find_shortage(context: SelectionContext, neighbours: Neighbours, rows: Tensor) -> Shortage:
    """The shortage of one prompt.

    Args:
        context: The pool and the settings.
        neighbours: The query and its candidates, as one row.
        rows: The prompt's rows of the pool ``[K]``, −1 pads.
    """
    shown, queries, pool = rows[rows >= 0], neighbours.queries, context.tensors
    candidates = neighbours.index[0][neighbours.valid[0]]
    allowed = find_allowed_rows(pool, queries)[0]
    nearest_below, least = None, context.settings.search.min_similarity
    if least is not None:
        similarity = multiply_with_all(queries.q, pool.x)[0]
        below = similarity[allowed & (similarity < least)]
        nearest_below = float(below.max()) if len(below) else None
        allowed &= similarity >= least
        candidates = candidates[similarity[candidates] >= least]
    both = torch.cat([candidates, shown])
    repeats = find_repeats(context, both[None])[0, : len(candidates), len(candidates) :].any(-1)
    return Shortage(len(shown), len(candidates), int(allowed.sum()), int((~repeats).sum()), nearest_below)


def describe_shortage(shortage: Shortage, settings: Settings) -> str:
    """The reason, in words; empty where k is ``"auto"`` and a prompt is short because J says so."""
    if shortage.free == 0 and shortage.nearest_below is not None and shortage.considered >= shortage.allowed:
        return _describe_floor(shortage, settings)
    if settings.k == "auto":
        return ""
    begin = f"{shortage.shown} of {settings.k} demonstrations: "
    repeats = f"repeats one that is shown (the same text, or a cosine of at least {settings.search.near_duplicate:g})"
    if shortage.free > 0:
        limits = [f"the budget of {settings.budget} tokens"] if settings.budget is not None else []
        limits += ["the quotas"] if settings.quota is not None else []
        return begin + f"none of the {shortage.free} others at hand fits {' and '.join(limits) or 'beside them'}"
    if shortage.considered < shortage.allowed:
        return begin + (
            f"each of the {shortage.considered} nearest examples, the shortlist, is shown or {repeats}; a larger "
            "SearchSettings(shortlist=…) looks further"
        )
    if shortage.allowed <= shortage.shown:
        return begin + (
            f"no more than {shortage.allowed} examples may be shown, by the task and the permitted outputs and without "
            "the query itself"
        )
    return begin + f"each of the other examples that may be shown {repeats}"


def _describe_floor(shortage: Shortage, settings: Settings) -> str:
    """That no example is similar enough, or no further one."""
    least = settings.search.min_similarity
    below = f"{shortage.nearest_below:.2f} to the query, below SearchSettings(min_similarity={least:g})"
    if shortage.shown == 0:
        return f"no example fits: the most similar one has a similarity of {below}; the prompt is empty"
    asked = "" if settings.k == "auto" else f" of {settings.k}"
    return f"{shortage.shown}{asked} demonstrations: no other example fits; the next has a similarity of {below}"
