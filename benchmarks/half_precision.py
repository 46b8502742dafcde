"""Pools in half precision against full: how far cosines miss, whose prompts change, and what a query costs.

    python benchmarks/half_precision.py ../shared/data sst2 trec subj banking77

MiniLM vectors of each pool and of 300 queries of its ``dev``; then one query of 100,000 random unit vectors of
``benchmarks/speed``, in turn in both, processor time of one thread.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "speed"))
from conftest import World
from kdprompt import DistillationSelector, SearchSettings, Settings
from kdprompt.theory.point_pairs import multiply_with_all

HALF = Settings(search=SearchSettings(half_precision=True))
ROUNDS = 100


def read(path, limit=None):
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:limit]]


def compare(folder, name):
    """One row of the table: a data set."""
    pool = read(folder / f"{name}.pool.jsonl")
    queries = [record["input"] for record in read(folder / f"{name}.dev.jsonl", 300)]
    full = DistillationSelector.from_examples(pool)
    held = DistillationSelector.from_examples(pool, settings=HALF, vectors=full._pool.vectors)
    alike = DistillationSelector(held._pool, HALF, None, full.calibration)  # the same calibration
    q = full._pool.encode(full.pool.queries(queries), full.settings).q
    exact = q.double() @ full._pool.tensors.x.double().T
    missed = (multiply_with_all(q, held._pool.tensors.x) - exact).abs()
    prompts = zip(full.select_batch(queries), alike.select_batch(queries), strict=True)
    same = sum(set(one.ids) == set(other.ids) for one, other in prompts)
    print(
        f"| {name} | {len(pool):,} | {missed.max():.1e} | {missed.mean():.1e} | {same} of {len(queries)} |", flush=True
    )


def time_queries(n):
    """Median milliseconds of one query in full and in half precision, in turn."""
    world = World(n, ROUNDS + 1)
    selectors = [
        DistillationSelector.from_examples(world.pool, world.embedder, settings=settings, vectors=world.x)
        for settings in (Settings(), HALF)
    ]
    seconds = [[], []]
    for query in world.queries:
        for selector, taken in zip(selectors, seconds, strict=True):
            begun = time.process_time()
            selector.select(query)
            taken.append(time.process_time() - begun)
    full, half = (1000 * statistics.median(taken[1:]) for taken in seconds)
    print(f"\none query of {n:,}: {full:.1f} ms in full precision, {half:.1f} in half")


def main() -> None:
    """The command."""
    folder, *names = sys.argv[1:]
    print("| data | examples | largest error of a cosine | mean error | queries with the same demonstrations |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in names:
        compare(Path(folder), name)
    torch.set_num_threads(1)
    time_queries(100_000)


if __name__ == "__main__":
    main()
