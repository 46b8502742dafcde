"""Queries as tensors, and which demonstrations may serve them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.errors import QueryError
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.records import MOST_NATS, Query, normalise_text
from kdprompt.pool.vectors import normalise_rows

__all__ = ["QueryTensors", "build_query_tensors", "check_query", "find_allowed_rows", "find_text_codes"]


@dataclass(frozen=True)
class QueryTensors:
    """Queries as tensors, ``b`` of them.

    Attributes:
        q: Unit-norm embeddings ``[b, d]``.
        task: Code of the task that the demonstrations must have ``[b]``, −1 for any.
        excluded_text: Code of the input text whose demonstrations are left out ``[b]``, −1 for none.
        permitted: Whether demonstrations may have each label code ``[b, labels]``; None permits all.
        own: ℓ₀ of R9 where it was given, what the reader knows itself, ``[b, labels]``, NaN in the rows of queries
            that came without; None: none was given.
    """

    q: Tensor
    task: Tensor
    excluded_text: Tensor
    permitted: Tensor | None = None
    own: Tensor | None = None

    def part(self, rows: slice | Tensor) -> "QueryTensors":
        """Some of the queries."""
        permitted = None if self.permitted is None else self.permitted[rows]
        own = None if self.own is None else self.own[rows]
        return QueryTensors(self.q[rows], self.task[rows], self.excluded_text[rows], permitted, own)

    def to(self, device: torch.device, dtype: torch.dtype) -> "QueryTensors":
        """The same on another device, the embeddings in another dtype."""
        permitted = None if self.permitted is None else self.permitted.to(device)
        own = None if self.own is None else self.own.to(device, dtype)
        return QueryTensors(
            self.q.to(device, dtype), self.task.to(device), self.excluded_text.to(device), permitted, own
        )

    def __len__(self) -> int:
        return self.q.shape[0]


def build_query_tensors(
    pool: PoolTensors, queries: Sequence[Query], vectors: Tensor, *, exclude_query_text: bool
) -> QueryTensors:
    """Translates queries and their embeddings.

    Args:
        pool: The pool that will serve them.
        queries: ``b`` queries.
        vectors: Their embeddings ``[b, d]``; words join them where the pool's have words.
        exclude_query_text: Whether demonstrations with a query's own text are left out of its prompt.

    Raises:
        QueryError: A query names a task that the tagged pool does not have, or permits no output of it, or what the
            reader knows of it does not name the outputs.
    """
    device = pool.x.device
    task = [_task_code(pool, query) for query in queries]
    texts = [query.text for query in queries]
    text = find_text_codes(pool, texts) if exclude_query_text else torch.full((len(queries),), -1, device=device)
    permitted = None
    if any(query.outputs is not None for query in queries):
        permitted = torch.stack([_permitted_labels(pool, query) for query in queries])
    own = None
    if any(query.own is not None for query in queries):
        own = torch.tensor([_own_log_probs(pool, query) for query in queries], dtype=pool.dtype, device=device)
    q = normalise_rows(vectors.to(device, pool.dtype))
    return QueryTensors(
        q if pool.lexicon is None else pool.lexicon.join(q, texts),
        torch.tensor(task, device=device),
        text,
        permitted,
        own,
    )


def check_query(pool: PoolTensors, query: Query) -> None:
    """Refuses what ``build_query_tensors`` would refuse, before anything is embedded: a ``QueryError``, as there."""
    _task_code(pool, query)
    if query.outputs is not None:
        _permitted_labels(pool, query)
    _own_log_probs(pool, query)


def find_text_codes(pool: PoolTensors, texts: Sequence[str]) -> Tensor:
    """The pool's code of each text, −1 where no row has it ``[b]``."""
    codes = [pool.text_codes.get(normalise_text(text), -1) for text in texts]
    return torch.tensor(codes, dtype=torch.long, device=pool.x.device)


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


def _own_log_probs(pool: PoolTensors, query: Query) -> list[float]:
    """ℓ₀ by label code; 0 for outputs that the query does not permit, NaN where nothing was given."""
    if query.own is None:
        return [math.nan] * len(pool.labels)
    names = [output for _, output in pool.labels]
    own_task = query.task if pool.tasks else None
    asked = {
        output
        for task, output in pool.labels
        if (query.outputs is None or output in query.outputs) and own_task in (None, task)
    }
    if pool.output_mode != "labels":
        raise QueryError(
            f"what a reader knows itself (own) is said by label, and the outputs of this pool are {pool.output_mode} "
            f"(query {query.text!r:.60}); leave it out"
        )
    missing, unknown = sorted(asked - set(query.own)), sorted(set(query.own) - set(names))
    if missing or unknown:
        raise QueryError(
            f"own must give a log-probability for each of the outputs {sorted(asked)[:20]} (query "
            f"{query.text!r:.60}); "
            + (f"it lacks {missing[0]!r}" if missing else f"the pool has no output {unknown[0]!r}")
        )
    wrong = next((name for name in sorted(asked) if not abs(query.own[name]) <= MOST_NATS), None)
    if wrong is not None:
        raise QueryError(
            f"own must hold log-probabilities in nats, of at most {MOST_NATS:g} in size, got {query.own[wrong]} for "
            f"{wrong!r} (query {query.text!r:.60}); give an impossible output a very small one, -20 say"
        )
    return [query.own[name] if name in asked else 0.0 for name in names]


def find_allowed_rows(pool: PoolTensors, queries: QueryTensors) -> Tensor:
    """Which rows may serve which query ``[b, n]``: of its task and permitted outputs, and not the query itself."""
    task, text = queries.task[:, None], queries.excluded_text[:, None]
    allowed = ((task < 0) | (pool.task == task)) & ((text < 0) | (pool.text != text))
    if pool.alive is not None:
        allowed &= pool.alive
    if queries.permitted is not None:
        allowed &= queries.permitted[:, pool.label.clamp_min(0)] & (pool.label >= 0)
    return allowed
