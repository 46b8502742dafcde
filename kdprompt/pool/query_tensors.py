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
        excluded_text: Code of the input text whose demonstrations are left out ``[b]``, −1 for none.
        permitted: Whether demonstrations may have each label code ``[b, labels]``; None permits all.
    """

    q: Tensor
    task: Tensor
    excluded_text: Tensor
    permitted: Tensor | None = None

    def part(self, rows: slice | Tensor) -> "QueryTensors":
        """Some of the queries."""
        permitted = None if self.permitted is None else self.permitted[rows]
        return QueryTensors(self.q[rows], self.task[rows], self.excluded_text[rows], permitted)

    def to(self, device: torch.device, dtype: torch.dtype) -> "QueryTensors":
        """The same on another device, the embeddings in another dtype."""
        permitted = None if self.permitted is None else self.permitted.to(device)
        return QueryTensors(self.q.to(device, dtype), self.task.to(device), self.excluded_text.to(device), permitted)

    def __len__(self) -> int:
        return self.q.shape[0]


def build_query_tensors(
    pool: PoolTensors, queries: Sequence[Query], vectors: Tensor, *, exclude_query_text: bool
) -> QueryTensors:
    """Translates queries and their embeddings.

    Args:
        pool: The pool that will serve them.
        queries: ``b`` queries.
        vectors: Their embeddings ``[b, d]``.
        exclude_query_text: Whether demonstrations with a query's own text are left out of its prompt.

    Raises:
        QueryError: A query names a task that the tagged pool does not have, or permits no output of it.
    """
    device = pool.x.device
    task = [_task_code(pool, query) for query in queries]
    text = [pool.text_codes.get(normalise_text(query.text), -1) if exclude_query_text else -1 for query in queries]
    permitted = None
    if any(query.outputs is not None for query in queries):
        permitted = torch.stack([_permitted_labels(pool, query) for query in queries])
    return QueryTensors(
        torch.nn.functional.normalize(vectors.to(device, pool.x.dtype), dim=-1, eps=1e-30),
        torch.tensor(task, device=device),
        torch.tensor(text, device=device),
        permitted,
    )


def _task_code(pool: PoolTensors, query: Query) -> int:
    if query.task is None or not pool.tasks:
        return -1
    try:
        return pool.tasks.index(query.task)
    except ValueError:
        raise QueryError(
            f"the pool has no task {query.task!r} (query {query.text!r:.60}); it has {list(pool.tasks)}. "
            "Leave the task out to choose from all of them."
        ) from None


def _permitted_labels(pool: PoolTensors, query: Query) -> Tensor:
    names, permitted = [output for _, output in pool.labels], query.outputs
    allowed = [permitted is None or output in permitted for output in names]
    if not any(allowed):
        raise QueryError(
            f"none of the permitted outputs {sorted(permitted or ())} of the query {query.text!r:.60} occurs in the "
            f"pool; it has {sorted(set(names))[:20]}"
        )
    return torch.tensor(allowed, device=pool.x.device)


def find_allowed_rows(pool: PoolTensors, queries: QueryTensors) -> Tensor:
    """Which rows may serve which query ``[b, n]``: of its task and permitted outputs, and not the query itself."""
    task, text = queries.task[:, None], queries.excluded_text[:, None]
    allowed = ((task < 0) | (pool.task == task)) & ((text < 0) | (pool.text != text))
    if queries.permitted is not None:
        allowed &= queries.permitted[:, pool.label.clamp_min(0)] & (pool.label >= 0)
    return allowed
