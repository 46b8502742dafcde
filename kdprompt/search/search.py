"""Which demonstrations: exact greedy on J, swap refinement, under budgets, quotas and a ban on duplicates.

Greedy evaluates J itself for every candidate at every step; there is no surrogate. Refinement then swaps a member
for a candidate as long as J falls, so the result is never worse than greedy's. All problems of a batch advance
together. Ties within rounding go to the lowest candidate, whose id is the lowest.

Rejected: lazy greedy (J is not submodular with its penalties, so stale gains bound nothing) and a ratio of gain to
length under a budget (it fills prompts with short demonstrations).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.objective.objective import Objective
from kdprompt.search.constraints import Constraints

__all__ = ["GreedyPath", "cut_path", "greedy_search", "refine_by_swaps"]


@dataclass(frozen=True)
class GreedyPath:
    """What greedy did.

    Attributes:
        chosen: The fixed members and candidates in the order of choice ``[b, K]``, −1 where nothing more was feasible.
        totals: J of each prefix ``[b, K − fixed + 1]``, that of the fixed members alone first; +inf past the end.
        rounding: How far each of them may be off.
        satisfied: Whether each prefix meets the quotas' minima.
        fixed: Members that were given, 0 for an empty start.
    """

    chosen: Tensor
    totals: Tensor
    rounding: Tensor
    satisfied: Tensor
    fixed: int = 0


def first_minimum(values: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """The first index of ``values: [b, L]`` whose value is within its rounding of the smallest; value and index."""
    limit = (values + rounding).amin(-1, keepdim=True)
    index = (values <= limit).to(torch.uint8).argmax(-1)
    return values.gather(-1, index[:, None]).squeeze(-1), index


def greedy_search(objective: Objective, constraints: Constraints, k: int, fixed: int = 0) -> GreedyPath:
    """Adds, k times, the feasible candidate with the smallest resulting J, whether or not J falls.

    Args:
        objective: J of ``b`` problems.
        constraints: What may be chosen. A candidate that does not fit the budget is skipped, and the search goes on.
        k: Most demonstrations.
        fixed: How many of the first candidates are members from the start, at most k.

    Returns:
        The path; ``cut_path`` chooses how many of it to keep.
    """
    chosen = torch.full((objective.gram.shape[0], k), -1, dtype=torch.long, device=objective.gram.device)
    chosen[:, :fixed] = torch.arange(fixed, device=chosen.device)
    state = objective.state(chosen)
    start = objective.terms(state)
    totals, rounding, satisfied = [start.total], [objective.rounding(start)], [constraints.satisfied(state.chosen)]
    for step in range(fixed, k):
        allowed = constraints.addable(state.chosen, k - state.count)
        terms = objective.terms_with_each(state)
        least, index = first_minimum(terms.total.masked_fill(~allowed, torch.inf), objective.rounding(terms))
        state = objective.add_member(state, step, torch.where(least.isfinite(), index, -1))
        reached = objective.terms(state)
        totals.append(torch.where(least.isfinite(), reached.total, torch.inf))
        rounding.append(objective.rounding(reached))
        satisfied.append(constraints.satisfied(state.chosen))
    return GreedyPath(
        state.chosen, torch.stack(totals, -1), torch.stack(rounding, -1), torch.stack(satisfied, -1), fixed
    )


def cut_path(path: GreedyPath, tolerance: float = 0.0) -> Tensor:
    """How many of a path to keep (R8): the shortest prefix whose J is near enough to the smallest.

    Args:
        path: Greedy's.
        tolerance: Share of the largest possible fall of J, from the first prefix to the best one, that may be
            given up for a shorter prompt, in [0, 1].

    Returns:
        The sets ``[b, K]``; no member beside the fixed ones is an answer.
    """
    totals = path.totals.masked_fill(~path.satisfied & path.satisfied.any(-1, keepdim=True), torch.inf)
    spare = tolerance * (path.totals[:, :1] - totals.amin(-1, keepdim=True)).clamp_min(0)
    limit = (totals + path.rounding).amin(-1, keepdim=True) + spare
    size = path.fixed + (totals <= limit).to(torch.uint8).argmax(-1)
    place = torch.arange(path.chosen.shape[1], device=path.chosen.device)
    return torch.where(place < size[:, None], path.chosen, -1)


def refine_by_swaps(objective: Objective, constraints: Constraints, chosen: Tensor, fixed: int = 0) -> Tensor:
    """Swaps one member for one candidate, the best swap first, until no swap lowers J; sizes stay.

    Args:
        objective: J of ``b`` problems.
        constraints: Kept by every swap.
        chosen: Sets ``[b, K]``, −1 pads.
        fixed: How many of the first members stay.

    Returns:
        Sets ``[b, K]`` with J no larger.
    """
    chosen = chosen.clone()
    active = torch.arange(chosen.shape[0], device=chosen.device)
    active = active[(chosen[:, fixed:] >= 0).any(-1)]
    while active.numel():
        part, rules, sets = objective, constraints, chosen
        if active.numel() < chosen.shape[0]:  # all of them would be a copy
            part, rules, sets = objective.subset(active), constraints.subset(active), chosen[active]
        swapped = _best_swap(part, rules, sets, fixed)
        # Both sides by the same sums of the set alone, so that J falls strictly and the loop ends.
        before, after = part.terms(part.state(sets)), part.terms(part.state(swapped))
        better = after.total < before.total - torch.maximum(part.rounding(before), part.rounding(after))
        active = active[better]
        chosen[active] = swapped[better]
    return chosen


def _best_swap(objective: Objective, constraints: Constraints, chosen: Tensor, fixed: int) -> Tensor:
    """The sets ``[b, K]`` after the feasible swap with the smallest J; as they are where none is feasible."""
    best_by_slot = []
    for slot in range(fixed, chosen.shape[1]):
        rest = objective.state_without(chosen, slot)
        allowed = constraints.addable(rest.chosen, torch.ones_like(rest.count))
        allowed &= (chosen[:, slot] >= 0)[:, None]
        terms = objective.terms_with_each(rest)
        rounding = objective.rounding(terms)
        least, index = first_minimum(terms.total.masked_fill(~allowed, torch.inf), rounding)
        best_by_slot.append((least, rounding.gather(-1, index[:, None]).squeeze(-1), index))
    columns = [torch.stack(values, -1) for values in zip(*best_by_slot, strict=True)]
    totals, roundings, joins = columns
    least, leaves = first_minimum(totals, roundings)
    place = torch.arange(chosen.shape[1], device=chosen.device)
    swaps = (place == fixed + leaves[:, None]) & least.isfinite()[:, None]
    return torch.where(swaps, joins.gather(-1, leaves[:, None]), chosen)
