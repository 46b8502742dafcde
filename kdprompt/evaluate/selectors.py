"""Everything that can be compared goes through one door: prepare on a problem, then choose for queries."""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from kdprompt.evaluate.datasets import Asked, Problem
from kdprompt.evaluate.query_baselines import PER_QUERY, Baseline
from kdprompt.evaluate.static_baselines import STATIC, StaticBaseline
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.pool.records import Demonstration
from kdprompt.search.ordering import ORDERS
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from kdprompt.theory.kernels import Gaussian

__all__ = [
    "Choose",
    "Contender",
    "Distillation",
    "FromLangChain",
    "PerQuery",
    "Shuffled",
    "Static",
    "contender",
    "contenders",
]

Shown = tuple[Demonstration, ...]
Choose = Callable[[Asked], list[Shown]]
RANDOM_DRAWS = 10


class Contender(Protocol):
    """A way to choose demonstrations.

    Attributes:
        name: In tables.
        draws: How many seeds it is averaged over; 1 where nothing is drawn.
    """

    @property
    def name(self) -> str:
        """In tables."""
        ...

    @property
    def draws(self) -> int:
        """How many seeds it is averaged over."""
        ...

    def prepare(self, problem: Problem, k: int) -> Choose:
        """What is done once for a pool; what comes back is asked for each query."""
        ...


@dataclass(frozen=True)
class PerQuery:
    """A baseline that chooses for each query."""

    name: str
    function: Baseline
    draws: int = 1

    def prepare(self, problem: Problem, k: int) -> Choose:
        """Nothing to prepare."""

        def choose(asked: Asked) -> list[Shown]:
            return [problem.demonstrations(rows) for rows in self.function(problem, asked, k).tolist()]

        return choose


@dataclass(frozen=True)
class Static:
    """A baseline with one prompt for all queries."""

    name: str
    function: StaticBaseline
    draws: int = 1

    def prepare(self, problem: Problem, k: int) -> Choose:
        """Chooses the prompt."""
        shown = problem.demonstrations(self.function(problem, k))
        return lambda asked: [shown] * len(asked.queries)


@dataclass(frozen=True)
class Distillation:
    """kdprompt itself.

    Attributes:
        name: In tables.
        settings: Settings other than k.
        static: One prompt for all queries, chosen for the traffic.
        auto: The number that minimises J, at most k.
        traffic: Whether prompts for single queries are calibrated near the traffic; static prompts, and those that a
            reader calibrates, always are.
        reads: Whether the reader answers examples of the pool beforehand: for the static prompt, or to calibrate.
        draws: 1.
    """

    name: str
    settings: Settings = field(default_factory=Settings)
    static: bool = False
    auto: bool = False
    traffic: bool = False
    reads: bool = False
    draws: int = 1

    def prepare(self, problem: Problem, k: int) -> Choose:
        """Builds the selector on the embeddings at hand, which calibrates on the pool."""
        update: dict[str, Any] = {"k": "auto", "k_max": k} if self.auto else {"k": k}
        selector = DistillationSelector.from_examples(
            problem.pool,
            problem.embedder,
            vectors=problem.x,
            queries=problem.traffic if self.traffic or self.static or self.reads else None,
            settings=self.settings.model_copy(update=update),
        )
        if self.static:
            shown = selector.select_static(reader=problem.reader if self.reads else None).demonstrations
            return lambda asked: [shown] * len(asked.queries)
        if self.reads:
            selector.calibrate(problem.reader)
        return lambda asked: [
            selection.demonstrations for selection in selector.select_batch(asked.queries, vectors=asked.q)
        ]


@dataclass(frozen=True)
class Shuffled:
    """Another contender's demonstrations in random order, one order a draw."""

    name: str
    of: Contender
    draws: int = 20

    def prepare(self, problem: Problem, k: int) -> Choose:
        """Prepares the other; orders are drawn from the problem's seed and the demonstrations."""
        inner = self.of.prepare(problem, k)
        return lambda asked: self.arranged(inner(asked), problem.seed)

    @staticmethod
    def arranged(chosen: Sequence[Shown], seed: int) -> list[Shown]:
        """Demonstrations in a random order, the same for all queries that are shown the same ones."""
        found = []
        for shown in chosen:
            order = sorted(shown, key=lambda demonstration: demonstration.id)
            random.Random(f"{seed} {[demonstration.id for demonstration in order]}").shuffle(order)
            found.append(tuple(order))
        return found


@dataclass(frozen=True)
class FromLangChain:
    """An example selector of LangChain.

    Attributes:
        name: In tables.
        build: From examples (``input``, ``output``, ``id``), LangChain embeddings and k to the selector.
        draws: 1.
    """

    name: str
    build: Callable[[list[dict[str, str]], Any, int], Any]
    draws: int = 1

    def prepare(self, problem: Problem, k: int) -> Choose:
        """Builds it on the pool."""
        from langchain_core.embeddings import Embeddings

        class Known(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                vectors: list[list[float]] = problem.embed(texts).tolist()
                return vectors

            def embed_query(self, text: str) -> list[float]:
                return self.embed_documents([text])[0]

        examples = [{"input": d.input, "output": str(d.output), "id": d.id} for d in problem.pool]
        selector = self.build(examples, Known(), k)

        def choose(asked: Asked) -> list[Shown]:
            chosen = [selector.select_examples({"input": query.text}) for query in asked.queries]
            return [tuple(problem.pool[problem.pool.index(row["id"])] for row in rows) for rows in chosen]

        return choose


def _similarity(examples: list[dict[str, str]], embeddings: Any, k: int) -> Any:
    from langchain_core.example_selectors import SemanticSimilarityExampleSelector
    from langchain_core.vectorstores import InMemoryVectorStore

    return SemanticSimilarityExampleSelector.from_examples(
        examples, embeddings, InMemoryVectorStore, k=k, input_keys=["input"]
    )


def _marginal_relevance(examples: list[dict[str, str]], embeddings: Any, k: int) -> Any:
    from langchain_core.example_selectors import MaxMarginalRelevanceExampleSelector
    from langchain_core.vectorstores import InMemoryVectorStore

    return MaxMarginalRelevanceExampleSelector.from_examples(
        examples, embeddings, InMemoryVectorStore, k=k, input_keys=["input"]
    )


def _registry() -> dict[str, Callable[[], Contender]]:
    known: dict[str, Callable[[], Contender]] = {
        "kdprompt": lambda: Distillation("kdprompt"),
        "kdprompt-reader": lambda: Distillation("kdprompt-reader", reads=True),
        "kdprompt-auto": lambda: Distillation("kdprompt-auto", auto=True),
        "kdprompt-static": lambda: Distillation("kdprompt-static", static=True),
        "kdprompt-static-reader": lambda: Distillation("kdprompt-static-reader", static=True, reads=True),
        "langchain-similarity": lambda: FromLangChain("langchain-similarity", _similarity),
        "langchain-mmr": lambda: FromLangChain("langchain-mmr", _marginal_relevance),
    }
    for name, function in PER_QUERY.items():
        known[name] = partial(PerQuery, name, function)
    for name, static in STATIC.items():
        known[name] = partial(Static, name, static, RANDOM_DRAWS if name == "random" else 1)
    return known


def contender(spec: str) -> Contender:
    """A contender by name, with options behind a colon.

    ``kdprompt:share=0;interference=1`` pins settings of kdprompt (share, neighbourhood, interference, complexity,
    tolerance, temperature, order, shortlist, static_rounds, calibrate), and ``traffic=true`` calibrates it near the
    traffic; ``mmr:trade_off=0.9`` sets an argument of a baseline; ``shuffled:kdprompt`` and ``shuffled(5):kdprompt``
    show another's demonstrations in 20 or 5 random orders.

    Raises:
        ValueError: There is no such contender or option; the error lists those that there are.
    """
    name, _, rest = spec.partition(":")
    if name.startswith("shuffled"):
        count = name.removeprefix("shuffled").strip("()") or "20"
        if not count.isdecimal() or not rest:
            raise ValueError(
                f"shuffled needs a number of orders and a selector, as in shuffled(20):kdprompt, got {spec!r}"
            )
        return Shuffled(spec, contender(rest), int(count))
    registry = _registry()
    if name not in registry:
        raise ValueError(f"there is no selector {name!r}; there are {', '.join(sorted(registry))}")
    plain = registry[name]()
    options = _options(rest, spec)
    if not options:
        return plain
    if isinstance(plain, Distillation):
        traffic = options.pop("traffic", False)
        if not isinstance(traffic, bool):
            raise ValueError(f"traffic must be true or false, got {traffic!r} in {spec!r}")
        return replace(plain, name=spec, traffic=traffic, settings=_settings(options, spec))
    if isinstance(plain, PerQuery | Static):
        return type(plain)(spec, _bound(plain.function, options, spec), plain.draws)
    raise ValueError(f"the selector {name!r} takes no options, got {rest!r}")


def contenders(specs: Iterable[str]) -> list[Contender]:
    """Contenders by name, each once; ``per-query``, ``static`` and ``all`` stand for all of a kind.

    Raises:
        ValueError: As ``contender``.
    """
    groups = {"per-query": ("kdprompt", *PER_QUERY), "static": ("kdprompt-static", *STATIC)}
    groups["all"] = groups["per-query"] + groups["static"]
    names = [name for spec in specs for name in groups.get(spec, (spec,))]
    return [contender(name) for name in dict.fromkeys(names)]


def _options(text: str, spec: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, text.split(";")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"options are name=value, separated by semicolons, got {part!r} in {spec!r}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def _settings(options: Mapping[str, Any], spec: str) -> Settings:
    plain = {"share", "neighbourhood", "tolerance", "shortlist", "static_rounds", "calibrate"}
    update = {key: value for key, value in options.items() if key in plain}
    weights = {key: options[key] for key in ("interference", "complexity") if key in options}
    if weights:
        update["penalties"] = ObjectiveWeights(**weights)
    if "temperature" in options:
        update["kernel"] = Gaussian(options["temperature"])
    if "order" in options:
        if options["order"] not in ORDERS:
            raise ValueError(f"order must be one of {sorted(ORDERS)}, got {options['order']!r} in {spec!r}")
        update["order"] = ORDERS[options["order"]]()
    known = plain | {"interference", "complexity", "temperature", "order", "traffic"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"kdprompt has no option {unknown[0]!r} here; it has {sorted(known)}")
    return Settings(**update)


def _bound(function: Callable[..., Any], options: Mapping[str, Any], spec: str) -> Callable[..., Any]:
    names = set(getattr(function, "__kwdefaults__", None) or ())
    unknown = sorted(set(options) - names)
    if unknown:
        raise ValueError(f"{spec!r}: there is no option {unknown[0]!r}; there are {sorted(names) or 'none'}")
    return partial(function, **options)
