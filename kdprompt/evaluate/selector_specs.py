"""Selectors of a benchmark from text: a name, and options behind a colon, as in ``mmr:trade_off=0.9``."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from kdprompt.evaluate.predictors import LogisticRegression, Majority, NearestVote, Predictor
from kdprompt.evaluate.query_baselines import QUERY_BASELINES
from kdprompt.evaluate.selectors import (
    BenchmarkSelector,
    DistillationBenchmarkSelector,
    LangChainSelector,
    PerQuerySelector,
    ShuffledSelector,
    StaticSelector,
)
from kdprompt.evaluate.static_baselines import STATIC_BASELINES
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.reader_profile import find_profile
from kdprompt.search.order_names import ORDERS
from kdprompt.settings import Settings
from kdprompt.theory.kernels import Gaussian

__all__ = ["make_predictor", "make_selector", "make_selectors"]

RANDOM_DRAWS = 10
PREDICTORS = ("majority", "nearest-vote", "logistic-regression")
OPTIONS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {  # group and field of Settings, from the option's value
    "share": ("objective", "output_share", lambda value: value),
    "neighbourhood": ("objective", "neighbourhood", lambda value: value),
    "tolerance": ("objective", "tolerance", lambda value: value),
    "temperature": ("objective", "kernel", Gaussian),
    "profile": ("objective", "profile", lambda name: find_profile(str(name))),
    "shortlist": ("search", "shortlist", lambda value: value),
    "lexical_share": ("search", "lexical_share", lambda value: value),
    "static_rounds": ("static", "rounds", lambda value: value),
}
KDPROMPT_OPTIONS = {*OPTIONS, "calibrate", "interference", "complexity", "order", "traffic"}
GROUPS: dict[str, tuple[str, ...]] = {
    "per-query": ("kdprompt", *QUERY_BASELINES),
    "static": ("kdprompt-static", *STATIC_BASELINES),
    "all": ("kdprompt", *QUERY_BASELINES, "kdprompt-static", *STATIC_BASELINES),
}


def make_predictor(spec: str) -> Predictor:
    """Makes a row that needs no language model: ``majority:SELECTOR``, ``nearest-vote``, ``logistic-regression``.

    Args:
        spec: Name and options, ``nearest-vote:neighbours=8`` say.

    Raises:
        ValueError: There is no such predictor or option.
    """
    name, _, rest = spec.partition(":")
    if name == "majority":
        if not rest:
            raise ValueError(f"majority needs a selector, as in majority:nearest-last, got {spec!r}")
        selector = make_selector(rest)
        if isinstance(selector, DistillationBenchmarkSelector) and selector.ask_reader:
            raise ValueError(f"{rest!r} asks the model beforehand, so that {spec!r} would be no row without one")
        return Majority(spec, selector)
    options = _parse_options(rest, spec)
    neighbours = options.pop("neighbours", 16) if name == "nearest-vote" else 16
    if options:
        raise ValueError(f"the predictor {name!r} has no option {min(options)!r}, got {spec!r}")
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
        raise ValueError(f"neighbours must be a whole number of at least 1, got {neighbours!r} in {spec!r}")
    return NearestVote(spec, neighbours) if name == "nearest-vote" else LogisticRegression(spec)


def make_selector(spec: str) -> BenchmarkSelector:
    """Makes a selector from its name and options.

    ``kdprompt:share=0;interference=1`` sets settings of kdprompt (share, neighbourhood, interference, complexity,
    tolerance, temperature, order, shortlist, lexical_share, static_rounds, calibrate, ``profile=FILE`` of a reader),
    and ``traffic=true`` calibrates it near the traffic; ``kdprompt-reader:max_answers=1500`` bounds the reader's
    answers; ``mmr:trade_off=0.9`` sets an argument of a baseline; ``shuffled:kdprompt`` and ``shuffled(5):kdprompt``
    show another selector's demonstrations in 20 or 5 random orders.

    Args:
        spec: Name and options.

    Raises:
        ValueError: There is no such selector or option; the error lists those that there are.
    """
    name, _, rest = spec.partition(":")
    if name.startswith("shuffled"):
        return _make_shuffled(name, rest, spec)
    known = _known_selectors()
    if name not in known:
        names = ", ".join(sorted([*known, *PREDICTORS]))
        raise ValueError(f"there is no selector {name!r}; there are {names}")
    selector = known[name]()
    options = _parse_options(rest, spec)
    if not options:
        return selector
    if isinstance(selector, DistillationBenchmarkSelector):
        traffic = options.pop("traffic", False)
        if not isinstance(traffic, bool):
            raise ValueError(f"traffic must be true or false, got {traffic!r} in {spec!r}")
        most = options.pop("max_answers", None)
        if most is not None and (not isinstance(most, int) or not selector.ask_reader):
            raise ValueError(f"max_answers is a whole number, for kdprompt-reader alone, got {most!r} in {spec!r}")
        settings = _make_settings(options, spec)
        return replace(selector, name=spec, traffic=traffic, max_answers=most, settings=settings)
    if isinstance(selector, PerQuerySelector | StaticSelector):
        return type(selector)(spec, _bind_options(selector.function, options, spec), selector.draws)
    raise ValueError(f"the selector {name!r} takes no options, got {rest!r}")


def make_selectors(specs: Iterable[str]) -> list[BenchmarkSelector | Predictor]:
    """Makes selectors and predictors, each once; ``per-query``, ``static`` and ``all`` stand for all of a kind.

    Args:
        specs: Names of groups, or specs as ``make_selector`` and ``make_predictor`` take them.

    Raises:
        ValueError: As these.
    """
    names = dict.fromkeys(name for spec in specs for name in GROUPS.get(spec, (spec,)))
    return [make_predictor(name) if name.partition(":")[0] in PREDICTORS else make_selector(name) for name in names]


def _known_selectors() -> dict[str, Callable[[], BenchmarkSelector]]:
    """What makes each selector without options, by name."""
    distillation = DistillationBenchmarkSelector
    known: dict[str, Callable[[], BenchmarkSelector]] = {
        "kdprompt": lambda: distillation("kdprompt"),
        "kdprompt-reader": lambda: distillation("kdprompt-reader", ask_reader=True),
        "kdprompt-auto": lambda: distillation("kdprompt-auto", adaptive_k=True),
        "kdprompt-static": lambda: distillation("kdprompt-static", static=True),
        "kdprompt-static-reader": lambda: distillation("kdprompt-static-reader", static=True, ask_reader=True),
        "langchain-similarity": lambda: LangChainSelector("langchain-similarity", _build_similarity),
        "langchain-mmr": lambda: LangChainSelector("langchain-mmr", _build_marginal_relevance),
    }
    for name, function in QUERY_BASELINES.items():
        known[name] = partial(PerQuerySelector, name, function)
    for name, static in STATIC_BASELINES.items():
        known[name] = partial(StaticSelector, name, static, RANDOM_DRAWS if name == "random" else 1)
    return known


def _make_shuffled(name: str, inner: str, spec: str) -> ShuffledSelector:
    draws = name.removeprefix("shuffled").strip("()") or "20"
    if not draws.isdecimal() or not inner:
        raise ValueError(f"shuffled needs a number of orders and a selector, as in shuffled(20):kdprompt, got {spec!r}")
    return ShuffledSelector(spec, make_selector(inner), int(draws))


def _parse_options(text: str, spec: str) -> dict[str, Any]:
    """Options from ``name=value;name=value``; values are JSON where they can be, text otherwise."""
    options: dict[str, Any] = {}
    for option in filter(None, text.split(";")):
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"options are name=value, separated by semicolons, got {option!r} in {spec!r}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def _make_settings(options: Mapping[str, Any], spec: str) -> Settings:
    unknown = sorted(set(options) - KDPROMPT_OPTIONS)
    if unknown:
        raise ValueError(f"kdprompt has no option {unknown[0]!r} here; it has {sorted(KDPROMPT_OPTIONS)}")
    groups: dict[str, dict[str, Any]] = {}
    for name, (group, field, convert) in OPTIONS.items():
        if name in options:
            groups.setdefault(group, {})[field] = convert(options[name])
    weights = {key: options[key] for key in ("interference", "complexity") if key in options}
    if weights:
        groups.setdefault("objective", {})["weights"] = ObjectiveWeights(**weights)
    changes: dict[str, Any] = {"calibrate": options["calibrate"]} if "calibrate" in options else {}
    if "order" in options:
        if options["order"] not in ORDERS:
            raise ValueError(f"order must be one of {sorted(ORDERS)}, got {options['order']!r} in {spec!r}")
        changes["order"] = ORDERS[options["order"]]()
    return Settings.model_validate({**groups, **changes})


def _bind_options(function: Callable[..., Any], options: Mapping[str, Any], spec: str) -> Callable[..., Any]:
    names = set(getattr(function, "__kwdefaults__", None) or ())
    unknown = sorted(set(options) - names)
    if unknown:
        raise ValueError(f"{spec!r}: there is no option {unknown[0]!r}; there are {sorted(names) or 'none'}")
    return partial(function, **options)


def _build_similarity(examples: list[dict[str, str]], embeddings: Any, k: int) -> Any:
    from langchain_core.example_selectors import SemanticSimilarityExampleSelector
    from langchain_core.vectorstores import InMemoryVectorStore

    return SemanticSimilarityExampleSelector.from_examples(
        examples, embeddings, InMemoryVectorStore, k=k, input_keys=["input"]
    )


def _build_marginal_relevance(examples: list[dict[str, str]], embeddings: Any, k: int) -> Any:
    from langchain_core.example_selectors import MaxMarginalRelevanceExampleSelector
    from langchain_core.vectorstores import InMemoryVectorStore

    return MaxMarginalRelevanceExampleSelector.from_examples(
        examples, embeddings, InMemoryVectorStore, k=k, input_keys=["input"]
    )
