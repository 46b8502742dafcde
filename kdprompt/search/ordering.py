r"""In which order: R7. Order acts through position weights alone, w_π(i) = ω_i for a profile ω.

The distance between two orders of one set is an MMD between two weightings of the same points, so an order is
chosen by J itself, without asking an LLM. Exact up to 7 demonstrations, by pair-swap descent beyond.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Literal

import torch
from torch import Tensor

from kdprompt.objective.candidate_outputs import CandidateOutputs
from kdprompt.objective.objective import Objective
from kdprompt.objective.set_state import gather_rows
from kdprompt.objective.weighted_sets import evaluate_place_swaps, evaluate_weighted, weighted_terms
from kdprompt.search.position_profiles import PositionProfile, Recency, Uniform
from kdprompt.search.search import first_minimum
from kdprompt.tagged_union import TaggedUnion
from kdprompt.theory.attention import normalise_attention

__all__ = [
    "AgreementLast",
    "ByObjective",
    "EvidenceLast",
    "LikeliestLast",
    "NearestFirst",
    "NearestLast",
    "Order",
    "OrderingProblem",
]

EXACT = 7
CHUNK = 32
STEPS = 1 << 16  # to which places are rounded, so that equal ones are equal on every device
TIE = 1e-3  # to which estimated shares of outputs, and agreements, are rounded: equal ones are ties


@dataclass(frozen=True)
class OrderingProblem:
    """What reading orders look at: J, and the outputs of the candidates.

    Attributes:
        objective: J of ``b`` problems with ``L`` candidates.
        outputs: Their outputs.
    """

    objective: Objective
    outputs: CandidateOutputs


class Order(TaggedUnion, ABC):
    """A rule that puts sets into reading order, and the profile under which the prompt is then weighed."""

    profile: PositionProfile

    @property
    def reads_outputs(self) -> bool:
        """Whether it looks at the outputs that are estimated for the queries, beside J."""
        return False

    @abstractmethod
    def arrange(self, problem: OrderingProblem, chosen: Tensor, fixed: int = 0) -> Tensor:
        """Sets ``[b, K]`` (−1 pads, anywhere) to reading order, pads last, ``[b, K]``; the first ``fixed`` stay."""

    def weights(self, arranged: Tensor, like: Tensor) -> Tensor:
        """Position weights of arranged sets ``[b, K]``, zero at pads; dtype and device of ``like``."""
        size = arranged.shape[1]
        table = torch.zeros(size + 1, size, dtype=like.dtype, device=like.device)
        for k in range(1, size + 1):
            table[k, :k] = torch.tensor(self.profile.weights(k), dtype=like.dtype)
        return table[(arranged >= 0).sum(-1)]


def _by_attention(objective: Objective, chosen: Tensor, fixed: int, *, nearest_last: bool) -> Tensor:
    if fixed:
        moved = _by_attention(objective, chosen[:, fixed:], 0, nearest_last=nearest_last)
        return torch.cat([chosen[:, :fixed], moved], -1)
    attention = (objective.attention * objective.query_weights[:, None, :]).sum(-1)
    near = attention.gather(-1, chosen.clamp_min(0))
    near = near if nearest_last else -near
    # Sorted by candidate first, then stably by attention: ties stand in the order of ids.
    start = torch.where(chosen >= 0, chosen, torch.iinfo(chosen.dtype).max).argsort(-1)
    key = near.masked_fill(chosen < 0, torch.inf).gather(-1, start)
    return chosen.gather(-1, start.gather(-1, key.argsort(dim=-1, stable=True)))


@dataclass(frozen=True)
class NearestLast(Order):
    """Rising attention κ(x_i, q): the demonstration nearest to the query stands next to it."""

    profile: PositionProfile = field(default_factory=Uniform)
    kind: Literal["nearest_last"] = "nearest_last"

    def arrange(self, problem: OrderingProblem, chosen: Tensor, fixed: int = 0) -> Tensor:
        return _by_attention(problem.objective, chosen, fixed, nearest_last=True)


@dataclass(frozen=True)
class NearestFirst(Order):
    """Falling attention κ(x_i, q)."""

    profile: PositionProfile = field(default_factory=Uniform)
    kind: Literal["nearest_first"] = "nearest_first"

    def arrange(self, problem: OrderingProblem, chosen: Tensor, fixed: int = 0) -> Tensor:
        return _by_attention(problem.objective, chosen, fixed, nearest_last=False)


@dataclass(frozen=True)
class LikeliestLast(Order):
    """The likeliest output last, the least likely first, those between in turn; equal outputs nearest last.

    Attention that rises toward the query (R7) weighs the ends of a prompt unlike: where what stands last has the output
    that the query likeliest has, and what stands first an unlikely one, R6 is small under such weights. Equal outputs
    are spread evenly, so that the outputs of every stretch of the prompt are mixed as in all of it, and R2 changes
    little.
    """

    profile: PositionProfile = field(default_factory=Uniform)
    kind: Literal["likeliest_last"] = "likeliest_last"

    @property
    def reads_outputs(self) -> bool:
        return True

    def arrange(self, problem: OrderingProblem, chosen: Tensor, fixed: int = 0) -> Tensor:
        start = _by_attention(problem.objective, chosen, fixed, nearest_last=True)
        tail = start[:, fixed:]
        if not tail.numel():
            return start
        places = _spread(problem.outputs, tail).masked_fill(tail < 0, torch.iinfo(torch.long).max)
        return torch.cat([start[:, :fixed], tail.gather(-1, places.argsort(dim=-1, stable=True))], -1)


def _spread(outputs: CandidateOutputs, members: Tensor) -> Tensor:
    """Where members ``[b, K]`` (nearest last, −1 pads last) stand, as integers to be sorted stably ``[b, K]``.

    The j-th of n with equal outputs stands at (j + s)/n, j from 0, where s rises from 0 for the least likely output to
    1 for the likeliest: of outputs that are equally likely the commoner one, then the one with the nearest member. Of
    two at one place the likelier output stands first, as the other comes next.
    """
    there, index = members >= 0, members.clamp_min(0)
    slots = torch.arange(members.shape[1], device=members.device)
    group = outputs.group(index)
    same = (group[:, :, None] == group[:, None, :]) & there[:, None, :]
    count = same.sum(-1).clamp_min(1)
    before = (same & (slots < slots[:, None])).sum(-1)
    likely = (outputs.likelihood(index) / TIE).round().long()
    likely = likely - likely.amin(-1, keepdim=True)
    nearest = (same * slots).amax(-1)
    key = (likely * (len(slots) + 1) + count) * len(slots) + nearest
    leads = there & (before == 0)  # one member of each output
    rank = ((key[:, None, :] < key[:, :, None]) & leads[:, None, :]).sum(-1)
    shift = rank / (leads.sum(-1, keepdim=True) - 1).clamp_min(1)
    return ((before + shift) / count * STEPS).round().long() * len(slots) - rank


@dataclass(frozen=True)
class AgreementLast(Order):
    """Rising agreement ⟨v_i, r(q)⟩: the outputs most like what the pool makes one expect last, equal ones nearest last.

    r(q) is what the ridge regression of the outputs on the inputs, on the whole pool, says at the query (R6): of texts
    of which no two are equal what they have in common, their form. Where none was fitted, as for labels and static
    prompts, the prompt's own read-out f̄_S(q) = Σ a_j(q) v_j stands in (R1). A reader follows most what it read last,
    so its attention rises toward the query (R7). Of all orders this one then keeps what is read nearest to what is
    expected: Σ ω_i ⟨v_i, r(q)⟩ is largest where both rise together.
    """

    profile: PositionProfile = field(default_factory=Uniform)
    kind: Literal["agreement_last"] = "agreement_last"

    def arrange(self, problem: OrderingProblem, chosen: Tensor, fixed: int = 0) -> Tensor:
        start = _by_attention(problem.objective, chosen, fixed, nearest_last=True)
        if not start.numel():
            return start
        agreement = problem.outputs.agreement(start, _attention_shares(problem.objective, start))
        agreement = (agreement / TIE).round().masked_fill(start < 0, torch.inf)
        tail = start[:, fixed:].gather(-1, agreement[:, fixed:].argsort(dim=-1, stable=True))
        return torch.cat([start[:, :fixed], tail], -1)


def _attention_shares(objective: Objective, members: Tensor) -> Tensor:
    """a_i(q) of the members of prompts ``[b, K]``, the mean over the queries, in the dtype of sums ``[b, K]``.

    Equal shares where nobody attends to any query, as under a kernel that is wider and wider; 0 at pads.
    """
    there = (members >= 0).to(objective.sum_dtype)
    pull = gather_rows(objective.attention, members.clamp_min(0)).to(there) * there[..., None]
    shares = (normalise_attention(pull, 1) * objective.query_weights[:, None, :].to(there)).sum(-1)
    return normalise_attention(torch.where(shares.sum(-1, keepdim=True) > 0, shares, there), -1)


@dataclass(frozen=True)
class EvidenceLast(Order):
    """Nearest last, but for the demonstration at the very end: the one with which J is least there (R9).

    What stands last moves a reader most, so it completes the evidence that the prompt carries: of the output that is
    still short of what the pool knows. Of equal ones the nearest stands there. Without a model of the reader J does not
    tell the ends apart, and the order is nearest last.
    """

    profile: PositionProfile = field(default_factory=Uniform)
    kind: Literal["evidence_last"] = "evidence_last"

    def arrange(self, problem: OrderingProblem, chosen: Tensor, fixed: int = 0) -> Tensor:
        objective = problem.objective
        start = _by_attention(objective, chosen, fixed, nearest_last=True)
        k = start.shape[1]
        sizes = (start >= 0).sum(-1, keepdim=True)
        if objective.reader is None or k - fixed < 2:
            return start
        place = torch.arange(k, device=start.device)
        # From the end: the order as it stands comes first, so that it stays where nothing is better.
        ends = (sizes - 1 - torch.arange(k - fixed, device=start.device)).clamp_min(0)
        moved = torch.where(place >= ends[..., None], place + 1, place).clamp_max(k - 1)
        orders = torch.where(place == sizes[..., None] - 1, ends[..., None], moved)  # of places, [b, K − fixed, K]
        orders = torch.where(place < sizes[..., None], orders, place)
        weights = self.weights(start, objective.gram)[:, None, :].expand_as(orders)
        by_member = torch.zeros_like(weights).scatter(-1, orders, weights)
        terms = weighted_terms(objective, start, by_member, torch.where(sizes > 0, ends, -1))
        allowed = torch.arange(k - fixed, device=start.device) < sizes - fixed
        total = terms.total.masked_fill(~allowed & (place[: k - fixed] > 0), torch.inf)
        best = first_minimum(total, objective.rounding(terms.total, terms.bias))[1]
        return start.gather(-1, orders[torch.arange(len(best), device=best.device), best])


@dataclass(frozen=True)
class ByObjective(Order):
    """The order with the smallest J under the profile: R7, exact to 7 demonstrations, pair-swap descent beyond.

    Orders that J does not tell apart (all of them under a uniform profile) stay nearest-last.
    """

    profile: PositionProfile = field(default_factory=Recency)
    kind: Literal["by_objective"] = "by_objective"

    def arrange(self, problem: OrderingProblem, chosen: Tensor, fixed: int = 0) -> Tensor:
        objective = problem.objective
        start = _by_attention(objective, chosen, fixed, nearest_last=True)
        result = start.clone()
        sizes = (start >= 0).sum(-1)
        for k in sorted(set(sizes.tolist())):
            if k - fixed < 2:
                continue
            rows = (sizes == k).nonzero().squeeze(-1)
            search = _enumerate if k - fixed <= EXACT else _descend
            result[rows, :k] = search(objective.subset(rows), start[rows, :k], self.profile, fixed)
        return result


def _position_weights(orders: Tensor, profile: PositionProfile, like: Tensor) -> Tensor:
    """Weights by member for ``orders: [..., k]`` that list members in reading order, ``[..., k]``."""
    omega = torch.tensor(profile.weights(orders.shape[-1]), dtype=like.dtype, device=like.device)
    return torch.zeros(orders.shape, dtype=like.dtype, device=like.device).scatter(
        -1, orders, omega.expand(orders.shape)
    )


def _enumerate(objective: Objective, start: Tensor, profile: PositionProfile, fixed: int) -> Tensor:
    tails = permutations(range(fixed, start.shape[1]))
    orders = torch.tensor([(*range(fixed), *tail) for tail in tails], device=start.device)
    weights = _position_weights(orders, profile, objective.gram)
    best = []
    for first in range(0, start.shape[0], CHUNK):
        rows = torch.arange(first, min(first + CHUNK, start.shape[0]), device=start.device)
        part = objective.subset(rows)
        each = weights.expand(len(rows), -1, -1)
        total, bias = evaluate_weighted(part, start[rows], each, orders[None, :, -1].expand(len(rows), -1))
        best.append(first_minimum(total, part.rounding(total, bias))[1])
    return start.gather(-1, orders[torch.cat(best)])


def _descend(objective: Objective, start: Tensor, profile: PositionProfile, fixed: int) -> Tensor:
    k, device = start.shape[1], start.device
    pairs = torch.tensor([(0, 0), *combinations(range(fixed, k), 2)], device=device)  # the first changes nothing
    weights = torch.tensor(profile.weights(k), dtype=objective.sum_dtype, device=device)
    current, active = start.clone(), torch.arange(start.shape[0], device=device)
    while active.numel():
        part = objective.subset(active)
        total, bias = evaluate_place_swaps(part, current[active], weights, pairs)
        _, best = first_minimum(total, part.rounding(total, bias))
        swapped = pairs[best]
        current[active] = current[active].scatter(-1, swapped, current[active].gather(-1, swapped.flip(-1)))
        active = active[best > 0]
    return current
