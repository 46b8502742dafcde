"""What a pool costs as it grows to 1,000,000 examples: ``python benchmarks/growth.py growth.svg growth.json``.

Nothing is embedded: the random clusters of ``benchmarks/speed``, d = 384, default settings, processor time of one
thread. For each size: the pool built with vectors at hand, one query and 128 queries (median, after the first), one
prompt for 1,000 queries by the MMD alone, one example added, the pool saved and loaded again, and the most memory that
was taken beside the vectors. The slopes of the logarithms are printed: 1 is linear.
"""

import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent / "speed"))
from conftest import WIDTH, World
from kdprompt import DistillationSelector, ObjectiveSettings, ObjectiveWeights, Settings, StaticSettings
from kdprompt.atomic_write import atomic_write

LABEL_GAP = 1.35  # least ratio of the heights of two names in the picture
NAMES = {
    "build": "from_examples",
    "one": "one query",
    "batch": "128 queries",
    "static": "static prompt, MMD",
    "add": "add one",
    "save": "save",
    "load": "load",
}


def seconds(function):
    """CPU seconds of a call, and what it gave."""
    start = time.process_time()
    value = function()
    return time.process_time() - start, value


def median(function, rounds):
    """The median of the CPU seconds of some calls."""
    return statistics.median(seconds(function)[0] for _ in range(rounds))


def make_records(w, numbers):
    """Examples of these numbers, with the labels of their clusters."""
    return [{"input": f"example of something {i}", "output": f"label {w.labels[i]}"} for i in numbers]


def time_static(w):
    """CPU seconds of one prompt for 1,000 queries."""
    alone = ObjectiveSettings(output_share=0.0, weights=ObjectiveWeights())
    settings = Settings(k=16, objective=alone, static=StaticSettings(queries=1_000), calibrate=False)
    records = make_records(w, range(w.n))
    selector = DistillationSelector.from_examples(records, w.embedder, vectors=w.x, settings=settings)
    return seconds(lambda: selector.select_static(w.queries[:1_000]))[0]


def measure(n):
    """A row: CPU seconds of each operation."""
    w = World(n, 1_200)
    records, fresh, queries = make_records(w, range(n)), iter(make_records(w, range(n, n + 1_200))), iter(w.queries)
    build, selector = seconds(lambda: DistillationSelector.from_examples(records, w.embedder, vectors=w.x))
    selector.select(next(queries))
    batch = w.queries[-128:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.kd"
        return {
            "build": build,
            "one": median(lambda: selector.select(next(queries)), 30),
            "batch": median(lambda: selector.select_batch(batch), 3),
            "static": time_static(w),
            "add": median(lambda: selector.add_example(next(fresh)), 5),
            "save": seconds(lambda: selector.save(path))[0],
            "load": seconds(lambda: DistillationSelector.load(path, w.embedder))[0],
        }


def measure_apart(n):
    """A row, measured in a process of its own, with the most memory that it took beside the vectors."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        row = measure(n)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row["memory"] = peak - 4 * WIDTH * (n + 1_200) / 2**20
        os.write(writing, json.dumps(row).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return json.loads(pipe.read())


def draw(rows, path):
    """Seconds against the size of the pool, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    sizes = [row["examples"] for row in rows]
    height = 0.0
    for name, label in sorted(NAMES.items(), key=lambda item: rows[-1][item[0]]):
        values = [row[name] for row in rows]
        (line,) = axes.loglog(sizes, values, marker="o", markersize=3.5)
        height = max(values[-1], height * LABEL_GAP)  # names do not lie over one another
        style = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": line.get_color()}
        axes.annotate(label, (sizes[-1], height), (8, 0), **style)
    axes.set_xlabel("examples in the pool")
    axes.set_ylabel("seconds of one processor")
    axes.set_xlim(sizes[0] * 0.8, sizes[-1] * 6)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main(
    picture: Path,
    output: Path,
    examples: Annotated[list[int] | None, typer.Option(help="Sizes of the pool.")] = None,
):
    """Measures each size, prints a table in Markdown, and draws it."""
    console = Console(highlight=False, width=200)
    rows = []
    heads = [*NAMES.values(), "memory, MiB"]
    console.print("| examples | " + " | ".join(heads) + " |\n| ---: |" + " ---: |" * len(heads))
    for n in examples or (1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000):
        rows.append({"examples": n, **measure_apart(n)})
        cells = [f"{rows[-1][name]:.3g} s" for name in NAMES] + [f"{rows[-1]['memory']:,.0f}"]
        console.print(f"| {n:,} | " + " | ".join(cells) + " |", soft_wrap=True)
        machine = {"cores": os.cpu_count(), "processor": platform.processor(), "torch": torch.__version__}
        atomic_write(output, json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    large = [row for row in rows if row["examples"] >= 30_000]
    if len(large) > 1:
        logs = np.log([row["examples"] for row in large])
        slopes = {label: np.polyfit(logs, np.log([row[name] for row in large]), 1)[0] for name, label in NAMES.items()}
        said = ", ".join(f"{label} {slope:.2f}" for label, slope in slopes.items())
        console.print(f"slopes from 30,000 examples on: {said}", soft_wrap=True)
    draw(rows, picture)


if __name__ == "__main__":
    typer.run(main)
