"""Exact bookkeeping of J: every number that a selection or an explanation shows.

The search may run in float32 on an accelerator; what is reported is computed again here, for the chosen few, in
float64 on the CPU, by the same objective. So the report carries no rounding of the search.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.calibration.pseudo_queries import Trial
from kdprompt.objective.gram import compute_gram_blocks
from kdprompt.objective.objective import Objective, Terms
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.target import Target
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.search.ordering import Order
from kdprompt.selection.result import TermValues
from kdprompt.settings import Settings
from kdprompt.theory.bounds import Bound, generalisation_gap, interference, query_sample_error
from kdprompt.theory.kernels import Kernel

__all__ = ["Audit", "Geometry", "Member", "audit"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Geometry:
    """The settings in force that J depends on.

    Attributes:
        kernel: κ of the inputs.
        share: ρ of the output kernel.
        penalties: Weights of J.
        order: Gives the position weights.
        delta: δ of the bounds.
        sampled: Number of queries drawn from the query distribution, 0 where the target is no sample (R5).
    """

    kernel: Kernel
    share: float
    penalties: ObjectiveWeights
    order: Order
    delta: float
    sampled: int = 0

    @classmethod
    def of(cls, trial: Trial, settings: Settings, sampled: int = 0) -> "Geometry":
        """What was calibrated, with the order in force."""
        return cls(trial.kernel, trial.share, trial.penalties, settings.reading, settings.delta, sampled)


@dataclass(frozen=True)
class Member:
    """One demonstration's numbers; see ``kdprompt.selection.result.Chosen``."""

    row: int
    weight: float
    attention: float
    gain: float
    marginal: float
    interference: float
    other_task: bool


@dataclass(frozen=True)
class Audit:
    """The numbers of one prompt; see ``kdprompt.selection.result.Selection``."""

    members: tuple[Member, ...]
    before: TermValues
    after: TermValues
    penalties: ObjectiveWeights
    cross_task: float
    label_conflict: float
    support: float
    estimate: dict[str, float]
    bounds: tuple[Bound, ...]


def audit(features: PoolTensors, target: Target, rows: Tensor, geometry: Geometry, tasks: Tensor) -> list[Audit]:
    """Computes what is reported of prompts.

    Args:
        features: The pool.
        target: The targets, in float64 on the CPU, ``b`` of them.
        rows: Feature rows of the demonstrations in reading order ``[b, K]``, −1 pads last, K ≥ 1.
        geometry: The settings in force.
        tasks: Task codes that the queries were given ``[b, q]``, −1 where none was.

    Returns:
        One audit a prompt.
    """
    index = rows.to(CPU).clamp_min(0)
    x, v = (part.to(CPU)[index].to(target.x.dtype) for part in (features.x, features.v))
    parts = compute_gram_blocks(geometry.kernel, x, v, target, features.radius)
    objective = Objective.of(parts, geometry.share, geometry.penalties)
    place = torch.arange(rows.shape[1])
    arranged = torch.where(rows.to(CPU) >= 0, place, -1)
    weights = geometry.order.weights(arranged, parts.inputs_ss)
    parted = _parted(arranged, geometry.order, weights)
    terms = objective.terms_at(arranged, torch.cat([torch.zeros_like(weights)[:, None], weights[:, None], parted], 1))
    share = _attention(objective, weights)
    conflict = interference(weights, objective.attention, parts.conflict) * objective.query_weights[:, None, :]
    other = _other_task(features, target, index, tasks)
    cross = (conflict * other).sum((1, 2))
    gap = generalisation_gap(terms.complexity[:, 1], weights, delta=geometry.delta)
    support = (target.support * target.own[:, : target.queries]).sum(-1)
    kernel_max = float(parts.inputs_tt.diagonal(dim1=-2, dim2=-1).amax())
    columns = zip(
        _members(rows, weights, share, terms.total, conflict, other),
        _values(terms, 0),
        _values(terms, 1),
        cross.tolist(),
        (conflict.sum((1, 2)) - cross).tolist(),
        support.tolist(),
        _estimates(features, target),
        gap.tolist(),
        strict=True,
    )
    return [
        Audit(
            members=members,
            before=before,
            after=after,
            penalties=geometry.penalties,
            cross_task=cross_task,
            label_conflict=label_conflict,
            support=support,
            estimate=estimate,
            bounds=_bounds(after, gap, kernel_max, features.radius, geometry),
        )
        for members, before, after, cross_task, label_conflict, support, estimate, gap in columns
    ]


def _parted(arranged: Tensor, order: Order, like: Tensor) -> Tensor:
    """Weightings of each prompt's prefixes (1 … K members) and of it without each member, ``[b, 2K, K]``."""
    b, size = arranged.shape
    place = torch.arange(size)
    prefixes = torch.where(place <= place[:, None], arranged[:, None, :], -1)  # row t keeps places 0 … t
    without = arranged[:, None, :].expand(-1, size, -1).masked_fill(torch.eye(size, dtype=torch.bool), -1)
    sets = torch.cat([prefixes, without], 1).reshape(2 * b * size, size)
    closed = sets.ge(0).cumsum(-1) - 1  # the place of each kept member when the others close up
    table = order.weights(torch.where(place < sets.ge(0).sum(-1, keepdim=True), place, -1), like)
    weights = table.gather(-1, closed.clamp_min(0)) * sets.ge(0)
    return weights.reshape(b, 2 * size, size)


def _attention(objective: Objective, weights: Tensor) -> Tensor:
    ones = torch.ones_like(objective.attention)
    return (interference(weights, objective.attention, ones) * objective.query_weights[:, None, :]).sum(-1)


def _other_task(features: PoolTensors, target: Target, index: Tensor, tasks: Tensor) -> Tensor:
    """Whether a demonstration's task differs from a query's, given or estimated, ``[b, K, q]``."""
    own = features.task.to(CPU)[index][..., None]
    given = tasks.to(CPU)
    task = torch.where(given >= 0, given, target.task)[:, None, :]
    return (own != task) & (own >= 0) & (task >= 0)


def _members(
    rows: Tensor, weights: Tensor, share: Tensor, totals: Tensor, pull: Tensor, other: Tensor
) -> list[tuple[Member, ...]]:
    size = rows.shape[1]
    path = torch.cat([totals[:, :1], totals[:, 2 : 2 + size]], 1)
    gain, marginal = path[:, :-1] - path[:, 1:], totals[:, 2 + size :] - totals[:, 1:2]
    numbers = torch.stack([weights, share, gain, marginal, pull.sum(-1)], -1).tolist()
    strange = (other.to(pull.dtype).mean(-1) > 0.5).tolist()
    return [
        tuple(
            Member(row, weight, attention, gain, marginal, conflict, flag)
            for row, (weight, attention, gain, marginal, conflict), flag in zip(*columns, strict=True)
            if row >= 0
        )
        for columns in zip(rows.tolist(), numbers, strange, strict=True)
    ]


def _values(terms: Terms, j: int) -> list[TermValues]:
    """The terms of the j-th weighting of each prompt."""
    names = ("bias", "complexity", "interference", "total")
    columns = (getattr(terms, name)[:, j].tolist() for name in names)
    return [TermValues(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _estimates(features: PoolTensors, target: Target) -> list[dict[str, float]]:
    if features.mode != "labels":
        return [{} for _ in range(target.x.shape[0])]
    mean = (target.v[:, : target.queries] * target.own[:, : target.queries, None]).sum(1)
    several = len({task for task, _ in features.labels}) > 1
    names = [f"{task}: {output}" if several and task else output for task, output in features.labels]
    top = mean.topk(min(3, mean.shape[-1]), dim=-1)
    return [
        {names[code]: value for value, code in zip(values, codes, strict=True)}
        for values, codes in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def _bounds(after: TermValues, gap: float, kernel_max: float, radius: float, geometry: Geometry) -> tuple[Bound, ...]:
    found = [
        Bound(
            "read-out shift, the most that the prompt's read-out can differ from the target's at a query",
            "R2",
            kernel_max**0.5 * after.bias,
            "certificate",
            "for the target as stated, with its outputs estimated; deterministic, so it survives selection",
        ),
        Bound(
            "interference, the most that the normalised read-out can miss the estimated output",
            "R6",
            after.interference,
            "certificate",
            "for the estimated outputs and scaled by their support; deterministic, so it survives selection",
        ),
        Bound(
            "generalisation gap, how far the risk can exceed the demonstrations' own (L = b = 1)",
            "R4",
            gap,
            "regulariser",
            f"a certificate (probability {1 - geometry.delta:g}) only for demonstrations drawn independently of "
            "their values; these were selected",
        ),
    ]
    if geometry.sampled:
        # Estimated values are averages of the pool's, so no κ⊗(z, z) exceeds this, seen or unseen.
        largest = kernel_max * ((1 - geometry.share) + geometry.share * radius**2)
        found.append(
            Bound(
                "query sample error, how far the bias to all traffic can be from the bias to this sample",
                "R5",
                query_sample_error(largest, geometry.sampled, delta=geometry.delta),
                "certificate",
                f"for {geometry.sampled} queries drawn i.i.d. from the traffic; probability {1 - geometry.delta:g}",
            )
        )
    return tuple(found)
