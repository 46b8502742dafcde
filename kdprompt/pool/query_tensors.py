"""Queries as tensors, and which demonstrations may serve them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.errors import QueryError
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.records import Query, normalise_text

__all__ = ["QueryTensors", "build_query_tensors", "find_allowed_rows"]


@dataclass(frozen=True)
class QueryTensors:
    """Queries as tensors, ``b`` of them.

    Attributes:
        q: Unit-norm embeddings ``[b, d]``.
        task: Code of the task that the demonstrations must have ``[b]``, −1 for any.
        own: Code of a text that is left out ``[b]``, −1 for none.
        permitted: Label codes that the demonstrations may have, ``[b, labels]``, or None for all.
    """

    q: Tensor
    task: Tensor
    own: Tensor
    permitted: Tensor | None = None

    def part(self, rows: slice | Tensor) -> "QueryTensors":
        """Some of the queries."""
        permitted = None if self.permitted is None else self.permitted[rows]
        return QueryTensors(self.q[rows], self.task[rows], self.own[rows], permitted)

    def __len__(self) -> int:
        return self.q.shape[0]


def build_query_tensors(
    features: PoolTensors, queries: Sequence[Query], vectors: Tensor, *, leave_out_own: bool
) -> QueryTensors:
    """Translates queries and their embeddings ``[b, d]``.

    Args:
        features: The pool.
        queries: ``b`` queries.
        vectors: Their embeddings.
        leave_out_own: Whether a demonstration with the query's own text is left out.

    Raises:
        QueryError: A query names a task that the tagged pool does not have, or permits no output of it.
    """
    x = features.x
    task = [_task_code(features, query) for query in queries]
    own = [features.texts.get(normalise_text(query.text), -1) if leave_out_own else -1 for query in queries]
    permitted = None
    if any(query.outputs is not None for query in queries):
        permitted = torch.stack([_permitted(features, query) for query in queries])
    return QueryTensors(
        torch.nn.functional.normalize(vectors.to(x.device, x.dtype), dim=-1, eps=1e-30),
        torch.tensor(task, device=x.device),
        torch.tensor(own, device=x.device),
        permitted,
    )


def _task_code(features: PoolTensors, query: Query) -> int:
    if query.task is None or not features.tasks:
        return -1
    try:
        return features.tasks.index(query.task)
    except ValueError:
        raise QueryError(
            f"the pool has no task {query.task!r} (query {query.text!r:.60}); it has {list(features.tasks)}. "
            "Leave the task out to choose from all of them."
        ) from None


def _permitted(features: PoolTensors, query: Query) -> Tensor:
    names, outputs = [output for _, output in features.labels], query.outputs
    allowed = [outputs is None or output in outputs for output in names]
    if not any(allowed):
        raise QueryError(
            f"none of the permitted outputs {sorted(outputs or ())} of the query {query.text!r:.60} occurs in the "
            f"pool; it has {sorted(set(names))[:20]}"
        )
    return torch.tensor(allowed, device=features.x.device)


def find_allowed_rows(features: PoolTensors, wanted: QueryTensors) -> Tensor:
    """Which rows may serve which query: of its task and permitted outputs, and not the query itself; ``[b, n]``."""
    task, own = wanted.task[:, None], wanted.own[:, None]
    allowed = ((task < 0) | (features.task == task)) & ((own < 0) | (features.text != own))
    if wanted.permitted is not None:
        allowed &= wanted.permitted[:, features.label.clamp_min(0)] & (features.label >= 0)
    return allowed
