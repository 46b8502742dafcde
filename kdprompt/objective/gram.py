"""Gram matrices of candidates and target: all of J that does not depend on its weights or on the output share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.objective.target import Target
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.theory.kernels import Kernel, mix_output_kernel
from kdprompt.theory.point_pairs import PointPairs

__all__ = ["GramBlocks", "TargetPairs", "combine_rows_with_target", "compute_gram_blocks"]

TILE = 1024  # target points whose kernel is held at a time


@dataclass(frozen=True)
class GramBlocks:
    """Inner products of ``L`` candidates and ``m`` target points, for ``b`` problems.

    Attributes:
        inputs_ss: κ among candidates ``[b, L, L]``.
        inputs_st: κ of candidates with target points ``[b, L, m]``.
        values: v of the candidates ``[b, L, c]``.
        values_ss: ⟨v, v′⟩ among candidates ``[b, L, L]``.
        values_st: ⟨v, v̂⟩ with target points ``[b, L, m]``.
        conflict: support(q)·‖v_i − v̂(q)‖ at the queries ``[b, L, q]``.
        empty_conflict: support(q)·‖v̂(q)‖, the conflict of predicting nothing ``[b, q]``.
        radius: B of R3, ``[b]``.
        width: d of R3, the number of value dimensions.
        target: The target.
        among_target: κ and ⟨v̂, v̂′⟩ among target points ``[b, m, m]`` each; None of so many points that their
            matrices are made by tiles, of ``kernel``.
        kernel: κ of the inputs.
    """

    inputs_ss: Tensor
    inputs_st: Tensor
    values: Tensor
    values_ss: Tensor
    values_st: Tensor
    conflict: Tensor
    empty_conflict: Tensor
    radius: Tensor
    width: int
    target: Target
    among_target: tuple[Tensor, Tensor] | None
    kernel: Kernel

    def target_norm(self, output_share: float, dtype: torch.dtype) -> Tensor:
        """‖μ_Q‖² = Σ_jk w_j w_k κ⊗(z_j, z_k) of the target ``[b]``, for a share ρ of the output kernel in [0, 1]."""
        x, v, mass = self.target.x, self.target.v, self.target.weights
        if self.target.squared_norm is not None:
            return self.target.squared_norm.to(dtype)
        if self.among_target is not None:
            inputs, values = self.among_target
            joint = inputs * mix_output_kernel(values, output_share)
            return (mass * (joint @ mass[..., None]).squeeze(-1)).sum(-1, dtype=dtype)
        tiles = [slice(start, start + TILE) for start in range(0, x.shape[1], TILE)]
        norm = mass.new_zeros(len(mass), dtype=dtype)
        for place, a in enumerate(tiles):
            for b in tiles[place:]:
                joint = self.kernel(x[:, a], x[:, b])
                if output_share:
                    joint *= mix_output_kernel(v[:, a] @ v[:, b].mT, output_share)
                sums = (mass[:, a] * (joint @ mass[:, b, None]).squeeze(-1)).sum(-1, dtype=dtype)
                norm += sums if a == b else 2 * sums
        return norm


class TargetPairs:
    """Pairs of a target's points ``t: [b, m, d]`` with candidates ``x: [b, L, d]`` and among themselves."""

    def __init__(self, x: Tensor, t: Tensor) -> None:
        self.with_rows, self.among = PointPairs(x, t), PointPairs(t, t)


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


def combine_rows_with_target(
    kernel: Kernel, rows: GatheredRows, target: Target, value_radius: float, pairs: TargetPairs | None = None
) -> GramBlocks:
    """As ``compute_gram_blocks``, for rows whose inner products are at hand, or are wanted by others too.

    ``pairs`` are those of the target's points, where other kernels look at them, too.
    """
    v, x = rows.v, rows.x
    is_one = target.x.shape[1] == 1
    pairs = TargetPairs(x, target.x) if pairs is None else pairs
    among_target = None
    if target.x.shape[1] <= TILE and target.squared_norm is None:
        inputs_tt = kernel.diagonal(target.x)[..., None] if is_one else kernel.of_pairs(pairs.among)
        among_target = inputs_tt, target.v @ target.v.mT
    with_query = rows.with_query if is_one else None
    values_st = v @ target.v.mT
    queries = target.queries
    query_norms = target.v[:, :queries].square().sum(-1)
    squared = v.square().sum(-1)[..., None] + query_norms[:, None, :] - 2 * values_st[..., :queries]
    return GramBlocks(
        inputs_ss=kernel.of_pairs(rows.among),
        inputs_st=kernel.of_pairs(pairs.with_rows if with_query is None else with_query),
        values=v,
        values_ss=v @ v.mT,
        values_st=values_st,
        conflict=squared.clamp_min(0).sqrt() * target.support[:, None, :],
        empty_conflict=query_norms.sqrt() * target.support,
        radius=value_radius * kernel.diagonal(target.x).amax(-1).sqrt(),
        width=v.shape[-1],
        target=target,
        among_target=among_target,
        kernel=kernel,
    )
