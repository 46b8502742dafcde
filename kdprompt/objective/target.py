"""The query distribution Q as joint points: inputs, *estimated* outputs, weights.

Queries come without outputs, so their values are estimated by kernel regression on the pool (R6's v*), leaving
the point itself out: v̂(q) = (Σ_j κ(x_j, q) v_j + λ v̄)/(Σ_j κ(x_j, q) + λ). The prior v̄ counts for a kernel mass λ;
support(q) = Σκ/(Σκ + λ) in [0, 1) says how much the pool knows about q, and scales what is built on v̂.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.objective.regression import KernelRegression
from kdprompt.pool.neighbours import Neighbours
from kdprompt.pool.pool_tensors import PoolTensors

__all__ = ["Target", "neighbourhood_target", "query_or_neighbourhood", "query_target", "sample_target"]


CHUNK = 128  # queries whose neighbours are held at a time


@dataclass(frozen=True)
class Target:
    """Q as weighted joint points, ``m`` of them, the first ``queries`` of which are the queries themselves.

    Attributes:
        x: Inputs ``[b, m, d]``.
        v: Estimated values ``[b, m, c]``.
        own: Mass on the queries ``[b, m]``, summing to 1.
        nearby: Mass on their neighbourhood ``[b, m]``, summing to 1.
        support: Of the queries' estimates ``[b, queries]``.
        task: Estimated task code of the queries ``[b, queries]``, −1 where the pool has no tags.
        queries: Number of queries.
        neighbourhood: Share η of the neighbourhood in [0, 1].
    """

    x: Tensor
    v: Tensor
    own: Tensor
    nearby: Tensor
    support: Tensor
    task: Tensor
    queries: int
    neighbourhood: float = 0.0

    @property
    def weights(self) -> Tensor:
        """(1 − η)·own + η·nearby, ``[b, m]``."""
        return (1 - self.neighbourhood) * self.own + self.neighbourhood * self.nearby

    def with_neighbourhood(self, share: float) -> "Target":
        """The same target with another η."""
        return replace(self, neighbourhood=share)


def _task_estimate(features: PoolTensors, weights: Tensor, index: Tensor) -> Tensor:
    if not features.tasks:
        return torch.full_like(index[:, 0], -1)
    tasks = features.task.to(index.device)[index]
    mass = torch.stack([(weights * (tasks == code)).sum(-1) for code in range(len(features.tasks))], dim=-1)
    return torch.where(mass.sum(-1) > 0, mass.argmax(-1), -1)


def query_target(features: PoolTensors, near: Neighbours, regression: KernelRegression) -> Target:
    """One query alone, for a batch of ``b`` queries: ``b`` targets of one point. η = 0 of ``neighbourhood_target``."""
    device, dtype = near.q.device, near.q.dtype
    x = features.x.to(device)[near.index].to(dtype)
    v = features.v.to(device)[near.index].to(dtype)
    weights = regression.kernel(near.q[:, None, :], x).clamp_min(0) * near.valid[:, None, :]
    value, support = regression(weights, v, features.prior(near.task, near.q))
    own = torch.ones_like(support)
    task = _task_estimate(features, weights.squeeze(1), near.index)[:, None]
    return Target(near.q[:, None, :], value, own, own, support, task, queries=1)


def neighbourhood_target(
    features: PoolTensors, near: Neighbours, regression: KernelRegression, share: float = 0.0
) -> Target:
    """One query and its neighbourhood, for a batch of queries.

    The neighbourhood is the neighbours weighted by κ(x_j, q), each with its own output estimated from the others
    (leave-one-out), so that single wrong outputs in the pool do not enter the target.

    Args:
        features: The pool.
        near: Neighbours of ``b`` queries.
        regression: Estimates the outputs.
        share: η, the share of the neighbourhood.

    Returns:
        ``b`` targets of 1 + L points.
    """
    query = query_target(features, near, regression)
    device, dtype = near.q.device, near.q.dtype
    x = features.x.to(device)[near.index].to(dtype)
    v = features.v.to(device)[near.index].to(dtype)
    valid = near.valid.to(dtype)
    to_query = regression.kernel(near.q[:, None, :], x) * valid[:, None, :]
    among = regression.kernel(x, x) * valid[:, None, :]
    among = among - torch.diag_embed(among.diagonal(dim1=-2, dim2=-1))
    others, _ = regression(among, v, features.prior(near.task, near.q))
    pull = to_query.squeeze(1).clamp_min(0)
    mass = pull.sum(-1, keepdim=True)
    own = torch.cat([torch.ones_like(mass), torch.zeros_like(pull)], -1)
    spread = torch.cat([torch.zeros_like(mass), pull / mass.clamp_min(torch.finfo(dtype).tiny)], -1)
    nearby = torch.where(mass > 0, spread, own)
    return Target(
        x=torch.cat([near.q[:, None, :], x], 1),
        v=torch.cat([query.v, others], 1),
        own=own,
        nearby=nearby,
        support=query.support,
        task=query.task,
        queries=1,
        neighbourhood=share,
    )


def query_or_neighbourhood(
    features: PoolTensors, near: Neighbours, regression: KernelRegression, share: float
) -> Target:
    """``neighbourhood_target``, without its work where the share of the neighbourhood is 0."""
    if share == 0:
        return query_target(features, near, regression)
    return neighbourhood_target(features, near, regression, share)


def sample_target(features: PoolTensors, near: Neighbours, regression: KernelRegression) -> Target:
    """A sample of queries as one target of ``m`` points (batch dimension 1), uniformly weighted.

    Args:
        features: The pool.
        near: Neighbours of the ``m`` queries.
        regression: Estimates the outputs.
    """
    values, supports, tasks = [], [], []
    prior = features.prior(near.task, near.q)
    for start in range(0, near.q.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        index = near.index[part]
        x = features.x.to(near.q.device)[index].to(near.q.dtype)
        v = features.v.to(near.q.device)[index].to(near.q.dtype)
        weights = regression.kernel(near.q[part, None, :], x).clamp_min(0) * near.valid[part, None, :]
        value, support = regression(weights, v, prior[part])
        values.append(value.squeeze(1))
        supports.append(support.squeeze(1))
        tasks.append(_task_estimate(features, weights.squeeze(1), index))
    v = torch.cat(values)[None]
    own = torch.full_like(v[..., 0], 1 / v.shape[1])
    return Target(near.q[None], v, own, own, torch.cat(supports)[None], torch.cat(tasks)[None], v.shape[1])
