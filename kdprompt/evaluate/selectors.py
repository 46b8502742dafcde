"""Selectors that a benchmark compares. Each prepares once on a pool and then chooses demonstrations for queries.

``kdprompt.evaluate.selector_specs`` makes them from text such as ``mmr:trade_off=0.9``.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kdprompt.evaluate.benchmark_pool import BenchmarkPool, QueryBatch
from kdprompt.evaluate.query_baselines import QueryBaseline
from kdprompt.evaluate.static_baselines import StaticBaseline
from kdprompt.pool.records import Demonstration
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings

__all__ = [
    "BenchmarkSelector",
    "ChooseFunction",
    "Demonstrations",
    "DistillationBenchmarkSelector",
    "LangChainSelector",
    "PerQuerySelector",
    "ShuffledSelector",
    "StaticSelector",
]

Demonstrations = tuple[Demonstration, ...]
"""The demonstrations of one prompt, in the order in which they stand there."""

ChooseFunction = Callable[[QueryBatch], list[Demonstrations]]
"""From m queries to the demonstrations of m prompts."""


class BenchmarkSelector(Protocol):
    """A way to choose demonstrations that a benchmark can compare with others.

    Attributes:
        name: Name in tables.
        draws: Number of seeds that results are averaged over; 1 where nothing is drawn.
    """

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    @property
    def draws(self) -> int:
        """Number of seeds that results are averaged over."""
        ...

    def prepare(self, benchmark: BenchmarkPool, k: int) -> ChooseFunction:
        """Does what is needed once for a pool.

        Args:
            benchmark: The embedded pool, a sample of the traffic, and the seed of every random draw.
            k: Demonstrations a prompt.

        Returns:
            The function that chooses demonstrations for queries.
        """
        ...


@dataclass(frozen=True)
class PerQuerySelector:
    """A published method that chooses demonstrations for each query.

    Attributes:
        name: Name in tables.
        function: The method, one of ``query_baselines``.
        draws: Number of seeds that results are averaged over.
    """

    name: str
    function: QueryBaseline
    draws: int = 1

    def prepare(self, benchmark: BenchmarkPool, k: int) -> ChooseFunction:
        """Does nothing before queries come."""

        def choose(batch: QueryBatch) -> list[Demonstrations]:
            return [benchmark.demonstrations(rows) for rows in self.function(benchmark, batch, k).tolist()]

        return choose


@dataclass(frozen=True)
class StaticSelector:
    """A published method that chooses one prompt for all queries.

    Attributes:
        name: Name in tables.
        function: The method, one of ``static_baselines``.
        draws: Number of seeds that results are averaged over.
    """

    name: str
    function: StaticBaseline
    draws: int = 1

    def prepare(self, benchmark: BenchmarkPool, k: int) -> ChooseFunction:
        """Chooses the prompt."""
        return _choose_always(benchmark.demonstrations(self.function(benchmark, k)))


@dataclass(frozen=True)
class DistillationBenchmarkSelector:
    """kdprompt itself: ``DistillationSelector`` on the embeddings of the benchmark.

    Attributes:
        name: Name in tables.
        settings: Settings other than k.
        static: Whether one prompt, chosen for the traffic, serves all queries.
        adaptive_k: Whether each prompt gets the number of demonstrations that minimises J, at most k.
        traffic: Whether prompts for single queries are calibrated near the traffic. Static prompts, and those that are
            calibrated with the reader, always are.
        ask_reader: Whether the reader answers examples of the pool during preparation: to choose the static prompt, or
            to calibrate.
        max_answers: Most answers of the reader in a calibration; None is no limit.
        draws: 1, since nothing is drawn.
    """

    name: str
    settings: Settings = field(default_factory=Settings)
    static: bool = False
    adaptive_k: bool = False
    traffic: bool = False
    ask_reader: bool = False
    max_answers: int | None = None
    draws: int = 1

    def prepare(self, benchmark: BenchmarkPool, k: int) -> ChooseFunction:
        """Builds the selector on the embeddings at hand, which calibrates on the pool."""
        number: dict[str, Any] = {"k": "auto", "k_max": k} if self.adaptive_k else {"k": k}
        selector = DistillationSelector.from_examples(
            benchmark.pool,
            benchmark.embedder,
            vectors=benchmark.x,
            queries=benchmark.traffic if self.traffic or self.static or self.ask_reader else None,
            settings=self.settings.model_copy(update=number),
        )
        if self.static:
            reader = benchmark.reader if self.ask_reader else None
            return _choose_always(selector.select_static(reader=reader).demonstrations)
        if self.ask_reader:
            selector.calibrate(benchmark.reader, max_answers=self.max_answers)
        return lambda batch: [
            selection.demonstrations for selection in selector.select_batch(batch.queries, vectors=batch.q)
        ]


@dataclass(frozen=True)
class ShuffledSelector:
    """The demonstrations of another selector in random order, one order a draw.

    Attributes:
        name: Name in tables.
        selector: The other selector.
        draws: Number of random orders.
    """

    name: str
    selector: BenchmarkSelector
    draws: int = 20

    def prepare(self, benchmark: BenchmarkPool, k: int) -> ChooseFunction:
        """Prepares the other selector; orders depend on the seed of the benchmark and on the demonstrations."""
        choose = self.selector.prepare(benchmark, k)
        return lambda batch: self.shuffle(choose(batch), benchmark.seed)

    @staticmethod
    def shuffle(prompts: Sequence[Demonstrations], seed: int) -> list[Demonstrations]:
        """Puts the demonstrations of prompts into random order; equal sets of demonstrations get the same order.

        Args:
            prompts: The demonstrations of each prompt.
            seed: Seed of the orders.
        """
        shuffled = []
        for demonstrations in prompts:
            order = sorted(demonstrations, key=lambda demonstration: demonstration.id)
            random.Random(f"{seed} {[demonstration.id for demonstration in order]}").shuffle(order)
            shuffled.append(tuple(order))
        return shuffled


@dataclass(frozen=True)
class LangChainSelector:
    """An example selector of LangChain.

    Attributes:
        name: Name in tables.
        build: From examples (``input``, ``output`` and ``id`` each), LangChain embeddings and k to the selector.
        draws: 1, since nothing is drawn.
    """

    name: str
    build: Callable[[list[dict[str, str]], Any, int], Any]
    draws: int = 1

    def prepare(self, benchmark: BenchmarkPool, k: int) -> ChooseFunction:
        """Builds the selector on the pool."""
        from langchain_core.embeddings import Embeddings

        class BenchmarkEmbeddings(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                vectors: list[list[float]] = benchmark.embed(texts).tolist()
                return vectors

            def embed_query(self, text: str) -> list[float]:
                return self.embed_documents([text])[0]

        pool = benchmark.pool
        examples = [{"input": d.input, "output": str(d.output), "id": d.id} for d in pool]
        selector = self.build(examples, BenchmarkEmbeddings(), k)

        def choose(batch: QueryBatch) -> list[Demonstrations]:
            prompts = [selector.select_examples({"input": query.text}) for query in batch.queries]
            return [tuple(pool[pool.index(example["id"])] for example in examples) for examples in prompts]

        return choose


def _choose_always(demonstrations: Demonstrations) -> ChooseFunction:
    """The same demonstrations for every query."""
    return lambda batch: [demonstrations] * len(batch.queries)
