"""Gram matrices of candidates and target: all of J that does not depend on its weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.objective.target import Target
from kdprompt.theory.kernels import Kernel

__all__ = ["GramBlocks", "compute_gram_blocks"]

SAME = 1e-4  # squared distance of values that are one output, in units of the largest squared norm


@dataclass(frozen=True)
class GramBlocks:
    """Everything about candidates and target that does not depend on J's settings (but for the kernel κ).

    Attributes:
        inputs_ss: κ among candidates ``[b, L, L]``.
        inputs_st: κ of candidates with target points ``[b, L, m]``.
        inputs_tt: κ among target points ``[b, m, m]``.
        values_ss: ⟨v, v′⟩ among candidates ``[b, L, L]``.
        values_st: ⟨v, v̂⟩ with target points ``[b, L, m]``.
        values_tt: ⟨v̂, v̂′⟩ among target points ``[b, m, m]``.
        conflict: support(q)·‖v_i − v̂(q)‖ at the queries ``[b, L, q]``.
        silence: support(q)·‖v̂(q)‖, the conflict of predicting nothing ``[b, q]``.
        agreement: ⟨v_i, v̂(q)⟩, of labels their estimated share, averaged over the queries ``[b, L]``.
        alike: The first candidate with the same value ``[b, L]``.
        radius: B of R3, ``[b]``.
        width: d of R3, the number of value dimensions.
        target: The target.
    """

    inputs_ss: Tensor
    inputs_st: Tensor
    inputs_tt: Tensor
    values_ss: Tensor
    values_st: Tensor
    values_tt: Tensor
    conflict: Tensor
    silence: Tensor
    agreement: Tensor
    alike: Tensor
    radius: Tensor
    width: int
    target: Target


def compute_gram_blocks(kernel: Kernel, x: Tensor, v: Tensor, target: Target, value_radius: float) -> GramBlocks:
    """Computes the Gram blocks of candidates with a target.

    Args:
        kernel: κ of the inputs.
        x: Inputs of the candidates ``[b, L, d]``.
        v: Their values ``[b, L, c]``.
        target: ``b`` targets.
        value_radius: max‖v‖ over the pool, for R3; κ_max is the target's.
    """
    inner_st = v @ target.v.transpose(-1, -2)
    at = target.queries
    size = target.v[:, :at].square().sum(-1)
    norms, inner_ss = v.square().sum(-1), v @ v.transpose(-1, -2)
    squared = norms[..., None] + size[:, None, :] - 2 * inner_st[..., :at]
    apart = norms[..., None] + norms[:, None, :] - 2 * inner_ss
    return GramBlocks(
        inputs_ss=kernel(x, x),
        inputs_st=kernel(x, target.x),
        inputs_tt=kernel(target.x, target.x),
        values_ss=inner_ss,
        values_st=inner_st,
        values_tt=target.v @ target.v.transpose(-1, -2),
        conflict=squared.clamp_min(0).sqrt() * target.support[:, None, :],
        silence=size.sqrt() * target.support,
        agreement=(inner_st[..., :at] * target.own[:, None, :at]).sum(-1),
        alike=_first(apart < SAME * value_radius**2),
        radius=value_radius * kernel.diagonal(target.x).amax(-1).sqrt(),
        width=v.shape[-1],
        target=target,
    )


def _first(same: Tensor) -> Tensor:
    """The first that is true of each row ``[b, L, L]``, 0 where none is, ``[b, L]``."""
    return same.to(torch.uint8).argmax(-1) if same.numel() else same.new_zeros(same.shape[:-1], dtype=torch.long)
