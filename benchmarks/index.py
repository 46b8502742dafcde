"""One query with and without an index of the pool: milliseconds, recall, and how many demonstrations are the same.

    pip install 'kdprompt[faiss]'
    python benchmarks/index.py 100000 1000000

Examples as those of ``benchmarks/speed`` (random unit vectors in 50 clusters, d = 384), one thread, processor time.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "speed"))
from conftest import World


def measure(selector, world):
    """Median milliseconds of a query, and the ids that each of them shows."""
    shown, seconds = [], []
    for query in world.queries:
        begun = time.process_time()
        shown.append(set(selector.select(query).ids))
        seconds.append(time.process_time() - begun)
    return 1000 * statistics.median(seconds), shown


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    print("| examples | every example, ms | build, s | lists | probes | recall of 64 | ms | same demonstrations |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for n in map(int, sys.argv[1:] or ["100000"]):
        world = World(n, 100)
        selector = world.shortlisted(64)
        plain, expected = measure(selector, world)
        for recall in (0.9, 0.99):
            report = selector.build_index(recall=recall)
            fast, found = measure(selector, world)
            same = sum(len(a & b) for a, b in zip(expected, found, strict=True)) / sum(map(len, expected))
            print(
                f"| {n:,} | {plain:.1f} | {report.seconds:.1f} | {report.lists:,} | {report.probes} "
                f"| {report.recall:.3f} | {fast:.1f} | {same:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
