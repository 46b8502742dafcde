"""CPU seconds of doctor's checks as the pool grows, without embedding: ``python benchmarks/doctor_speed.py``.

The pool is made: 77 outputs, four clusters each, a tenth of the outputs flipped, a hundredth of the inputs repeated
nearly word by word. Vectors have 384 numbers. Time that grows faster than the pool would show in the last column.
"""

import time
from typing import Annotated

import torch
import typer
from rich.console import Console

from kdprompt import Pool
from kdprompt.diagnose import diagnose_pool, find_wrong_outputs
from kdprompt.diagnose.nearest_inputs import find_nearest_inputs

OUTPUTS, CLUSTERS, WIDTH = 77, 308, 384


def make_pool(n, seed=0):
    """A pool with embeddings of its inputs."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(CLUSTERS, WIDTH, generator=generator), dim=-1)
    cluster = torch.randint(CLUSTERS, (n,), generator=generator)
    x = centres[cluster] + 0.05 * torch.randn(n, WIDTH, generator=generator)
    x[-n // 100 :] = x[: n // 100 + 1][: len(x[-n // 100 :])] + 0.002 * torch.randn(1, WIDTH, generator=generator)
    label = cluster % OUTPUTS
    flipped = torch.rand(n, generator=generator) < 0.1
    label = torch.where(flipped, torch.randint(OUTPUTS, (n,), generator=generator), label)
    records = ({"input": f"text {i}", "output": f"label {label[i]}", "id": str(i)} for i in range(n))
    return Pool.from_records(records), torch.nn.functional.normalize(x, dim=-1)


def seconds(function):
    """CPU seconds of a call, and what it gave."""
    start = time.process_time()
    value = function()
    return time.process_time() - start, value


def main(examples: Annotated[list[int] | None, typer.Option(help="Sizes of the pool.")] = None):
    """Times the whole diagnosis and its two largest parts."""
    console = Console(highlight=False)
    console.print("examples    all  neighbours (recall)  wrong outputs  all, µs an example", markup=False)
    diagnose_pool(*make_pool(500))
    for n in examples or (5_000, 10_000, 20_000, 40_000):
        pool, x = make_pool(n)
        whole, _ = seconds(lambda pool=pool, x=x: diagnose_pool(pool, x))
        search, nearest = seconds(lambda x=x: find_nearest_inputs(x, 32))
        wrong, _ = seconds(lambda pool=pool, x=x, nearest=nearest: find_wrong_outputs(pool, x, nearest=nearest))
        console.print(
            f"{n:8,} {whole:6.2f} {search:11.2f} ({nearest.recall:.2f}) {wrong:13.2f} {1e6 * whole / n:19.0f}"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)
