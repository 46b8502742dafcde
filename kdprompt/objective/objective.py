r"""J: what is minimised, reported and explained, and the only place that combines its terms.

J(S, w) = bias·MMD_κ⊗(S, Q) + complexity·R3(S, w) + interference·R6(S, w) + reader·L(S, w)            (R8, R9)

L takes the place of R6 where outputs are labels; calibration gives one of the two a weight.

J is evaluated from Gram matrices alone. Batches of ``b`` problems with ``L`` candidates each are leading dimensions;
sets are index tensors ``chosen: [b, K]``, padded with −1. Search, order, explanation and report ask for J in different
ways (a set, a set with one more member, a set under given weights); all of them end in ``Objective._combine``. Which
demonstration stands last is not part of a set: there L takes every member as equally likely to do so.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.objective.gram import GramBlocks
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.theory.bounds import complexity_of_trace
from kdprompt.theory.kernels import mix_output_kernel

__all__ = ["Objective", "SetState", "SetSums", "Terms"]


@dataclass(frozen=True)
class Terms:
    """The terms of J, unweighted, and J itself; tensors of one shape.

    Attributes:
        bias: MMD to the target (R2).
        complexity: R3.
        interference: R6, scaled by the support of v̂; of a prompt that nothing attends to, support·‖v̂‖.
        reader: L of R9, in nats; 0 where no reader is modelled.
        total: J.
    """

    bias: Tensor
    complexity: Tensor
    interference: Tensor
    reader: Tensor
    total: Tensor


@dataclass(frozen=True)
class SetSums:
    """The sums over the members of a set that determine its terms; members count with weight 1 or as given.

    Attributes:
        pairs: Σ_ij κ⊗(z_i, z_j) ``[b, …]``.
        target: Σ_i μ_Q(z_i) ``[b, …]``.
        diagonal: Σ_i κ(x_i, x_i) ``[b, …]``.
        conflict: Σ_i κ(x_i, q)·conflict_i(q) ``[b, …, q]``.
        attention: Σ_i κ(x_i, q) ``[b, …, q]``.
        shown: Σ_i v_i ``[b, …, c]``, for R9; c = 0 where no reader is modelled.
        divisor: What turns the sums into means: the number of members, or 1 where the weights sum to 1 ``[b, …]``.
        last: v of the last demonstration ``[b, …, c]``; None: the mean of the members'.
    """

    pairs: Tensor
    target: Tensor
    diagonal: Tensor
    conflict: Tensor
    attention: Tensor
    shown: Tensor
    divisor: Tensor
    last: Tensor | None = None


@dataclass(frozen=True)
class SetState:
    """A set in each problem with the sums that J needs, for uniform weights.

    Attributes:
        chosen: Candidate indices ``[b, K]``, −1 where a slot is empty; filled slots come first.
        count: Number of members ``[b]``.
        overlap: Σ_i κ⊗(z, z_i) for every candidate z ``[b, L]``.
        sums: Sums over the members.
    """

    chosen: Tensor
    count: Tensor
    overlap: Tensor
    sums: SetSums


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
            gram=blocks.inputs_ss * mix_output_kernel(blocks.values_ss, output_share),
            target_mean=(joint_st @ mass[..., None]).squeeze(-1),
            target_norm=(mass * (joint_tt @ mass[..., None]).squeeze(-1)).sum(-1),
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

    def subset(self, keep: Tensor) -> "Objective":
        """The problems ``keep`` (indices or mask ``[b]``) alone."""
        fields = {name: value[keep] for name, value in vars(self).items() if isinstance(value, Tensor)}
        reader = None if self.reader is None else self.reader.subset(keep)
        return Objective(**fields, width=self.width, weights=self.weights, reader=reader)

    def rounding(self, terms: Terms) -> Tensor:
        """How far J may be off by rounding: smaller differences are ties; shape of the terms.

        MMD² is a difference of sums of the size of ‖μ_Q‖² + κ⊗max, so its rounding does not shrink with it; the square
        root turns an error e of MMD² into e/(2·MMD), and near zero into √e.
        """
        unit = 32 * torch.finfo(self.gram.dtype).eps
        size = self.target_norm + self.gram.diagonal(dim1=-2, dim2=-1).amax(-1)
        error = unit * size.view((-1,) + (1,) * (terms.bias.ndim - 1))
        return self.weights.bias * error / (terms.bias + error.sqrt()) + unit * terms.total.abs().clamp_min(1)

    def _combine(self, sums: SetSums) -> Terms:
        """J from the sums over a set: the one formula."""
        shape = (-1,) + (1,) * (sums.pairs.ndim - 1)
        divisor = sums.divisor.clamp_min(1).to(sums.pairs.dtype)
        squared = sums.pairs / divisor.square() - 2 * sums.target / divisor + self.target_norm.view(shape)
        bias = squared.clamp_min(0).sqrt()
        complexity = complexity_of_trace(sums.diagonal / divisor.square(), self.radius.view(shape), self.width)
        by_query = (*shape, self.query_weights.shape[-1])
        attended = sums.attention > 0
        mean_conflict = sums.conflict / torch.where(attended, sums.attention, 1)
        ratio = torch.where(attended, mean_conflict, self.empty_conflict.view(by_query))
        interference = (ratio * self.query_weights.view(by_query)).sum(-1)
        reader = self._reader_loss(sums, divisor)
        w = self.weights
        total = w.bias * bias + w.complexity * complexity + w.interference * interference + w.reader * reader
        return Terms(bias, complexity, interference, reader, total)

    def _reader_loss(self, sums: SetSums, divisor: Tensor) -> Tensor:
        """L of R9, mean over the queries, of the shape of ``divisor``."""
        if self.reader is None:
            return torch.zeros_like(divisor)
        shown = sums.shown / divisor[..., None]
        losses = self.reader(shown, shown if sums.last is None else sums.last)
        return (losses * self.query_weights.view(-1, *(1,) * (divisor.ndim - 1), losses.shape[-1])).sum(-1)

    # -- sets under uniform weights ---------------------------------------------------------------------------------

    def state(self, chosen: Tensor) -> SetState:
        """The state of the sets ``chosen: [b, K]`` (−1 pads)."""
        mask = (chosen >= 0).to(self.gram.dtype)
        index = chosen.clamp_min(0)
        count = (chosen >= 0).sum(-1)
        overlap = (_gather_rows(self.gram, index) * mask[..., None]).sum(1)
        sums = SetSums(
            pairs=(overlap.gather(-1, index) * mask).sum(-1),
            target=(self.target_mean.gather(-1, index) * mask).sum(-1),
            diagonal=(self.diagonal.gather(-1, index) * mask).sum(-1),
            conflict=(_gather_rows(self.conflict, index) * mask[..., None]).sum(1),
            attention=(_gather_rows(self.attention, index) * mask[..., None]).sum(1),
            shown=(_gather_rows(self.outputs, index) * mask[..., None]).sum(1),
            divisor=count,
        )
        return SetState(chosen, count, overlap, sums)

    def terms(self, state: SetState) -> Terms:
        """The terms of the sets, each ``[b]``.

        The empty set predicts nothing: its bias is ‖W_Q‖, and its read-out misses the whole of v̂(q) (R6).
        """
        return self._combine(state.sums)

    def terms_with_each(self, state: SetState) -> Terms:
        """The terms of S ∪ {i} for every candidate i, each ``[b, L]``."""
        before = state.sums
        sums = SetSums(
            pairs=before.pairs[:, None] + 2 * state.overlap + self.gram.diagonal(dim1=-2, dim2=-1),
            target=before.target[:, None] + self.target_mean,
            diagonal=before.diagonal[:, None] + self.diagonal,
            conflict=before.conflict[:, None] + self.conflict,
            attention=before.attention[:, None] + self.attention,
            shown=before.shown[:, None] + self.outputs,
            divisor=(state.count + 1)[:, None],
        )
        return self._combine(sums)

    def add_member(self, state: SetState, slot: int, index: Tensor) -> SetState:
        """The state with candidates ``index: [b]`` put into an empty slot; −1 leaves a problem as it is."""
        joins, at = index >= 0, index.clamp_min(0)[:, None]
        mask, before = joins.to(self.gram.dtype), state.sums
        chosen = state.chosen.clone()
        chosen[:, slot] = index
        row = _gather_rows(self.gram, at).squeeze(1)
        with_itself = row.gather(-1, at).squeeze(-1)
        count = state.count + joins
        sums = SetSums(
            pairs=before.pairs + (2 * state.overlap.gather(-1, at).squeeze(-1) + with_itself) * mask,
            target=before.target + self.target_mean.gather(-1, at).squeeze(-1) * mask,
            diagonal=before.diagonal + self.diagonal.gather(-1, at).squeeze(-1) * mask,
            conflict=before.conflict + _gather_rows(self.conflict, at).squeeze(1) * mask[:, None],
            attention=before.attention + _gather_rows(self.attention, at).squeeze(1) * mask[:, None],
            shown=before.shown + _gather_rows(self.outputs, at).squeeze(1) * mask[:, None],
            divisor=count,
        )
        return SetState(chosen, count, state.overlap + row * mask[:, None], sums)

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
        gram = _gather_rows(self.gram, index).gather(2, index[:, None, :].expand(-1, size, -1))
        pairs = (weights @ gram * weights).sum(-1)
        outputs = _gather_rows(self.outputs, index)
        with_none = torch.cat([outputs.new_zeros(len(outputs), 1, outputs.shape[-1]), outputs], 1)
        last_outputs = _gather_rows(with_none, last + 1)
        sums = SetSums(
            pairs=pairs,
            target=(weights * self.target_mean.gather(-1, index)[:, None, :]).sum(-1),
            diagonal=(weights.square() * self.diagonal.gather(-1, index)[:, None, :]).sum(-1),
            conflict=weights @ _gather_rows(self.conflict, index),
            attention=weights @ _gather_rows(self.attention, index),
            shown=weights @ outputs,
            divisor=torch.ones_like(pairs),
            last=last_outputs,
        )
        return self._combine(sums)


def _gather_rows(matrix: Tensor, index: Tensor) -> Tensor:
    """Rows ``index: [b, K]`` of ``matrix: [b, L, c]``, ``[b, K, c]``."""
    return matrix.gather(1, index[..., None].expand(-1, -1, matrix.shape[-1]))
