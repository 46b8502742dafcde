"""The sums over sets that differ from one set in a member: what greedy search and swaps look at."""

import torch
from torch import Tensor

from kdprompt.objective.objective import Objective, list_distinct_outputs
from kdprompt.objective.set_state import NOTHING, SetSums, gather_rows

__all__ = ["GrowingSets", "sum_swaps"]


class GrowingSets:
    """The sums over S ∪ {i} for every candidate i, while S grows by one member a time.

    Args:
        objective: J of ``b`` problems.
        chosen: S of each problem, all of one size ``[b, K]``.
    """

    def __init__(self, objective: Objective, chosen: Tensor) -> None:
        self._objective = objective
        self._size = chosen.shape[1] + 1
        self._pairs = objective.own.clone()
        self._members = torch.zeros_like(self._pairs[:, :1])  # Σ κ⊗ over S
        self._target = objective.target_mean.clone()
        self._attended, self._diagonal, self._shown = objective.attended, objective.diagonal, objective.outputs
        if objective.code is not None:
            self._shown = list_distinct_outputs(objective.outputs)[None]
        if chosen.shape[1]:
            self._start(chosen)
        elif objective.weights.interference:
            self._attended = self._attended.clone()
        self._attention, self._conflict = objective.split(self._attended)

    def _start(self, chosen: Tensor) -> None:
        """Adds what the first members sum up to."""
        objective = self._objective
        overlap = gather_rows(objective.gram, chosen).sum(1, dtype=objective.sum_dtype)
        self._members += overlap.gather(-1, chosen).sum(-1, keepdim=True)
        self._pairs += self._members + 2 * overlap
        self._target += objective.target_mean.gather(-1, chosen).sum(-1, keepdim=True)
        self._attended = self._attended + gather_rows(objective.attended, chosen).sum(1, keepdim=True)
        self._diagonal = self._diagonal + objective.diagonal.gather(-1, chosen).sum(-1, keepdim=True)
        self._shown = self._shown + gather_rows(objective.outputs, chosen).sum(1, keepdim=True)

    @property
    def sums(self) -> SetSums:
        """The sums ``[b, L, …]``; they change when a member is added."""
        return SetSums(
            squared=self._objective.squared_mmd(self._pairs, self._target, self._size),
            diagonal=self._diagonal,
            conflict=self._conflict,
            attention=self._attention,
            shown=self._shown,
            divisor=self._size,
            code=self._objective.code,
        )

    def add(self, index: Tensor) -> None:
        """Adds a member to each set ``[b, 1]``."""
        objective, w = self._objective, self._objective.weights
        joined = self._pairs.gather(-1, index)
        self._pairs.add_(gather_rows(objective.gram, index).squeeze(1), alpha=2).add_(joined - self._members)
        self._members = joined
        self._target.add_(objective.target_mean.gather(-1, index))
        if w.interference:
            self._attended.add_(gather_rows(objective.attended, index))
        if w.complexity:
            self._diagonal = self._diagonal + objective.diagonal.gather(-1, index)
        if w.reader:
            self._shown = self._shown + gather_rows(objective.outputs, index)
        self._size += 1


def sum_swaps(objective: Objective, chosen: Tensor, places: slice) -> SetSums:
    """The sums over sets ``[b, K]`` with candidate i in place p, for the places given, ``[b, P, L, …]``.

    What stays is summed without what leaves, not as a difference: attention may lie orders of magnitude apart.
    """
    there, index = chosen >= 0, chosen.clamp_min(0)
    stays = ~torch.eye(index.shape[1], dtype=torch.bool, device=chosen.device)[places] & there[:, None, :]
    divisor = there.sum(-1, keepdim=True).clamp_min(1).to(objective.sum_dtype)

    def with_each(members: Tensor, values: Tensor) -> Tensor:
        return (stays.to(values.dtype) @ members)[:, :, None, :] + values[:, None]

    w = objective.weights
    attention, conflict = NOTHING, NOTHING
    if w.interference:
        members = objective.split(gather_rows(objective.attended, index))
        attention, conflict = map(with_each, members, objective.split(objective.attended))
    diagonal = objective.diagonal[..., None]
    return SetSums(
        squared=_square_swaps(objective, index, stays.to(objective.sum_dtype), divisor),
        diagonal=with_each(gather_rows(diagonal, index), diagonal)[..., 0] if w.complexity else NOTHING,
        conflict=conflict,
        attention=attention,
        shown=with_each(gather_rows(objective.outputs, index), objective.outputs) if w.reader else NOTHING,
        divisor=divisor[..., None],
    )


def _square_swaps(objective: Objective, index: Tensor, kept: Tensor, divisor: Tensor) -> Tensor:
    """MMD² of the sets with swaps ``[b, P, L]``: of what stays, of who comes, and twice their product.

    Args:
        objective: J.
        index: The sets ``[b, K]``.
        kept: Which of the members stay, 1 or 0 ``[b, P, K]``.
        divisor: Their number, and one ``[b, 1]``.
    """
    gram = gather_rows(objective.gram, index).to(kept.dtype)  # [b, K, L]
    among = gram.gather(2, index[:, None, :].expand(-1, index.shape[1], -1))
    target = (kept @ objective.target_mean.gather(-1, index)[..., None]).squeeze(-1)
    stay = objective.squared_mmd(((kept @ among) * kept).sum(-1), target, divisor) - objective.target_norm[:, None]
    come = objective.squared_mmd(objective.own, objective.target_mean, divisor)
    both = stay[:, :, None] + come[:, None, :]
    return torch.baddbmm(both, kept * (2 / divisor.square())[..., None], gram)
