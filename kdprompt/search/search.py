"""Which demonstrations: greedy search on J, swap refinement, under budgets, quotas and a ban on duplicates.

Greedy evaluates J itself for every candidate at every step; there is no surrogate. Refinement then swaps a member
for a candidate as long as J falls, so the result is never worse than greedy's, and no single swap improves it. That is
a local minimum: to find the set of least J would take a search of all sets. All problems of a batch advance together.
What the rounding of a Gram entry cannot tell apart goes to the lowest candidate, whose id is the lowest.

Rejected: lazy greedy (J is not submodular with its penalties, so stale gains bound nothing) and a ratio of gain to
length under a budget (it fills prompts with short demonstrations).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdprompt.objective.changed_sets import GrowingSets, sum_swaps
from kdprompt.objective.objective import Objective
from kdprompt.objective.set_state import SetSums, Terms, gather_rows
from kdprompt.search.constraints import Constraints

__all__ = ["GreedyPath", "cut_path", "greedy_search", "refine_by_swaps"]

PASS = 1 << 22  # numbers of one pass over places and candidates


@dataclass(frozen=True)
class GreedyPath:
    """What greedy did. What it cost, and which quotas it meets, is computed where it is asked for.

    Attributes:
        chosen: The fixed members and candidates in the order of choice ``[b, K]``, −1 where nothing more was feasible.
        fixed: Members that were given, 0 for an empty start.
        objective: J.
        constraints: What might be chosen.
        reached: J of the whole path as the search saw it ``[b]``, +inf where it ended early; None: it has no steps.
    """

    chosen: Tensor
    fixed: int
    objective: Objective
    constraints: Constraints
    reached: Tensor | None = None

    @cached_property
    def _terms(self) -> list[Terms]:
        return [self.objective.terms(self.objective.state(prefix)) for prefix in self._prefixes]

    @property
    def _prefixes(self) -> list[Tensor]:
        place = torch.arange(self.chosen.shape[1], device=self.chosen.device)
        sizes = range(self.fixed, self.chosen.shape[1] + 1)
        return [torch.where(place < size, self.chosen, -1) for size in sizes]

    @property
    def totals(self) -> Tensor:
        """J of each prefix ``[b, K − fixed + 1]``, that of the fixed members alone first; +inf past the end."""
        totals = torch.stack([terms.total for terms in self._terms], -1)
        past = (self.chosen[:, self.fixed :] < 0).cummax(-1).values if self.chosen.shape[1] > self.fixed else None
        if past is not None:
            totals[:, 1:].masked_fill_(past, torch.inf)
        return totals

    @property
    def rounding(self) -> Tensor:
        """How far each of them may be off."""
        return torch.stack([self.objective.rounding(terms.total, terms.bias) for terms in self._terms], -1)

    @property
    def satisfied(self) -> Tensor:
        """Whether each prefix meets the quotas' minima."""
        return torch.stack([self.constraints.satisfied(prefix) for prefix in self._prefixes], -1)


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
    b, device = objective.gram.shape[0], objective.gram.device
    chosen = torch.full((b, k), -1, dtype=torch.long, device=device)
    chosen[:, :fixed] = torch.arange(fixed, device=device)
    growing, blocked = GrowingSets(objective, chosen[:, :fixed]), ~constraints.open_to(chosen[:, :fixed])
    steps: list[_Lowest] = []
    for step in range(fixed, k):
        barred = blocked
        if constraints.has_limits:
            left = torch.full((b, 1), k - step, device=device)
            barred = ~constraints.limit(chosen[:, None], left, ~blocked[:, None])[:, 0]
        lowest = _find_lowest(objective, growing.sums, barred)
        steps.append(lowest)
        if step + 1 < k:
            growing.add(lowest.place)
            blocked |= gather_rows(constraints.duplicate, lowest.place).squeeze(1)
            if constraints.has_limits:  # what cannot grow now never can
                ends = lowest.limit == torch.inf
                chosen[:, step : step + 1] = torch.where(ends, -1, lowest.place)
                blocked |= ends
    if not steps:
        return GreedyPath(chosen, fixed, objective, constraints)
    found = torch.cat([lowest.limit for lowest in steps], -1) < torch.inf
    chosen[:, fixed:] = torch.where(found, torch.cat([lowest.place for lowest in steps], -1), -1)
    return GreedyPath(chosen, fixed, objective, constraints, steps[-1].least)


@dataclass(frozen=True)
class _Lowest:
    """Where J is least among sets ``[b, …]``, flattened to ``[b, N]``.

    Attributes:
        total: J, +inf where a set is barred ``[b, N]``.
        limit: J up to which a set cannot be told from the best one ``[b, 1]``; +inf where all are barred.
        place: The first such set ``[b, 1]``.
    """

    total: Tensor
    limit: Tensor
    place: Tensor

    @property
    def least(self) -> Tensor:
        """J of this set ``[b]``."""
        return self.total.gather(-1, self.place).squeeze(-1)


def _find_lowest(objective: Objective, sums: SetSums, barred: Tensor) -> _Lowest:
    """The set of least J in each problem, of sets that are not ``barred: [b, …]``."""
    total, bias = objective.evaluate(sums)
    total.masked_fill_(barred, torch.inf)
    limit = objective.find_limit(total, bias, sums.divisor)
    total = total.flatten(1) if total.ndim > 2 else total
    return _Lowest(total, limit, (total <= limit).view(torch.uint8).argmax(-1, keepdim=True))


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


def refine_by_swaps(
    objective: Objective, constraints: Constraints, chosen: Tensor, fixed: int = 0, reached: Tensor | None = None
) -> Tensor:
    """Swaps one member for one candidate, the best swap first, until no swap lowers J; sizes stay.

    Args:
        objective: J of ``b`` problems.
        constraints: Kept by every swap.
        chosen: Sets ``[b, K]``, −1 pads.
        fixed: How many of the first members stay.
        reached: J of the sets ``[b]`` where it is at hand.

    Returns:
        Sets ``[b, K]`` with J no larger.
    """
    chosen = chosen.clone()
    reached = objective.evaluate(objective.state(chosen))[0] if reached is None else reached.clone()
    active = (chosen[:, fixed:] >= 0).any(-1).nonzero().squeeze(-1)
    while active.numel():
        part, rules, sets = objective, constraints, chosen
        if active.numel() < chosen.shape[0]:  # all of them would be a copy
            part, rules, sets = objective.subset(active), constraints.subset(active), chosen[active]
        swap = _find_best_swap(part, rules, sets, fixed)
        # J as it was reached falls strictly, whatever the rounding of the sums, so that the loop ends.
        before = reached if active.numel() == chosen.shape[0] else reached[active]
        better = swap.limit < before
        if not bool(better.any()):
            break
        active = active[better]
        chosen[active, swap.leaves[better]] = swap.joins[better]
        reached[active] = swap.total[better]
    return chosen


@dataclass(frozen=True)
class _Swap:
    """One swap in each problem: J after it, and what it may be at most, the place that changes, who comes; ``[b]``."""

    total: Tensor
    limit: Tensor
    leaves: Tensor
    joins: Tensor


def _find_best_swap(objective: Objective, constraints: Constraints, chosen: Tensor, fixed: int) -> _Swap:
    """The feasible swap with the smallest J in each problem; J is +inf where none is feasible."""
    b, size = chosen.shape
    candidates = objective.gram.shape[-1]
    width = max(objective.query_weights.shape[-1] * max(objective.outputs.shape[-1], 1), 2)
    step = max(1, PASS // max(b * candidates * width, 1))
    best: list[_Swap] = []
    for start in range(fixed, size, step):
        places = slice(start, start + step)
        sums, barred = sum_swaps(objective, chosen, places), ~constraints.replaceable(chosen, places)
        lowest = _find_lowest(objective, sums, barred)
        place = lowest.place.squeeze(-1)
        leaves = start + place.div(candidates, rounding_mode="floor")
        best.append(_Swap(lowest.least, lowest.limit.squeeze(-1), leaves, place % candidates))
    if len(best) == 1:
        return best[0]
    first = torch.stack([swap.total for swap in best]).min(0).indices[None]
    columns = (
        torch.stack(column).gather(0, first)[0] for column in zip(*(vars(swap).values() for swap in best), strict=True)
    )
    return _Swap(*columns)
