"""Gram matrices of candidates and target: all of J that does not depend on its weights or on the output share."""

from dataclasses import dataclass

from torch import Tensor

from kdprompt.objective.target import Target
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.theory.kernels import Kernel

__all__ = ["GramBlocks", "combine_rows_with_target", "compute_gram_blocks"]


@dataclass(frozen=True)
class GramBlocks:
    """Inner products of ``L`` candidates and ``m`` target points, for ``b`` problems.

    Attributes:
        inputs_ss: κ among candidates ``[b, L, L]``.
        inputs_st: κ of candidates with target points ``[b, L, m]``.
        inputs_tt: κ among target points ``[b, m, m]``.
        values: v of the candidates ``[b, L, c]``.
        values_ss: ⟨v, v′⟩ among candidates ``[b, L, L]``.
        values_st: ⟨v, v̂⟩ with target points ``[b, L, m]``.
        values_tt: ⟨v̂, v̂′⟩ among target points ``[b, m, m]``.
        conflict: support(q)·‖v_i − v̂(q)‖ at the queries ``[b, L, q]``.
        empty_conflict: support(q)·‖v̂(q)‖, the conflict of predicting nothing ``[b, q]``.
        radius: B of R3, ``[b]``.
        width: d of R3, the number of value dimensions.
        target: The target.
    """

    inputs_ss: Tensor
    inputs_st: Tensor
    inputs_tt: Tensor
    values: Tensor
    values_ss: Tensor
    values_st: Tensor
    values_tt: Tensor
    conflict: Tensor
    empty_conflict: Tensor
    radius: Tensor
    width: int
    target: Target


def compute_gram_blocks(kernel: Kernel, x: Tensor, v: Tensor, target: Target, value_radius: float) -> GramBlocks:
    """Computes the Gram matrices of candidates with a target.

    Args:
        kernel: κ of the inputs.
        x: Inputs of the candidates ``[b, L, d]``.
        v: Their values ``[b, L, c]``.
        target: ``b`` targets.
        value_radius: max‖v‖ over the pool, for R3; κ_max is the target's.
    """
    return combine_rows_with_target(kernel, GatheredRows(x, v), target, value_radius)


def combine_rows_with_target(kernel: Kernel, rows: GatheredRows, target: Target, value_radius: float) -> GramBlocks:
    """As ``compute_gram_blocks``, for rows whose inner products are at hand, or are wanted by others too."""
    v, x = rows.v, rows.x
    is_one = target.x.shape[1] == 1
    with_query = rows.with_query if is_one else None
    values_st = v @ target.v.transpose(-1, -2)
    queries = target.queries
    query_norms = target.v[:, :queries].square().sum(-1)
    squared = v.square().sum(-1)[..., None] + query_norms[:, None, :] - 2 * values_st[..., :queries]
    return GramBlocks(
        inputs_ss=kernel.of_pairs(rows.among),
        inputs_st=kernel(x, target.x) if with_query is None else kernel.of_pairs(with_query),
        inputs_tt=kernel.diagonal(target.x)[..., None] if is_one else kernel(target.x, target.x),
        values=v,
        values_ss=v @ v.transpose(-1, -2),
        values_st=values_st,
        values_tt=target.v @ target.v.transpose(-1, -2),
        conflict=squared.clamp_min(0).sqrt() * target.support[:, None, :],
        empty_conflict=query_norms.sqrt() * target.support,
        radius=value_radius * kernel.diagonal(target.x).amax(-1).sqrt(),
        width=v.shape[-1],
        target=target,
    )
