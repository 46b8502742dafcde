"""Stress suites: data sets with the faults of real pools (wrong outputs, duplicates, imbalance, mixed tasks).

Each function takes data sets and a seed and gives new data sets; the queries keep their texts and true outputs.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query

__all__ = ["add_duplicates", "add_label_noise", "apply_suite", "mix_datasets", "unbalance_outputs"]


def add_label_noise(dataset: Dataset, rate: float = 0.3, *, seed: int = 0) -> Dataset:
    """Replaces a share of the pool's outputs, each by another output of the pool, uniformly drawn.

    Args:
        dataset: The data set; its queries stay as they are.
        rate: Share of examples that get a wrong output, in [0, 1].
        seed: Seed of the draw.

    Raises:
        ValueError: The rate is not in [0, 1], or the pool has fewer than two outputs.
    """
    _check_unit_interval(rate, "rate")
    rng = random.Random(seed)
    names = sorted({str(d.output) for d in dataset.pool})
    if len(names) < 2:
        raise ValueError(f"label noise needs at least two outputs, the pool of {dataset.name} has {names}")
    wrong = set(rng.sample(range(len(dataset.pool)), round(rate * len(dataset.pool))))

    def relabel(i: int, demonstration: Demonstration) -> Demonstration:
        others = [name for name in names if name != demonstration.output]
        return demonstration.model_copy(update={"output": rng.choice(others)}) if i in wrong else demonstration

    pool = Pool((relabel(i, demonstration) for i, demonstration in enumerate(dataset.pool)), dataset.pool.schema)
    return replace(dataset, pool=pool, suite=f"noise={rate:g}")


def add_duplicates(dataset: Dataset, share: float = 0.1, *, seed: int = 0) -> Dataset:
    """Adds copies of a share of the pool's examples, under new ids.

    Args:
        dataset: The data set; its queries stay as they are.
        share: Share of examples that are copied, in [0, 1].
        seed: Seed of the draw.

    Raises:
        ValueError: The share is not in [0, 1].
    """
    _check_unit_interval(share, "share")
    originals = random.Random(seed).sample(list(dataset.pool), round(share * len(dataset.pool)))
    copies = (original.model_copy(update={"id": f"{original.id}-copy"}) for original in originals)
    pool = Pool((*dataset.pool, *copies), dataset.pool.schema)
    return replace(dataset, pool=pool, suite=f"duplicates={share:g}")


def unbalance_outputs(dataset: Dataset, ratio: float = 20.0, *, seed: int = 0) -> Dataset:
    """Thins the pool so that the most frequent output is ``ratio`` times as frequent as the rarest.

    Frequencies fall geometrically from the most frequent output to the rarest, in the order of the pool's own
    frequencies.

    Args:
        dataset: The data set; its queries stay as they are.
        ratio: Frequency of the most frequent output over that of the rarest, at least 1.
        seed: Seed of the draw.

    Raises:
        ValueError: The ratio is below 1.
    """
    if ratio < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    counts = Counter(str(d.output) for d in dataset.pool).most_common()
    most = counts[0][1]
    steps = max(len(counts) - 1, 1)
    rng = random.Random(seed)
    kept: set[str] = set()
    for rank, (name, count) in enumerate(counts):
        target = max(1, min(count, round(most * ratio ** (-rank / steps))))
        kept.update(d.id for d in rng.sample([d for d in dataset.pool if d.output == name], target))
    pool = Pool((d for d in dataset.pool if d.id in kept), dataset.pool.schema)
    return replace(dataset, pool=pool, suite=f"imbalance={ratio:g}")


def mix_datasets(datasets: Sequence[Dataset], told: str = "nothing") -> list[Dataset]:
    """Merges the pools of several data sets; the queries of each data set are asked of the whole pool.

    Args:
        datasets: Two or more.
        told: What queries state: their task (``tags``), the permitted outputs of their task (``outputs``), or
            ``nothing``. Where it is not ``tags``, the pool has no task tags either.

    Returns:
        One data set for each, with the union of all outputs as labels.

    Raises:
        ValueError: There are fewer than two data sets, or ``told`` is none of the three.
    """
    if len(datasets) < 2:
        raise ValueError(f"a mixed pool needs at least two data sets, got {len(datasets)}")
    if told not in ("tags", "outputs", "nothing"):
        raise ValueError(f"told must be 'tags', 'outputs' or 'nothing', got {told!r}")
    tagged = told == "tags"
    pool = Pool(_assign_task(d, dataset.name, tagged=tagged) for dataset in datasets for d in dataset.pool)
    return [_replace_pool(dataset, pool, told) for dataset in datasets]


def _assign_task(demonstration: Demonstration, task: str, *, tagged: bool) -> Demonstration:
    fields = {**demonstration.fields, "task": task}  # for counting demonstrations that are off task, tagged or not
    changes = {"id": f"{task}-{demonstration.id}", "task": task if tagged else None, "fields": fields}
    return demonstration.model_copy(update=changes)


def _replace_pool(dataset: Dataset, pool: Pool, told: str) -> Dataset:
    outputs = frozenset(str(d.output) for d in dataset.pool) if told == "outputs" else None
    task = dataset.name if told == "tags" else None

    def change_query(query: Query) -> Query:
        return query.model_copy(update={"task": task, "outputs": outputs})

    def change_case(case: Case) -> Case:
        return replace(case, query=change_query(case.query), task=dataset.name)

    return replace(
        dataset,
        pool=pool,
        traffic=tuple(change_query(query) for query in dataset.traffic),
        dev=tuple(change_case(case) for case in dataset.dev),
        test=tuple(change_case(case) for case in dataset.test),
        suite=f"mixed={told}",
    )


def apply_suite(datasets: Sequence[Dataset], suite: str, *, seed: int = 0) -> list[Dataset]:
    """Applies the stress suite of a name to data sets.

    Args:
        datasets: The data sets.
        suite: ``clean``, ``noise=0.3``, ``duplicates=0.1``, ``imbalance=20``, ``mixed=tags``, ``mixed=outputs`` or
            ``mixed=nothing``.
        seed: Seed of every random draw.

    Raises:
        ValueError: There is no such suite, or its value is out of range.
    """
    name, _, value = suite.partition("=")
    if name == "clean":
        return list(datasets)
    if name == "mixed":
        return mix_datasets(datasets, value or "nothing")
    single = {"noise": add_label_noise, "duplicates": add_duplicates, "imbalance": unbalance_outputs}
    if name not in single:
        raise ValueError(f"there is no suite {name!r}; there are clean, mixed, {', '.join(single)}")
    try:
        number = float(value) if value else None
    except ValueError:
        raise ValueError(f"the suite {name!r} takes a number, got {value!r}") from None
    apply = single[name]
    return [apply(d, seed=seed) if number is None else apply(d, number, seed=seed) for d in datasets]


def _check_unit_interval(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
