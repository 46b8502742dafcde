"""What a selector sees in a benchmark: embedded demonstrations, embedded traffic, and batches of embedded queries."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from kdprompt.pool.embedding import CallableEmbedder, Embedder
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query
from kdprompt.readers.reader import Reader

__all__ = ["BenchmarkPool", "EmbeddingFunction", "QueryBatch"]


class EmbeddingFunction(Protocol):
    """Texts to ``[n, d]``, with a name that identifies the embedding."""

    name: str

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts to ``[n, d]``."""
        ...


@dataclass(frozen=True)
class BenchmarkPool:
    """A pool and a sample of the traffic, as selectors see them: no output of a query.

    Attributes:
        pool: The demonstrations.
        x: Unit-norm embeddings of their inputs ``[n, d]``.
        traffic: Sample of the query distribution.
        traffic_vectors: Its unit-norm embeddings ``[t, d]``.
        embed: Texts to embeddings, for selectors that embed for themselves.
        seed: Seed of every random draw of a selector.
        reader: The reader that will answer, for selectors that ask it while they prepare; None where there is none.
    """

    pool: Pool
    x: Tensor
    traffic: tuple[Query, ...]
    traffic_vectors: Tensor
    embed: EmbeddingFunction
    seed: int = 0
    reader: Reader | None = None

    @cached_property
    def output_codes(self) -> Tensor:
        """Integer code of each demonstration's output ``[n]``; codes follow the sorted outputs."""
        codes = {output: code for code, output in enumerate(sorted({str(d.output) for d in self.pool}))}
        return torch.tensor([codes[str(d.output)] for d in self.pool])

    @cached_property
    def embedder(self) -> Embedder:
        """The embedding as an ``Embedder``."""
        return CallableEmbedder(self.embed)

    def demonstrations(self, rows: Iterable[int]) -> tuple[Demonstration, ...]:
        """The demonstrations at some rows of the pool; −1 is padding and is left out."""
        return tuple(self.pool[row] for row in rows if row >= 0)


@dataclass(frozen=True)
class QueryBatch:
    """Queries to select for: ``queries`` of length m and their unit-norm embeddings ``q: [m, d]``."""

    queries: tuple[Query, ...]
    q: Tensor

    def __iter__(self) -> Iterator["QueryBatch"]:
        """Batches of one query each."""
        for i in range(len(self.queries)):
            yield QueryBatch(self.queries[i : i + 1], self.q[i : i + 1])

    def first(self, count: int) -> "QueryBatch":
        """The first ``count`` queries."""
        return QueryBatch(self.queries[:count], self.q[:count])
