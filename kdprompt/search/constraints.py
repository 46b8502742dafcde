"""Which sets may be chosen: budgets, quotas, and no two duplicates."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.objective.set_state import gather_rows

__all__ = ["Constraints"]


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

    def subset(self, keep: Tensor) -> "Constraints":
        """The problems ``keep: [·]`` alone, by their numbers."""
        return replace(
            self,
            valid=self.valid.index_select(0, keep),
            duplicate=self.duplicate.index_select(0, keep),
            cost=None if self.cost is None else self.cost.index_select(0, keep),
            group=None if self.group is None else self.group.index_select(0, keep),
        )

    @property
    def has_limits(self) -> bool:
        """Whether a budget or a quota is set."""
        return self.cost is not None or self.group is not None

    def open_to(self, chosen: Tensor) -> Tensor:
        """Candidates that are allowed and repeat no member of the sets ``chosen: [b, K]``, ``[b, L]``."""
        return self.valid & ~self._find_duplicates(chosen).any(1) if chosen.shape[1] else self.valid

    def addable(self, chosen: Tensor, left: Tensor) -> Tensor:
        """Candidates that may join the sets ``chosen: [b, K]`` when ``left: [b]`` places are free, ``[b, L]``."""
        allowed = self.open_to(chosen) & (left > 0)[:, None]
        return self.limit(chosen[:, None], left[:, None], allowed[:, None])[:, 0] if self.has_limits else allowed

    def replaceable(self, chosen: Tensor, places: slice) -> Tensor:
        """Candidates that may stand in place of a member of ``chosen: [b, K]``, for the places given, ``[b, P, L]``."""
        repeats = self._find_duplicates(chosen)
        blocked = repeats.sum(1, keepdim=True) > repeats[:, places]  # by another member than the one that leaves
        allowed = self.valid[:, None] & ~blocked & (chosen >= 0)[:, places, None]
        if not self.has_limits:
            return allowed
        leaves = torch.eye(chosen.shape[1], dtype=torch.bool, device=chosen.device)[places]
        sets = chosen[:, None].masked_fill(leaves, -1)
        return self.limit(sets, torch.ones_like(sets[..., 0]), allowed)

    def limit(self, sets: Tensor, left: Tensor, allowed: Tensor) -> Tensor:
        """Which of the candidates ``allowed: [b, P, L]`` budget and quota let join sets ``[b, P, K]``, ``[b, P, L]``.

        Args:
            sets: P sets of each problem, −1 pads.
            left: Their free places ``[b, P]``.
            allowed: Candidates that nothing else forbids.
        """
        if self.cost is not None:
            costs = self.cost[:, None].expand(-1, sets.shape[1], -1)
            spent = (costs.gather(-1, sets.clamp_min(0)) * (sets >= 0)).sum(-1, keepdim=True)
            allowed = allowed & (spent + costs <= self.budget)
        if self.group is not None and self.most is not None and self.least is not None:
            counts = self.counts(sets)
            inside = (self.group >= 0)[:, None]
            group = self.group.clamp_min(0)[:, None].expand(-1, sets.shape[1], -1)
            missing = (self.least - counts).clamp_min(0)
            wanted = missing.sum(-1, keepdim=True)
            pressed = (wanted >= left[..., None]) & (wanted > 0)
            allowed = allowed & (~inside | (counts < self.most).gather(-1, group))
            allowed = allowed & (~pressed | (inside & (missing > 0).gather(-1, group)))
        return allowed

    def _find_duplicates(self, chosen: Tensor) -> Tensor:
        """What repeats each member of the sets ``[b, K]``, ``[b, K, L]``; nothing repeats a pad."""
        return gather_rows(self.duplicate, chosen.clamp_min(0)).logical_and_((chosen >= 0)[..., None])

    def counts(self, chosen: Tensor) -> Tensor:
        """Members per label of sets ``[b, …, K]``, ``[b, …, g]``."""
        assert self.group is not None and self.most is not None
        flat = chosen.flatten(1)
        group = torch.where(flat >= 0, self.group.gather(-1, flat.clamp_min(0)), -1).view(chosen.shape)
        labels = torch.arange(self.most.shape[0], device=chosen.device)
        return (group[..., None] == labels).sum(-2)

    def satisfied(self, chosen: Tensor) -> Tensor:
        """Whether every label has its smallest number ``[b]``."""
        if self.group is None or self.least is None:
            return torch.ones(chosen.shape[0], dtype=torch.bool, device=chosen.device)
        return (self.counts(chosen) >= self.least).all(-1)
