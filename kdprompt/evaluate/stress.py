"""Stress suites, made from any data set with a seed: what real pools look like."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query

__all__ = ["duplicates", "imbalance", "label_noise", "mixed", "stress"]

Rebuild = Callable[[Demonstration], Demonstration]


def label_noise(dataset: Dataset, rate: float = 0.3, *, seed: int = 0) -> Dataset:
    """A share of the pool's outputs replaced by another output of the pool, uniformly drawn.

    Args:
        dataset: The data set; its queries stay as they are.
        rate: Share of examples in [0, 1] that get a wrong output.
        seed: Of the draw.
    """
    _in_unit(rate, "rate")
    rng = random.Random(seed)
    names = sorted({str(d.output) for d in dataset.pool})
    if len(names) < 2:
        raise ValueError(f"label noise needs at least two outputs, the pool of {dataset.name} has {names}")
    wrong = set(rng.sample(range(len(dataset.pool)), round(rate * len(dataset.pool))))

    def flipped(i: int, shown: Demonstration) -> Demonstration:
        others = [name for name in names if name != shown.output]
        return shown.model_copy(update={"output": rng.choice(others)}) if i in wrong else shown

    pool = Pool((flipped(i, shown) for i, shown in enumerate(dataset.pool)), dataset.pool.schema)
    return replace(dataset, pool=pool, suite=f"noise={rate:g}")


def duplicates(dataset: Dataset, share: float = 0.1, *, seed: int = 0) -> Dataset:
    """Copies of a share of the pool's examples added to it, under ids of their own."""
    _in_unit(share, "share")
    chosen = random.Random(seed).sample(list(dataset.pool), round(share * len(dataset.pool)))
    copies = (shown.model_copy(update={"id": f"{shown.id}-copy"}) for shown in chosen)
    pool = Pool((*dataset.pool, *copies), dataset.pool.schema)
    return replace(dataset, pool=pool, suite=f"duplicates={share:g}")


def imbalance(dataset: Dataset, ratio: float = 20.0, *, seed: int = 0) -> Dataset:
    """The pool thinned so that the most frequent output is ``ratio`` times as frequent as the rarest.

    Frequencies fall geometrically from the most frequent output to the rarest, in the order of the pool's own
    frequencies.

    Args:
        dataset: The data set; its queries stay as they are.
        ratio: At least 1.
        seed: Of the draw.
    """
    if ratio < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    counts = Counter(str(d.output) for d in dataset.pool).most_common()
    most = counts[0][1]
    steps = max(len(counts) - 1, 1)
    rng = random.Random(seed)
    kept: set[str] = set()
    for rank, (name, count) in enumerate(counts):
        wanted = max(1, min(count, round(most * ratio ** (-rank / steps))))
        kept.update(d.id for d in rng.sample([d for d in dataset.pool if d.output == name], wanted))
    pool = Pool((d for d in dataset.pool if d.id in kept), dataset.pool.schema)
    return replace(dataset, pool=pool, suite=f"imbalance={ratio:g}")


def mixed(datasets: Sequence[Dataset], told: str = "nothing") -> list[Dataset]:
    """Pools of several data sets in one; each data set's queries against the whole pool.

    Args:
        datasets: Two or more.
        told: What queries say of themselves: their task ``tags``, the permitted ``outputs`` of their task, or
            ``nothing``. Where it is not tags, the pool has none either.

    Returns:
        One data set for each, with the union of all outputs as labels.
    """
    if len(datasets) < 2:
        raise ValueError(f"a mixed pool needs at least two data sets, got {len(datasets)}")
    if told not in ("tags", "outputs", "nothing"):
        raise ValueError(f"told must be 'tags', 'outputs' or 'nothing', got {told!r}")
    pool = Pool(_member(shown, dataset.name, tagged=told == "tags") for dataset in datasets for shown in dataset.pool)
    return [_mixed_queries(dataset, pool, told) for dataset in datasets]


def _member(shown: Demonstration, task: str, *, tagged: bool) -> Demonstration:
    fields = {**shown.fields, "task": task}  # remembered for counting, whatever the selector is told
    return shown.model_copy(update={"id": f"{task}-{shown.id}", "task": task if tagged else None, "fields": fields})


def _mixed_queries(dataset: Dataset, pool: Pool, told: str) -> Dataset:
    outputs = frozenset(str(d.output) for d in dataset.pool) if told == "outputs" else None
    task = dataset.name if told == "tags" else None

    def said(query: Query) -> Query:
        return query.model_copy(update={"task": task, "outputs": outputs})

    def case(original: Case) -> Case:
        return replace(original, query=said(original.query), task=dataset.name)

    return replace(
        dataset,
        pool=pool,
        traffic=tuple(said(query) for query in dataset.traffic),
        dev=tuple(case(item) for item in dataset.dev),
        test=tuple(case(item) for item in dataset.test),
        suite=f"mixed={told}",
    )


def stress(datasets: Sequence[Dataset], suite: str, *, seed: int = 0) -> list[Dataset]:
    """Data sets under a suite given by name.

    Args:
        datasets: The data sets.
        suite: ``clean``, ``noise=0.3``, ``duplicates=0.1``, ``imbalance=20``, ``mixed=tags``, ``mixed=outputs`` or
            ``mixed=nothing``.
        seed: Of what is drawn.

    Raises:
        ValueError: There is no such suite, or its value is out of range.
    """
    name, _, value = suite.partition("=")
    if name == "clean":
        return list(datasets)
    if name == "mixed":
        return mixed(datasets, value or "nothing")
    single = {"noise": label_noise, "duplicates": duplicates, "imbalance": imbalance}
    if name not in single:
        raise ValueError(f"there is no suite {name!r}; there are clean, mixed, {', '.join(single)}")
    try:
        number = float(value) if value else None
    except ValueError:
        raise ValueError(f"the suite {name!r} takes a number, got {value!r}") from None
    make = single[name]
    return [make(item, seed=seed) if number is None else make(item, number, seed=seed) for item in datasets]


def _in_unit(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
