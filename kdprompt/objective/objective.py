r"""J: what is minimised, reported and explained, and the only place that combines its terms.

J(S, w) = bias·MMD_κ⊗(S, Q) + complexity·R3(S, w) + interference·R6(S, w) + reader·L(S, w)            (R8, R9)

L takes the place of R6 where outputs are labels; calibration gives one of the two a weight.

J is evaluated from Gram matrices alone. Batches of ``b`` problems with ``L`` candidates each are leading dimensions;
sets are index tensors ``chosen: [b, K]``, padded with −1. Search, order, explanation and report ask for J in different
ways (a set, a set with one more member, or another one in a place, a set under given weights); all of them end in the
same four terms, of which the search computes those with a weight. Which demonstration stands last is not part of a set:
there L takes every member as equally likely to do so.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdprompt.objective.gram import GramBlocks
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.objective.set_state import SetState, SetSums, Terms, gather_rows
from kdprompt.theory.bounds import complexity_of_trace
from kdprompt.theory.kernels import mix_output_kernel

__all__ = ["Objective", "SetState", "SetSums", "Terms", "gather_rows"]


@dataclass(frozen=True)
class Objective:
    """J for ``b`` problems with ``L`` candidates each.

    Attributes:
        gram: κ⊗ among candidates ``[b, L, L]``.
        target_mean: μ_Q at the candidates ``[b, L]``.
        target_norm: ‖μ_Q‖² ``[b]``.
        diagonal: κ(x, x) of the candidates ``[b, L]``.
        attention: κ(x_i, q) clipped at zero ``[b, L, q]``.
        conflict: attention·conflict ``[b, L, q]``.
        empty_conflict: R6 at the queries where nothing is attended to ``[b, q]``.
        query_weights: Weights of the queries in R6 ``[b, q]``, summing to 1.
        radius: B of R3 ``[b]``.
        outputs: Values of the candidates ``[b, L, c]``; c = 0 where no reader is modelled.
        width: d of R3.
        weights: Weights of the terms.
        reader: What the reader is expected to lose with a prompt (R9), or None.
    """

    gram: Tensor
    target_mean: Tensor
    target_norm: Tensor
    diagonal: Tensor
    attention: Tensor
    conflict: Tensor
    empty_conflict: Tensor
    query_weights: Tensor
    radius: Tensor
    outputs: Tensor
    width: int
    weights: ObjectiveWeights
    reader: ReaderLoss | None = None

    @classmethod
    def build(
        cls, blocks: GramBlocks, output_share: float, weights: ObjectiveWeights, reader: ReaderLoss | None = None
    ) -> "Objective":
        """J for Gram matrices, a share ρ of the output kernel in [0, 1], weights of the terms, and a reader or none."""
        mass = blocks.target.weights
        queries = blocks.target.queries
        joint_tt = blocks.inputs_tt * mix_output_kernel(blocks.values_tt, output_share)
        joint_st = blocks.inputs_st * mix_output_kernel(blocks.values_st, output_share)
        attention = blocks.inputs_st[..., :queries].clamp_min(0)
        return cls(
            gram=mix_output_kernel(blocks.values_ss, output_share).mul_(blocks.inputs_ss),
            target_mean=(joint_st @ mass[..., None]).squeeze(-1),
            target_norm=(mass * (joint_tt @ mass[..., None]).squeeze(-1)).sum(-1, dtype=choose_sum_dtype(joint_tt)),
            diagonal=blocks.inputs_ss.diagonal(dim1=-2, dim2=-1),
            attention=attention,
            conflict=attention * blocks.conflict,
            empty_conflict=blocks.empty_conflict,
            query_weights=blocks.target.query_mass[..., :queries],
            radius=blocks.radius,
            outputs=blocks.values if reader is not None else blocks.values[..., :0],
            width=blocks.width,
            weights=weights,
            reader=reader,
        )

    @property
    def sum_dtype(self) -> torch.dtype:
        """The dtype of the sums whose difference is MMD²: float64 where the device has it."""
        return choose_sum_dtype(self.gram)

    def subset(self, keep: Tensor) -> "Objective":
        """The problems ``keep`` (indices or mask ``[b]``) alone."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        kept: dict[str, Any] = {name: value[keep] for name, value in values.items() if isinstance(value, Tensor)}
        part = replace(self, **kept, reader=None if self.reader is None else self.reader.subset(keep))
        if vars(self).get("_all_attend"):
            vars(part)["_all_attend"] = True
        return part

    def rounding(self, terms: Terms) -> Tensor:
        """How far J may be off by rounding: smaller differences are ties; shape of the terms.

        MMD² is a difference of sums of the size of ‖μ_Q‖² + κ⊗max, so its rounding does not shrink with it; the square
        root turns an error e of MMD² into e/(2·MMD), and near zero into √e.
        """
        unit = 32 * torch.finfo(self.gram.dtype).eps
        size = self.target_norm + self.gram.diagonal(dim1=-2, dim2=-1).amax(-1)
        error = unit * size.view((-1,) + (1,) * (terms.bias.ndim - 1))
        return self.weights.bias * error / (terms.bias + error.sqrt()) + unit * terms.total.abs().clamp_min(1)

    def resolution(self, sums: SetSums, bias: Tensor, total: Tensor) -> Tensor:
        """Within which J of two sets that differ in one member is the same, by the rounding of Gram entries ``[b]``.

        It is far below ``rounding``, which holds for sets and weights of any kind: the sums are taken in float64, and
        the sets share all entries but the member's own, some 4/k in MMD².

        Args:
            sums: Of the sets; their divisor is looked at.
            bias: MMD ``[b]``.
            total: J ``[b]``.
        """
        unit = torch.finfo(self.gram.dtype).eps
        error = self._error / sums.divisor.view(-1)
        spread = error / error.sqrt().add_(bias)
        spread = spread if self.weights.bias == 1 else spread.mul_(self.weights.bias)
        return spread.add_(total, alpha=4 * unit)  # J is not negative

    @cached_property
    def _error(self) -> Tensor:
        """32 roundings of the largest κ⊗(z, z) of the candidates ``[b]``."""
        largest = self.gram.diagonal(dim1=-2, dim2=-1).amax(-1).to(self.sum_dtype)
        return largest * (32 * torch.finfo(self.gram.dtype).eps)

    def evaluate(self, sums: SetSums) -> tuple[Tensor, Tensor]:
        """J and its MMD from the sums over sets with a member; terms of weight 0 are not computed. Both ``[b, …]``."""
        bias, w = self._bias(sums), self.weights
        total = bias if w.bias == 1 else w.bias * bias
        if w.complexity:
            total = total + w.complexity * self._complexity(sums)
        if w.interference:
            interference = self._interference(sums, may_vanish=not self._all_attend)
            total = torch.add(total, interference, alpha=w.interference)
        if w.reader and self.reader is not None:
            total = torch.add(total, self._reader_loss(sums), alpha=w.reader)
        return total, bias

    def _combine(self, sums: SetSums) -> Terms:
        """All terms, and J, from the sums over a set."""
        bias, complexity, interference = self._bias(sums), self._complexity(sums), self._interference(sums)
        reader = torch.zeros_like(interference) if self.reader is None else self._reader_loss(sums)
        w = self.weights
        total = w.bias * bias + w.complexity * complexity + w.interference * interference + w.reader * reader
        narrow = (values.to(self.gram.dtype) for values in (bias, complexity, interference, reader, total))
        return Terms(*narrow)

    def _bias(self, sums: SetSums) -> Tensor:
        norm = self.target_norm.view((-1,) + (1,) * (sums.pairs.ndim - 1))
        squared = torch.addcdiv(norm, sums.pairs, sums.divisor.square())
        return squared.addcdiv_(sums.target, sums.divisor, value=-2).clamp_min_(0).sqrt_()

    def _complexity(self, sums: SetSums) -> Tensor:
        radius = self.radius.view((-1,) + (1,) * (sums.pairs.ndim - 1))
        return complexity_of_trace(sums.diagonal / sums.divisor.square(), radius, self.width)

    @cached_property
    def _all_attend(self) -> bool:
        """Whether every query attends to every candidate, so that it attends to every set with a member."""
        return bool((self.attention > 0).all())

    def _interference(self, sums: SetSums, *, may_vanish: bool = True) -> Tensor:
        """R6, mean over the queries, of the shape of ``sums.pairs``; where attention vanishes, that of no prompt."""
        shape = (-1,) + (1,) * (sums.pairs.ndim - 1) + (self.query_weights.shape[-1],)
        ratio = sums.conflict / sums.attention
        if may_vanish:
            ratio = torch.where(sums.attention > 0, ratio, self.empty_conflict.view(shape))
        return ratio.squeeze(-1) if shape[-1] == 1 else (ratio * self.query_weights.view(shape)).sum(-1)

    def _reader_loss(self, sums: SetSums) -> Tensor:
        """L of R9, mean over the queries, of the shape of ``sums.pairs``."""
        assert self.reader is not None
        shown = sums.shown / sums.divisor[..., None].to(sums.shown.dtype)
        losses = self.reader(shown, shown if sums.last is None else sums.last)
        return (losses * self.query_weights.view(-1, *(1,) * (losses.ndim - 2), losses.shape[-1])).sum(-1)

    # -- sets under uniform weights ---------------------------------------------------------------------------------

    def state(self, chosen: Tensor) -> SetState:
        """The state of the sets ``chosen: [b, K]`` (−1 pads)."""
        there, index = chosen >= 0, chosen.clamp_min(0)
        mask, count = there.to(self.gram.dtype), there.sum(-1)
        overlap = (gather_rows(self.gram, index) * mask[..., None]).sum(1, dtype=self.sum_dtype)
        sums = SetSums(
            pairs=(overlap.gather(-1, index) * mask).sum(-1),
            target=(self.target_mean.gather(-1, index) * mask).sum(-1, dtype=self.sum_dtype),
            diagonal=(self.diagonal.gather(-1, index) * mask).sum(-1),
            conflict=(gather_rows(self.conflict, index) * mask[..., None]).sum(1),
            attention=(gather_rows(self.attention, index) * mask[..., None]).sum(1),
            shown=(gather_rows(self.outputs, index) * mask[..., None]).sum(1),
            divisor=count.clamp_min(1).to(self.sum_dtype),
        )
        return SetState(chosen, count, overlap, sums)

    def terms(self, state: SetState) -> Terms:
        """The terms of the sets, each ``[b]``.

        The empty set predicts nothing: its bias is ‖W_Q‖, and its read-out misses the whole of v̂(q) (R6).
        """
        return self._combine(state.sums)

    def terms_with_each(self, state: SetState) -> Terms:
        """The terms of S ∪ {i} for every candidate i, each ``[b, L]``."""
        return self._combine(self.sums_with_each(state))

    def sums_of_each(self) -> SetSums:
        """The sums over {i} for every candidate i, ``[b, L, …]``: those of ``sums_with_each`` for the empty set."""
        return SetSums(
            pairs=self.gram.diagonal(dim1=-2, dim2=-1).to(self.sum_dtype, copy=True),
            target=self.target_mean.to(self.sum_dtype, copy=True),
            diagonal=self.diagonal,
            conflict=self.conflict.clone(),
            attention=self.attention.clone(),
            shown=self.outputs,
            divisor=self.target_norm.new_ones(len(self.gram), 1),
        )

    def sums_with_each(self, state: SetState) -> SetSums:
        """The sums over S ∪ {i} for every candidate i, ``[b, L, …]``."""
        before = state.sums
        return SetSums(
            pairs=before.pairs[:, None] + 2 * state.overlap + self.gram.diagonal(dim1=-2, dim2=-1),
            target=before.target[:, None] + self.target_mean,
            diagonal=before.diagonal[:, None] + self.diagonal,
            conflict=before.conflict[:, None] + self.conflict,
            attention=before.attention[:, None] + self.attention,
            shown=before.shown[:, None] + self.outputs,
            divisor=(state.count + 1)[:, None].to(self.sum_dtype),
        )

    def state_without(self, chosen: Tensor, slot: int) -> SetState:
        """The state of the sets ``chosen: [b, K]`` without the member in a slot."""
        others = chosen.clone()
        others[:, slot] = -1
        return self.state(others)

    # -- sets under given weights -----------------------------------------------------------------------------------

    def weighted_terms(self, chosen: Tensor, weights: Tensor, last: Tensor) -> Terms:
        """The terms of the sets under given weights of their members.

        Args:
            chosen: ``[b, K]``, −1 pads.
            weights: ``[b, P, K]`` for P weightings of each set; zero at pads; summing to 1 (or all 0: empty).
            last: Which of the K members stands last ``[b, P]``, −1 in an empty prompt.

        Returns:
            Terms ``[b, P]``.
        """
        index = chosen.clamp_min(0)
        size = index.shape[-1]
        gram = gather_rows(self.gram, index).gather(2, index[:, None, :].expand(-1, size, -1))
        exact = weights.to(self.sum_dtype)
        pairs = (exact @ gram.to(self.sum_dtype) * exact).sum(-1)
        outputs = gather_rows(self.outputs, index)
        with_none = torch.cat([outputs.new_zeros(len(outputs), 1, outputs.shape[-1]), outputs], 1)
        last_outputs = gather_rows(with_none, last + 1)
        sums = SetSums(
            pairs=pairs,
            target=(exact * self.target_mean.gather(-1, index)[:, None, :]).sum(-1),
            diagonal=(weights.square() * self.diagonal.gather(-1, index)[:, None, :]).sum(-1),
            conflict=weights @ gather_rows(self.conflict, index),
            attention=weights @ gather_rows(self.attention, index),
            shown=weights @ outputs,
            divisor=torch.ones_like(pairs),
            last=last_outputs,
        )
        return self._combine(sums)


def choose_sum_dtype(values: Tensor) -> torch.dtype:
    """The dtype in which sums are taken whose difference is small: float64 where the device of the values has it."""
    return values.dtype if values.device.type == "mps" else torch.float64
