"""The sums over sets that differ from one set in a member: what greedy search and swaps look at."""

import torch
from torch import Tensor

from kdprompt.objective.objective import Objective, gather_rows
from kdprompt.objective.set_state import SetSums

__all__ = ["add_member", "sum_swaps"]

_NOTHING = torch.empty(0)  # sums that no term asks for


def add_member(objective: Objective, each: SetSums, pairs: Tensor, index: Tensor) -> tuple[SetSums, Tensor]:
    """The sums over S ∪ {j} ∪ {i} for every candidate i, from those over S ∪ {i}.

    Args:
        objective: J of ``b`` problems.
        each: Of ``Objective.sums_with_each``; its tensors are used up.
        pairs: Σ κ⊗ over S ``[b]``.
        index: j of each problem ``[b]``.

    Returns:
        The sums, and Σ κ⊗ over S ∪ {j} ``[b]``.
    """
    place, w = torch.arange(len(index), device=index.device), objective.weights
    joined = each.pairs[place, index]
    pairs_of_each = each.pairs.add_(objective.gram[place, index], alpha=2).add_((joined - pairs)[:, None])
    with_each = SetSums(
        pairs=pairs_of_each,
        target=each.target.add_(objective.target_mean[place, index][:, None]),
        diagonal=each.diagonal + objective.diagonal[place, index][:, None] if w.complexity else each.diagonal,
        conflict=each.conflict + objective.conflict[place, index][:, None] if w.interference else each.conflict,
        attention=each.attention + objective.attention[place, index][:, None] if w.interference else each.attention,
        shown=each.shown + objective.outputs[place, index][:, None] if w.reader else each.shown,
        divisor=each.divisor + 1,
    )
    return with_each, joined


def sum_swaps(objective: Objective, chosen: Tensor, places: slice) -> SetSums:
    """The sums over sets ``[b, K]`` with candidate i in place p, for the places given, ``[b, P, L, …]``.

    What stays is summed without what leaves, not as a difference: attention may lie orders of magnitude apart.
    """
    there, index = chosen >= 0, chosen.clamp_min(0)
    gram = gather_rows(objective.gram, index).to(objective.sum_dtype) * there[..., None]  # [b, K, L]
    among = gram.gather(2, index[:, None, :].expand(-1, index.shape[1], -1)) * there[:, None, :]
    stays = ~torch.eye(index.shape[1], dtype=torch.bool, device=chosen.device)[places] & there[:, None, :]
    kept = stays.to(objective.gram.dtype)  # [b, P, K]
    exact = kept.to(objective.sum_dtype)
    pairs = ((exact @ among) * exact).sum(-1)[..., None] + 2 * (exact @ gram)

    def with_each(values: Tensor) -> Tensor:
        return (kept @ gather_rows(values, index))[:, :, None, :] + values[:, None]

    w = objective.weights
    members = objective.target_mean.gather(-1, index)[..., None].to(objective.sum_dtype)
    return SetSums(
        pairs=pairs + objective.gram.diagonal(dim1=-2, dim2=-1)[:, None],
        target=exact @ members + objective.target_mean[:, None],
        diagonal=with_each(objective.diagonal[..., None])[..., 0] if w.complexity else _NOTHING,
        conflict=with_each(objective.conflict) if w.interference else _NOTHING,
        attention=with_each(objective.attention) if w.interference else _NOTHING,
        shown=with_each(objective.outputs) if w.reader else _NOTHING,
        divisor=there.sum(-1).clamp_min(1)[:, None, None].to(objective.sum_dtype),
    )
