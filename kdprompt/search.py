"""Which demonstrations: exact greedy on J, swap refinement, under budgets, quotas and a ban on duplicates.

Greedy evaluates J itself for every candidate at every step; there is no surrogate. Refinement then swaps a member
for a candidate as long as J falls, so the result is never worse than greedy's. All problems of a batch advance
together. Ties within rounding go to the lowest candidate, whose id is the lowest.

Rejected: lazy greedy (J is not submodular with its penalties, so stale gains bound nothing) and a ratio of gain to
length under a budget (it fills prompts with short demonstrations).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.objective import Objective, State

__all__ = ["Constraints", "Path", "best_prefix", "greedy", "refine"]


@dataclass(frozen=True)
class Constraints:
    """What may be chosen, for ``b`` problems with ``L`` candidates.

    Attributes:
        valid: Candidates that exist and are allowed ``[b, L]``.
        duplicate: Pairs never chosen together ``[b, L, L]``.
        cost: Length of each candidate in tokens ``[b, L]``, or None without a budget.
        budget: Most tokens a prompt's demonstrations may take.
        group: Label code of each candidate ``[b, L]``, or None without quotas; −1 is outside every quota.
        most: Largest number per label ``[g]``.
        least: Smallest number per label ``[g]``.
    """

    valid: Tensor
    duplicate: Tensor
    cost: Tensor | None = None
    budget: int = 0
    group: Tensor | None = None
    most: Tensor | None = None
    least: Tensor | None = None

    def rows(self, keep: Tensor) -> "Constraints":
        """The problems ``keep`` alone."""
        return replace(
            self,
            valid=self.valid[keep],
            duplicate=self.duplicate[keep],
            cost=None if self.cost is None else self.cost[keep],
            group=None if self.group is None else self.group[keep],
        )

    def addable(self, chosen: Tensor, left: Tensor) -> Tensor:
        """Candidates that may join the sets ``chosen: [b, K]`` when ``left: [b]`` places are free, ``[b, L]``."""
        mask, index = chosen >= 0, chosen.clamp_min(0)
        rows = self.duplicate.gather(1, index[..., None].expand(-1, -1, self.duplicate.shape[-1]))
        allowed = self.valid & ~(rows & mask[..., None]).any(1) & (left > 0)[:, None]
        if self.cost is not None:
            spent = (self.cost.gather(-1, index) * mask).sum(-1, keepdim=True)
            allowed &= spent + self.cost <= self.budget
        if self.group is not None and self.most is not None and self.least is not None:
            counts = self.counts(chosen)
            group = self.group.clamp_min(0)
            inside = self.group >= 0
            allowed &= ~inside | (counts < self.most).gather(-1, group)
            missing = (self.least - counts).clamp_min(0)
            pressed = (missing.sum(-1) >= left)[:, None]
            allowed &= ~pressed | (inside & (missing > 0).gather(-1, group)) | (missing.sum(-1) == 0)[:, None]
        return allowed

    def counts(self, chosen: Tensor) -> Tensor:
        """Members per label ``[b, g]``."""
        assert self.group is not None and self.most is not None
        group = torch.where(chosen >= 0, self.group.gather(-1, chosen.clamp_min(0)), -1)
        labels = torch.arange(self.most.shape[0], device=chosen.device)
        return (group[..., None] == labels).sum(1)

    def satisfied(self, chosen: Tensor) -> Tensor:
        """Whether every label has its smallest number ``[b]``."""
        if self.group is None or self.least is None:
            return torch.ones_like(chosen[:, 0], dtype=torch.bool)
        return (self.counts(chosen) >= self.least).all(-1)


@dataclass(frozen=True)
class Path:
    """What greedy did.

    Attributes:
        chosen: Candidates in the order of choice ``[b, K]``, −1 where nothing more was feasible.
        totals: J of each prefix ``[b, K + 1]``, the empty one first; +inf past the end.
        satisfied: Whether each prefix meets the quotas' minima ``[b, K + 1]``.
    """

    chosen: Tensor
    totals: Tensor
    satisfied: Tensor


def lowest(values: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The smallest of ``values: [b, L]`` and the first index within the tolerance of it."""
    least = values.amin(-1)
    limit = least + tolerance * least.abs().clamp_min(1)
    return least, (values <= limit[:, None]).to(torch.uint8).argmax(-1)


def greedy(objective: Objective, constraints: Constraints, k: int) -> Path:
    """Adds, k times, the feasible candidate with the smallest resulting J, whether or not J falls.

    Args:
        objective: J of ``b`` problems.
        constraints: What may be chosen. A candidate that does not fit the budget is skipped, and the search goes on.
        k: Most demonstrations.

    Returns:
        The path; ``best_prefix`` chooses how many of it to keep.
    """
    b = objective.gram.shape[0]
    state = objective.state(torch.full((b, k), -1, dtype=torch.long, device=objective.gram.device))
    totals, satisfied = [objective.terms(state).total], [constraints.satisfied(state.chosen)]
    for step in range(k):
        allowed = constraints.addable(state.chosen, k - state.count)
        values = objective.terms_with(state).total.masked_fill(~allowed, torch.inf)
        least, index = lowest(values, objective.tolerance)
        state = objective.joined(state, step, torch.where(least.isfinite(), index, -1))
        totals.append(torch.where(least.isfinite(), objective.terms(state).total, torch.inf))
        satisfied.append(constraints.satisfied(state.chosen))
    return Path(state.chosen, torch.stack(totals, -1), torch.stack(satisfied, -1))


def best_prefix(path: Path, tolerance: float) -> Tensor:
    """The sets of the prefixes with the smallest J (the shorter one on ties), ``[b, K]``; 0 members are an answer."""
    totals = path.totals.masked_fill(~path.satisfied & path.satisfied.any(-1, keepdim=True), torch.inf)
    _, size = lowest(totals, tolerance)
    place = torch.arange(path.chosen.shape[1], device=path.chosen.device)
    return torch.where(place < size[:, None], path.chosen, -1)


def refine(objective: Objective, constraints: Constraints, chosen: Tensor) -> Tensor:
    """Swaps one member for one candidate, the best swap first, until no swap lowers J; sizes stay.

    Args:
        objective: J of ``b`` problems.
        constraints: Kept by every swap.
        chosen: Sets ``[b, K]``, −1 pads.

    Returns:
        Sets ``[b, K]`` with J no larger.
    """
    chosen = chosen.clone()
    active = torch.arange(chosen.shape[0], device=chosen.device)
    active = active[(chosen >= 0).any(-1)]
    while active.numel():
        part, rules, sets = objective.rows(active), constraints.rows(active), chosen[active]
        totals, slots, joins = _best_swap(part, rules, sets)
        before = part.terms(part.state(sets)).total
        better = totals < before - objective.tolerance * before.abs().clamp_min(1)
        rows = active[better]
        chosen[rows, slots[better]] = joins[better]
        active = rows
    return chosen


def _best_swap(objective: Objective, constraints: Constraints, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """J after the best swap ``[b]``, the slot that leaves ``[b]``, the candidate that joins ``[b]``."""
    state = objective.state(chosen)
    values, joins = [], []
    for slot in range(chosen.shape[1]):
        rest: State = objective.without(state, slot)
        allowed = constraints.addable(rest.chosen, torch.ones_like(rest.count))
        allowed &= (chosen[:, slot] >= 0)[:, None]
        totals = objective.terms_with(rest).total.masked_fill(~allowed, torch.inf)
        least, index = lowest(totals, objective.tolerance)
        values.append(least)
        joins.append(index)
    least, slot_of = lowest(torch.stack(values, -1), objective.tolerance)
    return least, slot_of, torch.stack(joins, -1).gather(-1, slot_of[:, None]).squeeze(-1)
