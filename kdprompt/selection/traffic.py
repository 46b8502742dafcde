"""The queries that a product gets, and the sample of them that one static prompt is to serve."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.errors import QueryError
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.pool.records import Query
from kdprompt.selection.embedded_pool import AnyQuery, EmbeddedPool
from kdprompt.settings import Settings

__all__ = ["QuerySample", "Traffic", "TrafficRequest", "sample_queries"]

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
    """

    queries: Iterable[AnyQuery] | None = None
    task: str | None = None
    outputs: Iterable[str] | None = None


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
    queries, vectors, notes = request.queries, None, []
    from_pool = queries is None and traffic is None
    if queries is None and traffic is not None:
        queries, vectors = traffic.queries, traffic.vectors
    if queries is None:
        index = [i for i, shown in enumerate(pool.pool) if request.task is None or shown.task == request.task]
        queries = [Query(text=pool.pool[i].input, task=pool.pool[i].task) for i in index]
        vectors = pool.vectors[torch.tensor(index, dtype=torch.long, device=pool.vectors.device)]
        notes.append(POOL_STANDS_IN)
    parsed = pool.parse_queries(queries, request.task, request.outputs)
    if not parsed:
        raise QueryError("queries must hold at least one query; leave them out to take the pool's own inputs")
    encoded = pool.encode(parsed, settings, vectors)
    if len(parsed) > settings.static.queries:
        generator = torch.Generator().manual_seed(settings.seed)
        keep = torch.randperm(len(parsed), generator=generator)[: settings.static.queries].sort().values
        notes.append(f"a sample of {len(keep)} of the {len(parsed)} queries stands for all (static_queries)")
        encoded, parsed = encoded.part(keep.to(encoded.q.device)), tuple(parsed[i] for i in keep.tolist())
    return QuerySample(encoded, tuple(query.text for query in parsed), from_pool, tuple(notes))
