"""The sums over sets whose members weigh differently, by their places in a prompt: what reading orders look at (R7)."""

import torch
from torch import Tensor

from kdprompt.objective.objective import Objective
from kdprompt.objective.set_state import NOTHING, SetSums, Terms, gather_rows

__all__ = ["evaluate_place_swaps", "evaluate_weighted", "weighted_terms"]


def weighted_terms(objective: Objective, chosen: Tensor, weights: Tensor, last: Tensor) -> Terms:
    """The terms of sets under given weights of their members.

    Args:
        objective: J of ``b`` problems.
        chosen: ``[b, K]``, −1 pads.
        weights: ``[b, P, K]`` for P weightings of each set; zero at pads; summing to 1 (or all 0: empty).
        last: Which of the K members stands last ``[b, P]``, −1 in an empty prompt.

    Returns:
        Terms ``[b, P]``.
    """
    index, exact = chosen.clamp_min(0), weights.to(objective.sum_dtype)
    diagonal = (weights.square() * objective.diagonal.gather(-1, index)[:, None, :]).sum(-1)
    attention, conflict = _attend(objective, index, weights)
    shown, last_shown = _show(objective, index, weights, last)
    squared = _square(objective, index, exact)
    return objective.terms(SetSums(squared, diagonal, conflict, attention, shown, 1.0, last_shown))


def evaluate_weighted(objective: Objective, chosen: Tensor, weights: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """J and its MMD, ``[b, P]`` each, of sets as in ``weighted_terms``, none empty; terms of weight 0 are not computed.

    Both are in the dtype of sums.
    """
    squared = _square(objective, chosen, weights.to(objective.sum_dtype))
    return _evaluate(objective, chosen, weights, last, squared)


def evaluate_place_swaps(
    objective: Objective, arranged: Tensor, weights: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor]:
    """J and its MMD, ``[b, P]`` each, of prompts of which two members have changed places.

    A swap moves the weight δ from one member to the other, so that MMD² changes by 2δ(g_i − g_j) + δ²(G_ii + G_jj −
    2G_ij) − 2δ(μ_i − μ_j) with g = Gw: k² steps for all swaps, not k⁴.

    Args:
        objective: J of ``b`` problems.
        arranged: Members in reading order ``[b, k]``, k ≥ 1, no pads.
        weights: Of the places ``[k]``, in the dtype of sums, summing to 1.
        pairs: Places i ≤ j that are exchanged ``[P, 2]``; i = j changes nothing.
    """
    i, j = pairs.unbind(-1)
    moved = weights[j] - weights[i]
    gram = _gram_of(objective, arranged)
    overlap = gram @ weights
    own = gram.diagonal(dim1=-2, dim2=-1)
    apart = own[:, i] + own[:, j] - 2 * gram[:, i, j]
    quadratic = (overlap @ weights)[:, None] + 2 * moved * (overlap[:, i] - overlap[:, j]) + moved.square() * apart
    mean = objective.target_mean.gather(-1, arranged)
    linear = (mean @ weights)[:, None] + moved * (mean[:, i] - mean[:, j])
    by_member = weights.expand(len(pairs), -1).scatter(-1, i[:, None], weights[j][:, None])
    by_member = by_member.scatter(-1, j[:, None], weights[i][:, None]).expand(len(arranged), -1, -1)
    end = arranged.shape[1] - 1
    last = torch.where(j == end, i, end).expand(len(arranged), -1)
    return _evaluate(objective, arranged, by_member, last, objective.squared_mmd(quadratic, linear, 1.0))


def _evaluate(
    objective: Objective, members: Tensor, weights: Tensor, last: Tensor, squared: Tensor
) -> tuple[Tensor, Tensor]:
    """J and its MMD of weighted sets whose MMD² is known, by the sums that terms of some weight look at."""
    w, narrow = objective.weights, weights.to(objective.gram.dtype)
    diagonal = attention = conflict = shown = NOTHING
    last_shown = None
    if w.complexity:
        diagonal = (narrow.square() @ objective.diagonal.gather(-1, members)[..., None]).squeeze(-1)
    if w.interference:
        attention, conflict = _attend(objective, members, narrow)
    if w.reader:
        shown, last_shown = _show(objective, members, narrow, last)
    return objective.evaluate(SetSums(squared, diagonal, conflict, attention, shown, 1.0, last_shown))


def _gram_of(objective: Objective, index: Tensor) -> Tensor:
    """κ⊗ among members ``[b, K, K]``, in the dtype of sums."""
    rows = gather_rows(objective.gram, index)
    return rows.gather(2, index[:, None, :].expand(-1, index.shape[-1], -1)).to(objective.sum_dtype)


def _square(objective: Objective, index: Tensor, weights: Tensor) -> Tensor:
    """MMD² before it is clamped at zero ``[b, P]``."""
    pairs = (weights @ _gram_of(objective, index) * weights).sum(-1)
    target = (weights * objective.target_mean.gather(-1, index)[:, None, :]).sum(-1)
    return objective.squared_mmd(pairs, target, 1.0)


def _attend(objective: Objective, index: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and conflict ``[b, P, q]``, each."""
    attended = gather_rows(objective.attended, index)
    return objective.split(weights.to(attended.dtype) @ attended)


def _show(objective: Objective, index: Tensor, weights: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_i v_i, and v of the last, ``[b, P, c]`` each."""
    outputs = gather_rows(objective.outputs, index)
    with_none = torch.cat([outputs.new_zeros(len(outputs), 1, outputs.shape[-1]), outputs], 1)
    return weights @ outputs, gather_rows(with_none, last + 1)
