"""The target: the query distribution Q as joint points of inputs, *estimated* outputs and weights.

Queries come without outputs. Their values are estimated by the regressions on the pool, each point left out of its own
estimate; the support of the estimate by its neighbours scales what is built on it.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.objective.regression import KernelRegression
from kdprompt.objective.ridge_estimate import join_ridge
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.pool.neighbours import Neighbours, take_rows
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors

__all__ = [
    "Target",
    "assume_sample_target",
    "estimate_neighbourhood_target",
    "estimate_query_target",
    "estimate_sample_target",
    "estimate_target",
]

CHUNK = 128  # queries whose neighbours are held at a time


@dataclass(frozen=True)
class Target:
    """Q as weighted joint points, ``m`` of them, the first ``queries`` of which are the queries themselves.

    Attributes:
        x: Inputs ``[b, m, d]``.
        v: Estimated values ``[b, m, c]``.
        query_mass: Mass on the queries ``[b, m]``, summing to 1.
        nearby_mass: Mass on their neighbourhood ``[b, m]``, summing to 1.
        support: Of the queries' estimates ``[b, queries]``.
        task: Estimated task code of the queries ``[b, queries]``, −1 where the pool has no tags.
        queries: Number of queries.
        neighbourhood: Share η of the neighbourhood, in [0, 1].
        prior: v̄, the values without a query ``[b, queries, c]``; None: all outputs alike.
        own: ℓ₀ of R9, what the reader knows of the queries, in nats ``[b, queries, c]``; None, or NaN for a query:
            nothing is known of it.
        squared_norm: ‖μ_Q‖² under J's kernel ``[b]``, where it is at hand.
        expected: r of embedded outputs, what the ridge regression alone says of the queries, in float64 on the CPU
            ``[b, queries, c]``; None where none was fitted.
    """

    x: Tensor
    v: Tensor
    query_mass: Tensor
    nearby_mass: Tensor
    support: Tensor
    task: Tensor
    queries: int
    neighbourhood: float = 0.0
    prior: Tensor | None = None
    own: Tensor | None = None
    squared_norm: Tensor | None = None
    expected: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """(1 − η)·query_mass + η·nearby_mass, ``[b, m]``."""
        if self.neighbourhood == 0:
            return self.query_mass
        return (1 - self.neighbourhood) * self.query_mass + self.neighbourhood * self.nearby_mass

    def with_neighbourhood(self, share: float) -> "Target":
        """The same target with another η."""
        return replace(self, neighbourhood=share, squared_norm=None)


@dataclass(frozen=True)
class _NearbyPoints:
    """Neighbours: inputs ``[b, L, d]``, values ``[b, L, c]``, and κ to the query ``[b, L]``, 0 where barred."""

    x: Tensor
    v: Tensor
    kernel: Tensor


def _gather(
    pool: PoolTensors, neighbours: Neighbours, regression: KernelRegression, rows: GatheredRows | None
) -> _NearbyPoints:
    device, dtype = neighbours.q.device, neighbours.q.dtype
    if rows is not None and rows.neighbours is neighbours and rows.with_query is not None:
        kernel = regression.kernel.of_pairs(rows.with_query).squeeze(-1)
        return _NearbyPoints(rows.x, rows.v, kernel * neighbours.valid.to(dtype))
    index = neighbours.index.to(pool.x.device)  # index first, then move
    x, v = (take_rows(values, index).to(device, dtype) for values in (pool.x, pool.v))
    kernel = regression.kernel(neighbours.q[:, None, :], x) * neighbours.valid[:, None, :].to(dtype)
    return _NearbyPoints(x, v, kernel.squeeze(1))


def estimate_query_target(
    pool: PoolTensors, neighbours: Neighbours, regression: KernelRegression, rows: GatheredRows | None = None
) -> Target:
    """Each query alone: ``b`` targets of one point.

    Args:
        pool: The pool.
        neighbours: Of ``b`` queries.
        regression: Estimates the outputs.
        rows: The neighbours' rows where they are at hand.
    """
    return _query_target(pool, neighbours, regression, _gather(pool, neighbours, regression, rows))


def _query_target(
    pool: PoolTensors, neighbours: Neighbours, regression: KernelRegression, nearby: _NearbyPoints
) -> Target:
    weights = nearby.kernel.clamp_min(0)
    prior = pool.prior(neighbours.task, neighbours.q)
    value, support = regression(weights[:, None, :], nearby.v, prior)
    value, expected = join_ridge(pool, neighbours.queries, regression, value[:, 0], prior)
    task = _estimate_task(pool, weights, neighbours.index)[:, None]
    mass = torch.ones_like(support)
    own = neighbours.queries.own
    return Target(
        x=neighbours.q[:, None, :],
        v=value[:, None, :],
        query_mass=mass,
        nearby_mass=mass,
        support=support,
        task=task,
        queries=1,
        prior=prior[:, None, :],
        own=None if own is None else own[:, None, :],
        expected=None if expected is None else expected[:, None, :],
    )


def estimate_neighbourhood_target(
    pool: PoolTensors,
    neighbours: Neighbours,
    regression: KernelRegression,
    share: float = 0.0,
    rows: GatheredRows | None = None,
) -> Target:
    """Each query and its neighbourhood: ``b`` targets of 1 + L points.

    The neighbourhood is the neighbours weighted by κ(x_j, q). Each has its own output estimated from the others
    (leave-one-out), so that single wrong outputs in the pool do not enter the target.

    Args:
        pool: The pool.
        neighbours: Of ``b`` queries.
        regression: Estimates the outputs.
        share: η, the share of the neighbourhood, in [0, 1].
        rows: The neighbours' rows where they are at hand.
    """
    nearby = _gather(pool, neighbours, regression, rows)
    query = _query_target(pool, neighbours, regression, nearby)
    dtype = neighbours.q.dtype
    among = regression.kernel(nearby.x, nearby.x) * neighbours.valid.to(dtype)[:, None, :]
    among = among - torch.diag_embed(among.diagonal(dim1=-2, dim2=-1))
    others, _ = regression(among, nearby.v, pool.prior(neighbours.task, neighbours.q))
    pull = nearby.kernel.clamp_min(0)
    mass = pull.sum(-1, keepdim=True)
    on_query = torch.cat([torch.ones_like(mass), torch.zeros_like(pull)], -1)
    spread = torch.cat([torch.zeros_like(mass), pull / mass.clamp_min(torch.finfo(dtype).tiny)], -1)
    return Target(
        x=torch.cat([neighbours.q[:, None, :], nearby.x], 1),
        v=torch.cat([query.v, others], 1),
        query_mass=on_query,
        nearby_mass=torch.where(mass > 0, spread, on_query),
        support=query.support,
        task=query.task,
        prior=query.prior,
        own=query.own,
        expected=query.expected,
        queries=1,
        neighbourhood=share,
    )


def estimate_sample_target(pool: PoolTensors, neighbours: Neighbours, regression: KernelRegression) -> Target:
    """A sample of ``m`` queries as one target of ``m`` points (batch dimension 1), uniformly weighted.

    Outputs are estimated by the neighbours alone: the rules of static prompts were chosen with that estimate.

    Args:
        pool: The pool.
        neighbours: Of the ``m`` queries.
        regression: Estimates the outputs.
    """
    by_neighbours = replace(regression, ridge=None)
    parts = [
        estimate_query_target(pool, neighbours.part(slice(start, start + CHUNK)), by_neighbours)
        for start in range(0, len(neighbours), CHUNK)
    ]
    v = torch.cat([part.v for part in parts]).squeeze(1)[None]
    mass = torch.full_like(v[..., 0], 1 / v.shape[1])
    support = torch.cat([part.support for part in parts]).squeeze(1)[None]
    task = torch.cat([part.task for part in parts]).squeeze(1)[None]
    prior = pool.prior(neighbours.task, neighbours.q)[None]
    own = None if neighbours.queries.own is None else neighbours.queries.own[None]
    return Target(neighbours.q[None], v, mass, mass, support, task, v.shape[1], prior=prior, own=own)


def assume_sample_target(pool: PoolTensors, queries: QueryTensors) -> Target:
    """As ``estimate_sample_target`` without neighbours: v̄ for every query, supported by nothing.

    For a J that looks at inputs alone.
    """
    prior = pool.prior(queries.task, queries.q)[None]
    mass = torch.full_like(prior[..., 0], 1 / len(queries))
    no_task = torch.full_like(queries.task, -1)[None]
    return Target(queries.q[None], prior, mass, mass, torch.zeros_like(mass), no_task, len(queries), prior=prior)


def _estimate_task(pool: PoolTensors, weights: Tensor, index: Tensor) -> Tensor:
    """The task with the largest kernel mass among the neighbours ``[b]``, −1 where there is none."""
    if not pool.tasks:
        return torch.full_like(index[:, 0], -1)
    tasks = pool.task[index.to(pool.task.device)].to(index.device)
    mass = torch.stack([(weights * (tasks == code)).sum(-1) for code in range(len(pool.tasks))], dim=-1)
    return torch.where(mass.sum(-1) > 0, mass.argmax(-1), -1)


def estimate_target(
    pool: PoolTensors,
    neighbours: Neighbours,
    regression: KernelRegression,
    neighbourhood: float,
    rows: GatheredRows | None = None,
) -> Target:
    """What each query's prompt is to come near to: the query and, for a share above 0, its neighbourhood."""
    if neighbourhood == 0:
        return estimate_query_target(pool, neighbours, regression, rows)
    return estimate_neighbourhood_target(pool, neighbours, regression, neighbourhood, rows)
