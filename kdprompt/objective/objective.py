r"""J, the waist of the house: what is minimised, reported and explained, and the only place that knows its terms.

J(S, w) = bias·MMD_κ⊗(S, Q) + complexity·R3(S, w) + interference·R6(S, w)            (R8)

It is evaluated from Gram matrices alone. Batches of ``b`` problems with ``L`` candidates each are leading
dimensions; sets are index tensors ``chosen: [b, K]``, padded with −1. Every way to change a set (add, swap, reweight)
goes through one ``_combine``, so that search, order, explanation and report read the same number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.objective.gram import GramBlocks
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.theory.bounds import complexity_of_trace
from kdprompt.theory.kernels import mix_output_kernel

__all__ = ["Objective", "State", "Terms"]


@dataclass(frozen=True)
class Terms:
    """The terms of J, unweighted, and J itself; tensors of one shape.

    Attributes:
        bias: MMD to the target (R2).
        complexity: R3.
        interference: R6, scaled by the support of v̂; of a prompt that nothing attends to, support·‖v̂‖.
        total: J.
    """

    bias: Tensor
    complexity: Tensor
    interference: Tensor
    total: Tensor


@dataclass(frozen=True)
class State:
    """A set in each problem with the sums that J needs, for uniform weights.

    Attributes:
        chosen: Candidate indices ``[b, K]``, −1 where a slot is empty; filled slots come first.
        count: Number chosen ``[b]``.
        quad: Σ_ij κ⊗(z_i, z_j) over the set ``[b]``.
        linear: Σ_i μ_Q(z_i) ``[b]``.
        trace: Σ_i κ(x_i, x_i) ``[b]``.
        overlap: Σ_i κ⊗(z, z_i) for every candidate z ``[b, L]``.
        numer: Σ_i κ(x_i, q)·conflict_i(q) ``[b, q]``.
        denom: Σ_i κ(x_i, q) ``[b, q]``.
    """

    chosen: Tensor
    count: Tensor
    quad: Tensor
    linear: Tensor
    trace: Tensor
    overlap: Tensor
    numer: Tensor
    denom: Tensor


@dataclass(frozen=True)
class Objective:
    """J for ``b`` problems with ``L`` candidates each.

    Attributes:
        gram: κ⊗ among candidates ``[b, L, L]``.
        cross: μ_Q at the candidates ``[b, L]``.
        self_term: ‖μ_Q‖² ``[b]``.
        diagonal: κ(x, x) of the candidates ``[b, L]``.
        attention: κ(x_i, q) clipped at zero ``[b, L, q]``.
        pull: attention·conflict ``[b, L, q]``.
        silence: R6 at the queries where nothing is attended to ``[b, q]``.
        agreement: How likely the queries have a candidate's output ``[b, L]``.
        alike: The first candidate with the same output ``[b, L]``.
        query_weights: Weights of the queries in R6 ``[b, q]``, summing to 1.
        radius: B of R3 ``[b]``.
        width: d of R3.
        penalties: Weights of the terms.
    """

    gram: Tensor
    cross: Tensor
    self_term: Tensor
    diagonal: Tensor
    attention: Tensor
    pull: Tensor
    silence: Tensor
    agreement: Tensor
    alike: Tensor
    query_weights: Tensor
    radius: Tensor
    width: int
    penalties: ObjectiveWeights

    @classmethod
    def of(cls, parts: GramBlocks, share: float, penalties: ObjectiveWeights) -> "Objective":
        """J for Gram blocks, an output-kernel share ρ in [0, 1] and weights of the terms."""
        w = parts.target.weights
        at = parts.target.queries
        joint_tt = parts.inputs_tt * mix_output_kernel(parts.values_tt, share)
        attention = parts.inputs_st[..., :at].clamp_min(0)
        return cls(
            gram=parts.inputs_ss * mix_output_kernel(parts.values_ss, share),
            cross=(parts.inputs_st * mix_output_kernel(parts.values_st, share) @ w[..., None]).squeeze(-1),
            self_term=(w * (joint_tt @ w[..., None]).squeeze(-1)).sum(-1),
            diagonal=parts.inputs_ss.diagonal(dim1=-2, dim2=-1),
            attention=attention,
            pull=attention * parts.conflict,
            silence=parts.silence,
            agreement=parts.agreement,
            alike=parts.alike,
            query_weights=parts.target.own[..., :at],
            radius=parts.radius,
            width=parts.width,
            penalties=penalties,
        )

    def rows(self, keep: Tensor) -> "Objective":
        """The problems ``keep`` (indices or mask ``[b]``) alone."""
        fields = {name: value[keep] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Objective(**fields, width=self.width, penalties=self.penalties)

    def rounding(self, terms: Terms) -> Tensor:
        """How far J may be off by rounding: smaller differences are ties; shape of the terms.

        MMD² is a difference of sums of the size of ‖μ_Q‖² + κ⊗max, so its rounding does not shrink with it; the square
        root turns an error e of MMD² into e/(2·MMD), and near zero into √e.
        """
        unit = 32 * torch.finfo(self.gram.dtype).eps
        size = self.self_term + self.gram.diagonal(dim1=-2, dim2=-1).amax(-1)
        error = unit * size.view((-1,) + (1,) * (terms.bias.ndim - 1))
        return self.penalties.bias * error / (terms.bias + error.sqrt()) + unit * terms.total.abs().clamp_min(1)

    def _combine(self, sums: tuple[Tensor, Tensor, Tensor], numer: Tensor, denom: Tensor, count: Tensor) -> Terms:
        """J from Σ κ⊗, Σ μ_Q, Σ κ(x, x) (each ``[b, …]``), R6's sums ``[b, …, q]``, and the divisor of the weights."""
        quad, linear, trace = sums
        shape = (-1,) + (1,) * (quad.ndim - 1)
        divisor = count.clamp_min(1).to(quad.dtype)
        squared = quad / divisor.square() - 2 * linear / divisor + self.self_term.view(shape)
        bias = squared.clamp_min(0).sqrt()
        complexity = complexity_of_trace(trace / divisor.square(), self.radius.view(shape), self.width)
        by_query = (*shape, self.query_weights.shape[-1])
        ratio = torch.where(denom > 0, numer / torch.where(denom > 0, denom, 1), self.silence.view(by_query))
        interference = (ratio * self.query_weights.view(by_query)).sum(-1)
        p = self.penalties
        total = p.bias * bias + p.complexity * complexity + p.interference * interference
        return Terms(bias, complexity, interference, total)

    def state(self, chosen: Tensor) -> State:
        """The state of the sets ``chosen: [b, K]`` (−1 pads)."""
        mask = (chosen >= 0).to(self.gram.dtype)
        index = chosen.clamp_min(0)
        rows = self.gram.gather(1, index[..., None].expand(-1, -1, self.gram.shape[-1])) * mask[..., None]
        overlap = rows.sum(1)
        by_query = index[..., None].expand(-1, -1, self.attention.shape[-1])
        return State(
            chosen=chosen,
            count=(chosen >= 0).sum(-1),
            quad=(overlap.gather(-1, index) * mask).sum(-1),
            linear=(self.cross.gather(-1, index) * mask).sum(-1),
            trace=(self.diagonal.gather(-1, index) * mask).sum(-1),
            overlap=overlap,
            numer=(self.pull.gather(1, by_query) * mask[..., None]).sum(1),
            denom=(self.attention.gather(1, by_query) * mask[..., None]).sum(1),
        )

    def terms(self, state: State) -> Terms:
        """The terms of the sets, each ``[b]``.

        The empty set predicts nothing: its bias is ‖W_Q‖, and its read-out misses the whole of v̂(q) (R6).
        """
        return self._combine((state.quad, state.linear, state.trace), state.numer, state.denom, state.count)

    def terms_with(self, state: State) -> Terms:
        """The terms of S ∪ {i} for every candidate i, each ``[b, L]``."""
        sums = (
            state.quad[:, None] + 2 * state.overlap + self.gram.diagonal(dim1=-2, dim2=-1),
            state.linear[:, None] + self.cross,
            state.trace[:, None] + self.diagonal,
        )
        count = (state.count + 1)[:, None]
        return self._combine(sums, state.numer[:, None] + self.pull, state.denom[:, None] + self.attention, count)

    def joined(self, state: State, slot: int, index: Tensor) -> State:
        """The state with candidates ``index: [b]`` put into an empty slot; −1 leaves a problem as it is."""
        joins, at = index >= 0, index.clamp_min(0)[:, None]
        mask = joins.to(self.gram.dtype)
        chosen = state.chosen.clone()
        chosen[:, slot] = index
        row = self.gram.gather(1, at[..., None].expand(-1, -1, self.gram.shape[-1])).squeeze(1)
        by_query = at[..., None].expand(-1, -1, self.attention.shape[-1])
        own = row.gather(-1, at).squeeze(-1)
        return State(
            chosen=chosen,
            count=state.count + joins,
            quad=state.quad + (2 * state.overlap.gather(-1, at).squeeze(-1) + own) * mask,
            linear=state.linear + self.cross.gather(-1, at).squeeze(-1) * mask,
            trace=state.trace + self.diagonal.gather(-1, at).squeeze(-1) * mask,
            overlap=state.overlap + row * mask[:, None],
            numer=state.numer + self.pull.gather(1, by_query).squeeze(1) * mask[:, None],
            denom=state.denom + self.attention.gather(1, by_query).squeeze(1) * mask[:, None],
        )

    def without(self, chosen: Tensor, slot: int) -> State:
        """The state of the sets ``chosen: [b, K]`` without the member in a slot."""
        rest = chosen.clone()
        rest[:, slot] = -1
        return self.state(rest)

    def terms_at(self, chosen: Tensor, weights: Tensor) -> Terms:
        """The terms of the sets under given weights of their members.

        Args:
            chosen: ``[b, K]``, −1 pads.
            weights: ``[b, P, K]`` for P weightings of each set; zero at pads; summing to 1 (or all 0: empty).

        Returns:
            Terms ``[b, P]``.
        """
        index = chosen.clamp_min(0)
        size = index.shape[-1]
        rows = self.gram.gather(1, index[..., None].expand(-1, -1, self.gram.shape[-1]))
        gram = rows.gather(2, index[:, None, :].expand(-1, size, -1))
        by_query = index[..., None].expand(-1, -1, self.attention.shape[-1])
        sums = (
            (weights @ gram * weights).sum(-1),
            (weights * self.cross.gather(-1, index)[:, None, :]).sum(-1),
            (weights.square() * self.diagonal.gather(-1, index)[:, None, :]).sum(-1),
        )
        numer = weights @ self.pull.gather(1, by_query)
        denom = weights @ self.attention.gather(1, by_query)
        return self._combine(sums, numer, denom, torch.ones_like(sums[0]))
