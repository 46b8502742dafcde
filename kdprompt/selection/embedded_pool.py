"""A pool with everything that is derived from it: embeddings, features, lengths. Frozen: a change makes a new one.

A selector swaps its corpus whole, so whoever is selecting meanwhile goes on with the one that he began with.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdprompt.errors import EmbeddingError, PoolError, QueryError
from kdprompt.pool.embedding import Embedder, check_vectors, embed_documents, embed_queries
from kdprompt.pool.pool import Pool
from kdprompt.pool.pool_tensors import PoolTensors, build_pool_tensors
from kdprompt.pool.prompt import count_demonstration_tokens
from kdprompt.pool.query_tensors import QueryTensors, build_query_tensors
from kdprompt.pool.records import Demonstration, Query
from kdprompt.selection.problem import check_quota
from kdprompt.settings import Settings

__all__ = ["FROM_POOL", "AnyQuery", "EmbeddedPool", "Record", "Traffic", "check_size", "query_distribution"]

AnyQuery = str | Mapping[str, Any] | Query
Record = Mapping[str, Any] | Demonstration
FROM_POOL = "no queries were given: the pool's own inputs stand for the query distribution"


@dataclass(frozen=True)
class EmbeddedPool:
    """A pool, embedded.

    Attributes:
        pool: The demonstrations.
        vectors: Embeddings of their inputs ``[n, d]``.
        embedder: The embedder.
        features: The distinct demonstrations as tensors.
        lengths: Tokens of each row of the features, or None without a budget.
        outputs: Embeddings of output texts that were needed, by text.
        counted: Tokens by row: of all rows where there is a budget, else of those that were shown.
    """

    pool: Pool
    vectors: Tensor
    embedder: Embedder
    features: PoolTensors
    lengths: Tensor | None
    outputs: dict[str, Tensor] = field(repr=False)
    counted: dict[int, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        pool: Pool,
        vectors: Tensor,
        embedder: Embedder,
        settings: Settings,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> "EmbeddedPool":
        """Derives everything.

        Args:
            pool: ``n`` demonstrations.
            vectors: Embeddings of their inputs ``[n, d]``.
            embedder: Embeds output texts, where they are no labels.
            settings: How outputs are seen; budget and quota.
            outputs: Embeddings of output texts that are known.

        Raises:
            PoolError: The pool is empty or has fewer distinct examples than k.
            ValueError: The quota contradicts the pool.
            EmbeddingError: The outputs' embeddings do not fit.
        """
        check_size(pool, len(pool), settings)
        known = dict(outputs or {})

        def embedded(texts: Sequence[str]) -> Tensor:
            new = sorted({text for text in texts if text and text not in known})
            if new:
                known.update(zip(new, embed_documents(embedder, new), strict=True))
            blank = torch.zeros_like(next(iter(known.values()))) if known else torch.zeros(1)
            return torch.stack([known[text] if text else blank for text in texts])

        features = build_pool_tensors(pool, vectors, embedded, settings.outputs)
        check_size(pool, len(features), settings)
        check_quota(features, settings)
        if settings.budget is None:
            return cls(pool, vectors, embedder, features, None, known)
        counts = count_demonstration_tokens(
            [pool[i] for i in features.members], settings.template, settings.count_tokens
        )
        tokens = torch.tensor(counts, device=features.x.device)
        return cls(pool, vectors, embedder, features, tokens, known, dict(enumerate(counts)))

    def with_records(self, records: Iterable[Record], settings: Settings) -> "EmbeddedPool":
        """With more examples behind these; errors as ``of``, and those of their embeddings."""
        pool = self.pool.with_records(records)
        added = pool.demonstrations[len(self.pool) :]
        if not added:
            return self
        fresh = embed_documents(self.embedder, [demonstration.input for demonstration in added])
        vectors = torch.cat([self.vectors, self.of_width(fresh).to(self.vectors)])
        return EmbeddedPool.of(pool, vectors, self.embedder, settings, self.outputs)

    def with_changed(self, ident: str, record: Record, settings: Settings) -> "EmbeddedPool":
        """With another example under an id; errors as ``with_records``, and where the id is not in the pool."""
        pool = self.pool.with_changed(ident, record)
        at = pool.index(ident)
        vectors = self.vectors.clone()
        vectors[at] = self.of_width(embed_documents(self.embedder, [pool[at].input])).to(vectors)[0]
        return EmbeddedPool.of(pool, vectors, self.embedder, settings, self.outputs)

    def without(self, ids: Iterable[str], settings: Settings) -> "EmbeddedPool":
        """Without these ids; errors as ``of``, and a ``PoolError`` where an id is not in the pool."""
        gone = set(ids)
        pool = self.pool.without(gone)
        keep = torch.tensor([d.id not in gone for d in self.pool], device=self.vectors.device)
        return EmbeddedPool.of(pool, self.vectors[keep], self.embedder, settings, self.outputs)

    def of_width(self, vectors: Tensor) -> Tensor:
        """The vectors ``[m, d]``, if they are as wide as the pool's.

        Raises:
            EmbeddingError: They are not.
        """
        expected = self.vectors.shape[-1]
        if vectors.shape[-1] != expected:
            raise EmbeddingError(
                f"the embedder must return {expected} dimensions as for the pool, got {vectors.shape[-1]}; use the "
                "embedder that embedded the pool, or build the selector again"
            )
        return vectors

    def parsed(
        self, queries: Sequence[AnyQuery], task: str | None = None, outputs: Iterable[str] | None = None
    ) -> tuple[Query, ...]:
        """Queries as records, restricted to a task or to permitted outputs where these are given.

        Raises:
            QueryError, MissingKeyError: A query cannot be used.
        """
        if isinstance(outputs, str):
            raise QueryError(f"outputs must be several permitted outputs, got the text {outputs!r}; wrap it in a list")
        given = {"task": task, "outputs": None if outputs is None else frozenset(outputs)}
        update = {name: value for name, value in given.items() if value is not None}
        return tuple(query.model_copy(update=update) for query in self.pool.queries(queries))

    def requests(self, queries: Sequence[Query], settings: Settings, vectors: Tensor | None = None) -> QueryTensors:
        """Queries as tensors, embedded where ``vectors: [m, d]`` are not at hand.

        Raises:
            QueryError: A query names a task or outputs that the pool does not have.
            EmbeddingError: The embeddings do not fit.
        """
        texts = [query.text for query in queries]
        found = embed_queries(self.embedder, texts) if vectors is None else check_vectors(vectors, texts, "vectors")
        return build_query_tensors(self.features, queries, self.of_width(found), leave_out_own=settings.leave_out_own)

    def core(self, ids: Sequence[str], settings: Settings) -> Tensor:
        """The features' rows of the demonstrations that every prompt begins with ``[c]``; c = 0 without one.

        Raises:
            PoolError: The pool has no such id.
            QueryError: There are more than k, or more than the budget holds, or one twice.
        """
        if isinstance(ids, str):
            raise QueryError(f"core must be a selection or several ids, got the text {ids!r}; wrap it in a list")
        if len(ids) > settings.most:
            raise QueryError(f"the core must hold at most k = {settings.most} demonstrations, got {len(ids)}")
        rows = [self._row(each) for each in ids]
        for place, row in enumerate(rows):
            if row in rows[:place]:
                raise QueryError(f"the core holds the example {self.at(row).id!r} twice; give each example once")
        spent = sum(self.tokens(row, settings) for row in rows) if settings.budget is not None else 0
        if spent > (settings.budget or 0):
            raise QueryError(f"the core takes {spent} tokens, more than the budget of {settings.budget}; shorten it")
        return torch.tensor(rows, dtype=torch.long, device=self.features.x.device)

    def _row(self, ident: str) -> int:
        """The row of a demonstration, or of the one that it repeats."""
        wanted = self.pool[self.pool.index(ident)]
        at = (wanted.input, wanted.output, wanted.task)
        members = (self.pool[i] for i in self.features.members)
        return next(row for row, each in enumerate(members) if (each.input, each.output, each.task) == at)

    def at(self, row: int) -> Demonstration:
        """The demonstration at a row of the features."""
        return self.pool[self.features.members[row]]

    def tokens(self, row: int, settings: Settings) -> int:
        """Tokens of the demonstration at a row of the features, counted once."""
        if row not in self.counted:
            self.counted[row] = count_demonstration_tokens([self.at(row)], settings.template, settings.count_tokens)[0]
        return self.counted[row]


def check_size(pool: Pool, distinct: int, settings: Settings) -> None:
    """Raises a ``PoolError`` if the pool is empty, or k exceeds the number of its distinct examples."""
    if not len(pool):
        raise PoolError("the pool is empty; give it at least one example")
    if settings.k != "auto" and settings.k > distinct:
        raise PoolError(
            f"k must be at most the number of distinct examples in the pool ({distinct}), got {settings.k}; add "
            "examples, lower k, or use k='auto'"
        )


@dataclass(frozen=True)
class Traffic:
    """A sample of the queries that the product gets, with their embeddings ``[m, d]``."""

    queries: tuple[Query, ...]
    vectors: Tensor


def query_distribution(
    corpus: EmbeddedPool,
    traffic: Traffic | None,
    settings: Settings,
    queries: Sequence[AnyQuery] | None = None,
    *,
    task: str | None = None,
    outputs: Iterable[str] | None = None,
) -> tuple[QueryTensors, list[str]]:
    """The queries that a static prompt is to serve.

    Args:
        corpus: The pool.
        traffic: A sample of the traffic, where there is one.
        settings: How many queries are looked at, and the seed of their choice.
        queries: In place of the traffic; without both, the pool's own inputs.
        task: Of all of them.
        outputs: Permitted for all of them.

    Returns:
        The queries, and what to say of them; the first note is ``FROM_POOL`` where they are the pool's own.

    Raises:
        QueryError: There is none.
    """
    given, vectors, notes = queries, None, []
    if given is None and traffic is not None:
        given, vectors = traffic.queries, traffic.vectors
    if given is None:
        index = [i for i, d in enumerate(corpus.pool) if task is None or d.task == task]
        given = [Query(text=corpus.pool[i].input, task=corpus.pool[i].task) for i in index]
        vectors = corpus.vectors[torch.tensor(index, dtype=torch.long, device=corpus.vectors.device)]
        notes.append(FROM_POOL)
    parsed = corpus.parsed(given, task, outputs)
    if not parsed:
        raise QueryError("queries must hold at least one query; leave them out to take the pool's own inputs")
    wanted = corpus.requests(parsed, settings, vectors)
    if len(parsed) <= settings.static_queries:
        return wanted, notes
    generator = torch.Generator().manual_seed(settings.seed)
    keep = torch.randperm(len(parsed), generator=generator)[: settings.static_queries].sort().values
    notes.append(f"a sample of {len(keep)} of the {len(parsed)} queries stands for all (static_queries)")
    return wanted.part(keep.to(wanted.q.device)), notes
