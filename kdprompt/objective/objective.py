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
from kdprompt.objective.set_state import SetSums, Terms, gather_rows
from kdprompt.theory.bounds import complexity_of_trace
from kdprompt.theory.kernels import mix_output_kernel

__all__ = ["Objective", "SetSums", "Terms", "gather_rows", "list_distinct_outputs"]

MANY = 1 << 15  # numbers of the candidates' values, from which R9 is computed once an output


@dataclass(frozen=True)
class Objective:
    """J for ``b`` problems with ``L`` candidates each.

    Attributes:
        gram: κ⊗ among candidates ``[b, L, L]``.
        target_mean: μ_Q at the candidates, in the dtype of sums ``[b, L]``.
        target_norm: ‖μ_Q‖² ``[b]``.
        diagonal: κ(x, x) of the candidates ``[b, L]``.
        attended: κ(x_i, q) clipped at zero and, behind it, the same times the conflict ``[b, L, 2q]``; of one query in
            the dtype of sums, for an operation on two dtypes takes thrice as long.
        empty_conflict: R6 at the queries where nothing is attended to ``[b, q]``.
        query_weights: Weights of the queries in R6 ``[b, q]``, summing to 1.
        radius: B of R3 ``[b]``.
        outputs: Values of the candidates ``[b, L, c]``; c = 0 where no reader is modelled.
        width: d of R3.
        weights: Weights of the terms.
        reader: What the reader is expected to lose with a prompt (R9), or None.
        code: Which of ``distinct_outputs`` each candidate has ``[b, L]``; None where R9 is as quick candidate by
            candidate.
    """

    gram: Tensor
    target_mean: Tensor
    target_norm: Tensor
    diagonal: Tensor
    attended: Tensor
    empty_conflict: Tensor
    query_weights: Tensor
    radius: Tensor
    outputs: Tensor
    width: int
    weights: ObjectiveWeights
    reader: ReaderLoss | None = None
    code: Tensor | None = None

    @classmethod
    def build(
        cls, blocks: GramBlocks, output_share: float, weights: ObjectiveWeights, reader: ReaderLoss | None = None
    ) -> "Objective":
        """J for Gram matrices, a share ρ of the output kernel in [0, 1], weights of the terms, and a reader or none."""
        mass = blocks.target.weights
        queries = blocks.target.queries
        joint_st = blocks.inputs_st * mix_output_kernel(blocks.values_st, output_share)
        attention = blocks.inputs_st[..., :queries].clamp_min(0)
        attended = torch.cat([attention, attention * blocks.conflict], -1)
        exact = choose_sum_dtype(joint_st)
        return cls(
            gram=mix_output_kernel(blocks.values_ss, output_share).mul_(blocks.inputs_ss),
            target_mean=(joint_st @ mass[..., None]).squeeze(-1).to(exact),
            target_norm=blocks.target_norm(output_share, exact),
            diagonal=blocks.inputs_ss.diagonal(dim1=-2, dim2=-1),
            attended=attended.to(exact) if queries == 1 else attended,
            empty_conflict=blocks.empty_conflict,
            query_weights=blocks.target.query_mass[..., :queries],
            radius=blocks.radius,
            outputs=blocks.values if reader is not None else blocks.values[..., :0],
            width=blocks.width,
            weights=weights,
            reader=reader,
            code=None if reader is None else find_codes(blocks.values),
        )

    @property
    def attention(self) -> Tensor:
        """κ(x_i, q) clipped at zero ``[b, L, q]``."""
        return self.attended[..., : self.query_weights.shape[-1]]

    @cached_property
    def own(self) -> Tensor:
        """κ⊗ of each candidate with itself, in the dtype of sums ``[b, L]``."""
        return self.gram.diagonal(dim1=-2, dim2=-1).to(self.sum_dtype, copy=True)

    @property
    def sum_dtype(self) -> torch.dtype:
        """The dtype of the sums whose difference is MMD²: float64 where the device has it."""
        return choose_sum_dtype(self.gram)

    def subset(self, keep: Tensor) -> "Objective":
        """The problems ``keep`` (indices or mask ``[b]``) alone."""
        keep = keep.nonzero().squeeze(-1) if keep.dtype is torch.bool else keep
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        kept: dict[str, Any] = {
            name: value.index_select(0, keep) for name, value in values.items() if isinstance(value, Tensor)
        }
        part = replace(self, **kept, reader=None if self.reader is None else self.reader.subset(keep))
        if vars(self).get("_all_attend"):
            vars(part)["_all_attend"] = True
        return part

    def rounding(self, total: Tensor, bias: Tensor) -> Tensor:
        """How far J may be off by rounding, where it is ``total`` and its MMD ``bias``: smaller differences are ties.

        MMD² is a difference of sums of the size of ‖μ_Q‖² + κ⊗max, so its rounding does not shrink with it; the square
        root turns an error e of MMD² into e/(2·MMD), and near zero into √e.
        """
        unit = 32 * torch.finfo(self.gram.dtype).eps
        size = self.target_norm + self.gram.diagonal(dim1=-2, dim2=-1).amax(-1)
        error = unit * size.view((-1,) + (1,) * (bias.ndim - 1))
        return self.weights.bias * error / (bias + error.sqrt()) + unit * total.abs().clamp_min(1)

    def find_limit(self, total: Tensor, bias: Tensor, divisor: Tensor | float) -> Tensor:
        """Up to where J of sets that differ in one member cannot be told from the least of them ``[b, 1]``.

        By the rounding of Gram entries, that is. It is far below ``rounding``, which holds for sets and weights of any
        kind: the sums are taken in float64, and the sets share all entries but the member's own, some 4/k in MMD².

        Args:
            total: J of the sets ``[b, …]``, not negative; +inf where a set is barred.
            bias: Their MMD ``[b, …]``.
            divisor: Number of members.
        """
        error, root = self._error
        if total.ndim > 2:
            error, root = error[..., None], root[..., None]
        wide = add_quotient(bias, root, divisor**0.5)
        if isinstance(divisor, Tensor):
            error, divisor = error / divisor, 1.0
        most = torch.addcdiv(total, error, wide, value=self.weights.bias / divisor)
        most = most.flatten(1) if most.ndim > 2 else most
        return most.amin(-1, keepdim=True).mul_(1 + 4 * torch.finfo(self.gram.dtype).eps)

    @cached_property
    def _error(self) -> tuple[Tensor, Tensor]:
        """32 roundings of the largest κ⊗(z, z) of the candidates, and the square root of that; ``[b, 1]``."""
        error = self.own.amax(-1, keepdim=True) * (32 * torch.finfo(self.gram.dtype).eps)
        return error, error.sqrt()

    def evaluate(self, sums: SetSums) -> tuple[Tensor, Tensor]:
        """J and its MMD from the sums over sets with a member; terms of weight 0 are not computed. Both ``[b, …]``."""
        bias, w = self._bias(sums), self.weights
        total = bias if w.bias == 1 else w.bias * bias
        if w.complexity:
            total = total + w.complexity * self._complexity(sums)
        if w.interference:
            if self._all_attend and sums.conflict.shape[-1] == 1:  # one operation where others are five
                conflict, attention = sums.conflict.squeeze(-1), sums.attention.squeeze(-1)
                total = torch.addcdiv(total, conflict, attention, value=w.interference)
            else:
                total = torch.add(total, self._interference(sums), alpha=w.interference)
        if w.reader and self.reader is not None:
            total = torch.add(total, self._reader_loss(sums), alpha=w.reader)
        return total, bias

    def terms(self, sums: SetSums) -> Terms:
        """All terms, and J, from the sums over sets.

        The empty set predicts nothing: its bias is ‖W_Q‖, and its read-out misses the whole of v̂(q) (R6).
        """
        bias, complexity, interference = self._bias(sums), self._complexity(sums), self._interference(sums)
        reader = torch.zeros_like(interference) if self.reader is None else self._reader_loss(sums)
        w = self.weights
        total = w.bias * bias + w.complexity * complexity + w.interference * interference + w.reader * reader
        narrow = (values.to(self.gram.dtype) for values in (bias, complexity, interference, reader, total))
        return Terms(*narrow)

    def squared_mmd(self, pairs: Tensor, target: Tensor, divisor: Tensor | float) -> Tensor:
        """MMD² before it is clamped at zero: ‖μ_Q‖² + Σ_ij κ⊗(z_i, z_j)/n² − 2 Σ_i μ_Q(z_i)/n, ``[b, …]``.

        It is a small difference: the sums are in float64 where the device has it, whatever the Gram matrices are.

        Args:
            pairs: Σ_ij κ⊗(z_i, z_j) ``[b, …]``.
            target: Σ_i μ_Q(z_i) ``[b, …]``.
            divisor: n, or 1 where the members' weights sum to 1; broadcasts to ``[b, …]``.
        """
        norm = self.target_norm.view((-1,) + (1,) * (pairs.ndim - 1))
        return add_quotient(add_quotient(norm, pairs, divisor**2), target, divisor, -2)

    @staticmethod
    def _bias(sums: SetSums) -> Tensor:
        return sums.squared.clamp_min(0).sqrt_()

    def _complexity(self, sums: SetSums) -> Tensor:
        radius = self.radius.view((-1,) + (1,) * (sums.squared.ndim - 1))
        return complexity_of_trace(sums.diagonal / sums.divisor**2, radius, self.width)

    @cached_property
    def _all_attend(self) -> bool:
        """Whether every query attends to every candidate, so that it attends to every set with a member."""
        return bool((self.attention > 0).all())

    def _interference(self, sums: SetSums) -> Tensor:
        """R6, mean over the queries, of the shape of ``sums.squared``; where attention vanishes, that of no prompt."""
        shape = (-1,) + (1,) * (sums.squared.ndim - 1) + (self.query_weights.shape[-1],)
        ratio = torch.where(sums.attention > 0, sums.conflict / sums.attention, self.empty_conflict.view(shape))
        return (ratio * self.query_weights.view(shape)).sum(-1)

    def _reader_loss(self, sums: SetSums) -> Tensor:
        """L of R9, mean over the queries, of the shape of ``sums.squared``."""
        assert self.reader is not None
        divisor = sums.divisor
        shown = sums.shown / (divisor[..., None].to(sums.shown) if isinstance(divisor, Tensor) else divisor)
        losses = self.reader(shown, shown if sums.last is None else sums.last)
        losses = (losses * self.query_weights.view(-1, *(1,) * (losses.ndim - 2), losses.shape[-1])).sum(-1)
        return losses if sums.code is None else losses.gather(-1, sums.code)

    def state(self, chosen: Tensor) -> SetSums:
        """The sums over the sets ``chosen: [b, K]`` (−1 pads), ``[b, …]``."""
        there, index = chosen >= 0, chosen.clamp_min(0)
        mask = there.to(self.gram.dtype)
        gram = gather_rows(self.gram, index).gather(2, index[:, None, :].expand(-1, index.shape[1], -1))
        pairs = (gram * (mask[:, :, None] * mask[:, None, :])).sum((1, 2), dtype=self.sum_dtype)
        target = (self.target_mean.gather(-1, index) * there).sum(-1)
        attended = mask[:, None, :].to(self.attended.dtype) @ gather_rows(self.attended, index)
        attention, conflict = self.split(attended.squeeze(1))
        divisor = there.sum(-1).clamp_min(1).to(self.sum_dtype)
        return SetSums(
            squared=self.squared_mmd(pairs, target, divisor),
            diagonal=(self.diagonal.gather(-1, index) * mask).sum(-1),
            conflict=conflict,
            attention=attention,
            shown=(mask[:, None, :] @ gather_rows(self.outputs, index)).squeeze(1),
            divisor=divisor,
        )

    def split(self, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Attention and conflict of ``attended: [b, …, 2q]``, each ``[b, …, q]``."""
        q = self.query_weights.shape[-1]
        return attended[..., :q], attended[..., q:]


def list_distinct_outputs(v: Tensor) -> Tensor:
    """The values of labels, and behind them that of none, ``[c + 1, c]``; ``v: [..., c]`` gives dtype and device."""
    width = v.shape[-1]
    return torch.eye(width + 1, width, dtype=v.dtype, device=v.device)


def find_codes(v: Tensor) -> Tensor | None:
    """The code of each of many values ``[b, L, c]`` in ``list_distinct_outputs``, ``[b, L]``.

    None where they are few, are no labels, or labels are as many as candidates: nothing would be gained.
    """
    width = v.shape[-1]
    if v.numel() < MANY or 2 * width > v.shape[-2]:
        return None
    places = torch.arange(1, width + 1, dtype=v.dtype, device=v.device)
    code = (v @ places).long().sub_(1).remainder_(width + 1)
    return code if torch.equal(list_distinct_outputs(v)[code], v) else None


def add_quotient(base: Tensor, numerator: Tensor, divisor: Tensor | float, factor: float = 1.0) -> Tensor:
    """Base + factor·numerator/divisor, in one operation."""
    if isinstance(divisor, Tensor):
        return torch.addcdiv(base, numerator, divisor, value=factor)
    return torch.add(base, numerator, alpha=factor / divisor)


def choose_sum_dtype(values: Tensor) -> torch.dtype:
    """The dtype in which sums are taken whose difference is small: float64 where the device of the values has it."""
    return values.dtype if values.device.type == "mps" else torch.float64
