"""The queries that a product gets, and the sample of them that one static prompt is to serve."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprompt.errors import QueryError
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.pool.records import Query
from kdprompt.pool.vectors import check_vectors
from kdprompt.selection.embedded_pool import AnyQuery, EmbeddedPool
from kdprompt.settings import Settings

__all__ = ["POOL_STANDS_IN", "QuerySample", "Traffic", "TrafficRequest", "draw_inputs", "sample_queries"]

POOL_STANDS_IN = "no queries were given: the pool's own inputs stand for the query distribution"


@dataclass(frozen=True)
class Traffic:
    """A sample of the queries that the product gets, with their embeddings ``[m, d]``."""

    queries: tuple[Query, ...]
    vectors: Tensor


@dataclass(frozen=True)
class TrafficRequest:
    """Which queries a static prompt is to serve.

    Attributes:
        queries: In place of the traffic; None takes the traffic, or without one the pool's own inputs.
        task: Of all of them.
        outputs: Permitted for all of them.
        vectors: Embeddings of ``queries`` ``[m, d]`` where they are at hand.
    """

    queries: Iterable[AnyQuery] | None = None
    task: str | None = None
    outputs: Iterable[str] | None = None
    vectors: Any | None = None


@dataclass(frozen=True)
class QuerySample:
    """The queries that a static prompt is chosen for.

    Attributes:
        encoded: The queries as tensors.
        texts: Their texts.
        from_pool: Whether the pool's own inputs stand for them.
        notes: What the caller should know about them.
    """

    encoded: QueryTensors
    texts: tuple[str, ...]
    from_pool: bool
    notes: tuple[str, ...]

    @property
    def drawn(self) -> int:
        """How many queries were drawn from the query distribution (R5); 0 where the pool stands in."""
        return 0 if self.from_pool else len(self.encoded)


def sample_queries(
    pool: EmbeddedPool, traffic: Traffic | None, settings: Settings, request: TrafficRequest
) -> QuerySample:
    """The queries that a static prompt is to serve: a seeded sample where there are many.

    Args:
        pool: The pool.
        traffic: A sample of the traffic, where there is one.
        settings: How many queries are looked at, and the seed of their choice.
        request: Which queries are asked for.

    Raises:
        QueryError: There are none.
    """
    from_pool = request.queries is None and traffic is None
    notes = [POOL_STANDS_IN] if from_pool else []
    queries: Iterable[AnyQuery]
    vectors = None
    if from_pool:
        inputs = draw_inputs(pool, settings, request.task, notes)
        queries, vectors = inputs.queries, inputs.vectors
    elif request.queries is None and traffic is not None:
        kept = _draw(len(traffic.queries), settings, notes)
        queries, vectors = [traffic.queries[i] for i in kept], traffic.vectors[kept]
    else:
        given = pool.parse_queries(() if request.queries is None else request.queries)
        kept = _draw(len(given), settings, notes)
        queries = [given[i] for i in kept]
        if request.vectors is not None:
            vectors = check_vectors(request.vectors, [query.text for query in given], "vectors")[kept]
    parsed = pool.parse_queries(queries, request.task, request.outputs)
    if not parsed and from_pool and request.task is not None:
        raise QueryError(f"no example has the task {request.task!r}; the pool has {list(pool.tensors.tasks)}")
    if not parsed:
        raise QueryError("queries must hold at least one query; leave them out to take the pool's own inputs")
    encoded = pool.encode(parsed, settings, vectors)
    return QuerySample(encoded, tuple(query.text for query in parsed), from_pool, tuple(notes))


def draw_inputs(pool: EmbeddedPool, settings: Settings, task: str | None, notes: list[str]) -> Traffic:
    """The pool's own inputs, of one task or of all, or a seeded sample of them; a note says where it is not all."""
    tasks = [of for of, _ in pool.pool.members.list_pairs()]
    index = [i for i, of in enumerate(tasks) if task is None or of == task]
    kept = [index[i] for i in _draw(len(index), settings, notes)]
    queries = tuple(Query(text=pool.pool[i].input, task=tasks[i]) for i in kept)
    return Traffic(queries, pool.embeddings.at(kept))


def _draw(count: int, settings: Settings, notes: list[str]) -> list[int]:
    """Which of ``count`` queries are looked at, ascending; a note says so where it is not all."""
    if count <= settings.static.queries:
        return list(range(count))
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = torch.randperm(count, generator=generator)[: settings.static.queries].sort().values
    notes.append(f"a sample of {len(drawn)} of the {count} queries stands for all (static_queries)")
    return list(map(int, drawn.tolist()))
