"""What a page draws of a selection: a map of the pool, the nearest neighbours' prompt, and what is not covered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from kdprompt.objective.target import Target
from kdprompt.pool.records import Demonstration
from kdprompt.selection.accounting import Prompts
from kdprompt.selection.late_accounts import account
from kdprompt.selection.origin import EXACT_DEVICE, EXACT_DTYPE, SelectionOrigin
from kdprompt.selection.result import Selection
from kdprompt.theory.kernels import JointKernel
from kdprompt.theory.mmd import witness
from kdprompt.theory.samples import JointSample, join_inputs_and_values

__all__ = ["DrawnDemonstration", "DrawnPoint", "DrawnQuery", "Portrait", "draw_portrait"]

MOST_POINTS = 300  # of the pool on the map, those that are chosen or near among them
MOST_QUERIES = 60  # of a sample on the map
MOST_UNCOVERED = 5
Point = TypeVar("Point", bound="DrawnPoint")


@dataclass(frozen=True)
class DrawnPoint:
    """A place on the map.

    Attributes:
        x: First principal component of the pool's inputs.
        y: Second.
        witness: μ_Q − μ_D (R2): above 0 the target has more mass here than the prompt.
    """

    x: float
    y: float
    witness: float


@dataclass(frozen=True)
class DrawnDemonstration(DrawnPoint):
    """A demonstration on the map.

    Attributes:
        demonstration: The demonstration.
        place: Its place in the prompt, from 1; 0 where it is not chosen.
    """

    demonstration: Demonstration
    place: int


@dataclass(frozen=True)
class DrawnQuery(DrawnPoint):
    """A query on the map, the witness with its estimated output.

    Attributes:
        text: The query.
        nearest: Cosine to the nearest demonstration of the prompt; 0 where the prompt is empty.
    """

    text: str
    nearest: float


@dataclass(frozen=True)
class Portrait:
    """What a page draws of a selection beside its records.

    Attributes:
        points: Demonstrations of the pool, the chosen ones last.
        shown_share: Share of the pool's distinct demonstrations that ``points`` holds, in (0, 1].
        explained: Share of the points' variance that the map's two axes have, in [0, 1].
        queries: The query, or some of the sample.
        nearest: What nearest neighbours would be, under the same budget and limits, and its numbers.
        uncovered_pool: For one query: demonstrations near to it where the witness is largest, none of them chosen.
        uncovered_queries: For a sample: the queries where the witness is largest.
    """

    points: tuple[DrawnDemonstration, ...]
    shown_share: float
    explained: float
    queries: tuple[DrawnQuery, ...]
    nearest: Selection
    uncovered_pool: tuple[DrawnDemonstration, ...]
    uncovered_queries: tuple[DrawnQuery, ...]


def draw_portrait(selection: Selection, origin: SelectionOrigin) -> Portrait:
    """Computes what a page draws of a selection, in float64 on the CPU.

    Args:
        selection: The selection.
        origin: What it was chosen from.
    """
    context, exact = origin.context, origin.find_target()
    chosen = [context.pool.find_row(ident) for ident in selection.ids]
    near = origin.find_nearest_prompt(len(chosen))
    prompts = Prompts((selection.query,), near, exact, origin.encoded, origin.texts)
    around = _find_around(origin)
    scene = _Scene.build(origin, exact.value, selection, _choose_rows(origin, [*chosen, *near[0].tolist(), *around]))
    points, queries = scene.draw_points(chosen), scene.draw_queries(origin.texts)
    uncovered = [points[row] for row in around if not points[row].place and points[row].witness > 0]
    return Portrait(
        points=tuple(sorted(points.values(), key=lambda point: point.place)),
        shown_share=len(points) / len(context.tensors),
        explained=scene.explained,
        queries=tuple(queries[:: -(-len(queries) // MOST_QUERIES)]),
        nearest=account(context, prompts)[0],
        uncovered_pool=() if origin.is_static else _largest(uncovered),
        uncovered_queries=_largest(queries) if origin.is_static else (),
    )


def _find_around(origin: SelectionOrigin) -> list[int]:
    """Rows near to the queries that may stand in the prompt, the nearest first."""
    candidates, similarity = origin.find_candidates()
    allowed = similarity.masked_fill(~candidates.valid, -torch.inf)[0]
    order = allowed.argsort(descending=True)[: min(MOST_POINTS // 3, int(candidates.valid.sum()))]
    return cast(list[int], candidates.index[0, order].tolist())


def _choose_rows(origin: SelectionOrigin, wanted: Sequence[int]) -> list[int]:
    """The rows that are wanted and, up to the most that a map shows, others drawn by the seed; in the order of ids."""
    pool = origin.context.tensors
    generator = torch.Generator().manual_seed(origin.context.settings.seed)
    living = pool.living.cpu()
    others = living[torch.randperm(len(living), generator=generator)].tolist()
    rows = list(dict.fromkeys([*wanted, *others]))[: max(MOST_POINTS, len(set(wanted)))]
    return cast(list[int], pool.sort_rows(torch.tensor(rows, device=pool.x.device)).tolist())


@dataclass(frozen=True)
class _Scene:
    """Rows of the pool and queries with their places on the map and the witness at them.

    Attributes:
        origin: What the selection was chosen from.
        rows: Rows of the pool, ``p`` of them.
        positions: Their places ``[p, 2]``.
        query_positions: Those of the queries ``[q, 2]``.
        excess: μ_Q − μ_D at the rows ``[p]``.
        query_excess: The same at the queries ``[q]``.
        cosine: Of each query to the nearest demonstration of the prompt ``[q]``.
        explained: Share of the rows' variance that the two axes have.
    """

    origin: SelectionOrigin
    rows: list[int]
    positions: Tensor
    query_positions: Tensor
    excess: Tensor
    query_excess: Tensor
    cosine: Tensor
    explained: float

    @classmethod
    def build(cls, origin: SelectionOrigin, target: Target, selection: Selection, rows: list[int]) -> "_Scene":
        tensors, parameters = origin.context.tensors, origin.context.parameters
        x, v = (values.to(EXACT_DEVICE)[rows].to(EXACT_DTYPE) for values in (tensors.x, tensors.v))
        q, estimated = target.x[0, : target.queries], target.v[0, : target.queries]
        members = [rows.index(origin.context.pool.find_row(ident)) for ident in selection.ids]
        weights = torch.tensor([member.weight for member in selection.chosen], dtype=EXACT_DTYPE)
        kernel = JointKernel(parameters.kernel, x.shape[-1], parameters.output_share)
        aim = JointSample(target.x[0], target.v[0], target.weights[0]).to_weighted_sample()
        prompt = JointSample(x[members], v[members], weights).to_weighted_sample()
        centre, axes, explained = _find_axes(x)
        return cls(
            origin=origin,
            rows=rows,
            positions=(x - centre) @ axes,
            query_positions=(q - centre) @ axes,
            excess=witness(kernel, join_inputs_and_values(x, v), aim, prompt),
            query_excess=witness(kernel, join_inputs_and_values(q, estimated), aim, prompt),
            cosine=(q @ x[members].T).amax(-1) if members else torch.zeros(len(q)),
            explained=explained,
        )

    def draw_points(self, chosen: Sequence[int]) -> dict[int, DrawnDemonstration]:
        """Each row on the map; ``chosen`` are the rows of the prompt in reading order."""
        place = {row: number for number, row in enumerate(chosen, 1)}
        columns = zip(self.rows, self.positions.tolist(), self.excess.tolist(), strict=True)
        return {
            row: DrawnDemonstration(x, y, value, self.origin.context.pool.demonstration(row), place.get(row, 0))
            for row, (x, y), value in columns
        }

    def draw_queries(self, texts: Sequence[str]) -> list[DrawnQuery]:
        """Each query on the map."""
        columns = (self.query_positions.tolist(), self.query_excess.tolist(), texts, self.cosine.tolist())
        return [DrawnQuery(x, y, value, text, cosine) for (x, y), value, text, cosine in zip(*columns, strict=True)]


def _find_axes(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """The centre ``[d]`` of points ``[p, d]``, their two principal axes ``[d, 2]``, and those axes' share of variance.

    The sign of an axis is that of its largest coordinate, so that the same points give the same map.
    """
    centre = x.mean(0)
    _, spread, axes = torch.linalg.svd(x - centre, full_matrices=False)
    axes = torch.nn.functional.pad(axes[:2], (0, 0, 0, max(0, 2 - len(axes))))
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    variance = spread.square()
    explained = float(variance[:2].sum() / variance.sum()) if variance.sum() > 0 else 0.0
    return centre, (axes * torch.where(largest < 0, -1.0, 1.0)).T, explained


def _largest(points: Sequence[Point]) -> tuple[Point, ...]:
    """Those with the largest witness, the largest first."""
    return tuple(sorted(points, key=lambda point: -point.witness)[:MOST_UNCOVERED])
