"""Which sets may be chosen: budgets, quotas, and no two duplicates."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
            return torch.ones(chosen.shape[0], dtype=torch.bool, device=chosen.device)
        return (self.counts(chosen) >= self.least).all(-1)
