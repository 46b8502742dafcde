"""Prompts that hold fewer demonstrations than were asked for: why, and whether a longer shortlist would help."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.pool.neighbours import Neighbours
from kdprompt.pool.query_tensors import find_allowed_rows
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.long_inputs import find_repeats
from kdprompt.settings import Settings

__all__ = ["LONGEST", "Shortage", "describe_shortage", "find_shortage"]

LONGEST = 1024  # candidates of a query, beyond which no more are looked for


@dataclass(frozen=True)
class Shortage:
    """Why a prompt holds fewer demonstrations than were asked for.

    Attributes:
        shown: Demonstrations of the prompt.
        considered: Candidates of the query: the nearest ones.
        allowed: Rows of the pool that may serve the query.
        free: Candidates that repeat none of those shown, and are not shown.
    """

    shown: int
    considered: int
    allowed: int
    free: int

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
    shown = rows[rows >= 0]
    candidates = neighbours.index[0][neighbours.valid[0]]
    both = torch.cat([candidates, shown])
    repeats = find_repeats(context, both[None])[0, : len(candidates), len(candidates) :].any(-1)
    allowed = int(find_allowed_rows(context.tensors, neighbours.queries).sum())
    return Shortage(len(shown), len(candidates), allowed, int((~repeats).sum()))


def describe_shortage(shortage: Shortage, settings: Settings) -> str:
    """The reason, in words."""
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
