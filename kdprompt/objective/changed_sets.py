"""The sums over sets that differ from one set in a member: what greedy search and swaps look at."""

import torch
from torch import Tensor

from kdprompt.objective.objective import Objective
from kdprompt.objective.set_state import SetSums, gather_rows

__all__ = ["add_member", "sum_swaps"]

_NOTHING = torch.empty(0)  # sums that no term asks for


def add_member(objective: Objective, each: SetSums, pairs: Tensor, index: Tensor) -> tuple[SetSums, Tensor]:
    """The sums over S ∪ {j} ∪ {i} for every candidate i, from those over S ∪ {i}.

    Args:
        objective: J of ``b`` problems.
        each: Of ``Objective.sums_with_each`` or ``sums_of_each``; its tensors are used up.
        pairs: Σ κ⊗ over S ``[b]``.
        index: j of each problem ``[b]``.

    Returns:
        The sums, and Σ κ⊗ over S ∪ {j} ``[b]``.
    """
    w = objective.weights

    def member(values: Tensor) -> Tensor:
        return gather_rows(values, index)[:, None]

    joined = gather_rows(each.pairs, index)
    with_each = SetSums(
        pairs=each.pairs.add_(gather_rows(objective.gram, index), alpha=2).add_((joined - pairs)[:, None]),
        target=each.target.add_(member(objective.target_mean)),
        diagonal=each.diagonal + member(objective.diagonal) if w.complexity else each.diagonal,
        conflict=each.conflict.add_(member(objective.conflict)) if w.interference else each.conflict,
        attention=each.attention.add_(member(objective.attention)) if w.interference else each.attention,
        shown=each.shown + member(objective.outputs) if w.reader else each.shown,
        divisor=each.divisor + 1,
    )
    return with_each, joined


def sum_swaps(objective: Objective, chosen: Tensor, places: slice) -> SetSums:
    """The sums over sets ``[b, K]`` with candidate i in place p, for the places given, ``[b, P, L, …]``.

    What stays is summed without what leaves, not as a difference: attention may lie orders of magnitude apart.
    """
    there, index = chosen >= 0, chosen.clamp_min(0)
    gram = gather_rows(objective.gram, index).to(objective.sum_dtype)  # [b, K, L]
    among = gram.gather(2, index[:, None, :].expand(-1, index.shape[1], -1))
    stays = ~torch.eye(index.shape[1], dtype=torch.bool, device=chosen.device)[places] & there[:, None, :]
    kept = stays.to(objective.gram.dtype)  # [b, P, K]
    exact = kept.to(objective.sum_dtype)
    rest = ((exact @ among) * exact).sum(-1, keepdim=True)

    def with_each(values: Tensor) -> Tensor:
        return (kept @ gather_rows(values, index))[:, :, None, :] + values[:, None]

    w = objective.weights
    members = gather_rows(objective.target_mean, index)[..., None].to(objective.sum_dtype)
    diagonal = objective.gram.diagonal(dim1=-2, dim2=-1)[:, None]
    return SetSums(
        pairs=(exact @ gram).mul_(2).add_(rest).add_(diagonal),
        target=exact @ members + objective.target_mean[:, None],
        diagonal=with_each(objective.diagonal[..., None])[..., 0] if w.complexity else _NOTHING,
        conflict=with_each(objective.conflict) if w.interference else _NOTHING,
        attention=with_each(objective.attention) if w.interference else _NOTHING,
        shown=with_each(objective.outputs) if w.reader else _NOTHING,
        divisor=there.sum(-1).clamp_min(1)[:, None, None].to(objective.sum_dtype),
    )
