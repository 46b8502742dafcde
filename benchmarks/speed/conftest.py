"""What the rows of ``benchmarks/speed.md`` are measured with: ``pytest benchmarks/speed -s``.

Work and its floor are run in turn (floor, work, floor, work, …) in one process, and a ratio is the median of the ratios
of the rounds. Processor time of one thread, so that a busy machine does not upset it; ``--wall`` takes the clock on the
wall and all threads. ``--benchmark-json=speed.json`` keeps every round with the machine's description.

``--device cuda`` (or ``mps``) keeps the pool, the vectors of the queries and the floor on an accelerator; the clock is
the one on the wall then, and what the device was asked for is waited for. ``benchmarks/accelerator.sh`` is the whole of
it for a machine without a network.

Nothing is embedded: random unit vectors in 50 Gaussian clusters, d = 384, one of 10 labels a cluster, 5 % of them
changed.
"""

import statistics
import time
from collections.abc import Callable
from functools import cache, cached_property, partial

import pytest
import torch
from torch import Tensor

from kdprompt import (
    CallableEmbedder,
    DistillationSelector,
    ObjectiveSettings,
    ObjectiveWeights,
    Pool,
    SearchSettings,
    Settings,
)
from kdprompt.theory.kernels import Gaussian

WIDTH, CLUSTERS, LABELS, NOISE = 384, 50, 10, 0.8
PINNED = ObjectiveSettings(
    kernel=Gaussian(0.1), output_share=0.5, neighbourhood=0.0, weights=ObjectiveWeights(interference=0.25)
)


def pytest_addoption(parser):
    parser.addoption("--wall", action="store_true", help="measure the clock on the wall, with all threads")
    parser.addoption("--device", default="cpu", help="where pool and floor are: cpu, cuda, mps")


@pytest.fixture(scope="session")
def device(request) -> str:
    """Where the pool is searched."""
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def clock(request, device) -> Callable[[], float]:
    """Seconds: of the processor, or on the wall; on an accelerator after all that it was asked for."""
    if device != "cpu":
        return _wait_and_look
    if request.config.getoption("--wall"):
        return time.perf_counter
    torch.set_num_threads(1)
    return time.process_time


def _wait_and_look() -> float:
    torch.accelerator.synchronize()
    return time.perf_counter()


class World:
    """n examples with their vectors, and m queries."""

    def __init__(self, n, m, device="cpu"):
        generator = torch.Generator().manual_seed(0)
        centres = torch.nn.functional.normalize(torch.randn(CLUSTERS, WIDTH, generator=generator), dim=-1)
        which = torch.randint(CLUSTERS, (n + m,), generator=generator)
        x = torch.randn(n + m, WIDTH, generator=generator).mul_(NOISE / WIDTH**0.5)
        for start in range(0, n + m, 65536):
            x[start : start + 65536] += centres[which[start : start + 65536]]
        self.vectors = torch.nn.functional.normalize(x, dim=-1).to(device)
        other = torch.randint(LABELS, (n + m,), generator=generator)
        changed = torch.rand(n + m, generator=generator) < 0.05
        self.labels = torch.where(changed, other, which % LABELS).tolist()
        self.n = n
        self.x, self.q = self.vectors[:n], self.vectors[n:]
        self.queries = [f"query about something {i}" for i in range(n, n + m)]
        self.embedder = CallableEmbedder(self.embed)

    def embed(self, texts) -> Tensor:
        """The vectors of texts, whose last word is their row."""
        return self.vectors[torch.tensor([int(text.rsplit(" ", 1)[1]) for text in texts])]

    @cached_property
    def pool(self) -> Pool:
        """The examples."""
        records = [{"input": f"example of something {i}", "output": f"label {self.labels[i]}"} for i in range(self.n)]
        return Pool.from_records(records)

    @cached_property
    def first(self) -> DistillationSelector:
        """A selector of the pool; its tensors serve the others."""
        settings = Settings(objective=PINNED, calibrate=False)
        return DistillationSelector.from_examples(self.pool, self.embedder, vectors=self.x, settings=settings)

    def selector(self, **changed) -> DistillationSelector:
        """A selector with other settings."""
        settings = Settings(**{"objective": PINNED, "calibrate": False, **changed})
        return DistillationSelector(self.first._pool, settings, None, self.first.calibration)

    def shortlisted(self, size: int, **changed) -> DistillationSelector:
        """A selector that looks at so many candidates a query."""
        return self.selector(search=SearchSettings(shortlist=size), **changed)


@pytest.fixture(scope="session")
def world(device) -> Callable[[int, int], World]:
    """Makes n examples and m queries, once."""
    return cache(partial(World, device=device))


@pytest.fixture(scope="session")
def multiply_and_rank():
    """The floor: the similarity product that any nearest-neighbour search pays, and its largest."""

    def run(q: Tensor, x: Tensor, size: int, tile: int = 128) -> list[Tensor]:
        return [(q[start : start + tile] @ x.T).topk(size, dim=-1).indices for start in range(0, len(q), tile)]

    return run


@pytest.fixture
def compare(benchmark, clock):
    """Measures work beside its floor, and holds the median ratio of their times against a target."""

    def run(work, floor, target, rounds=5, warm=2):
        floors, works = [], []

        def time_floor():
            start = clock()
            floor()
            floors.append(clock() - start)

        def timed():
            start = clock()
            work()
            works.append(clock() - start)

        benchmark.pedantic(timed, setup=time_floor, rounds=rounds, warmup_rounds=warm)
        pairs = list(zip(works, floors, strict=True))[warm:]
        ratio = statistics.median(a / b for a, b in pairs)
        measured = {
            "work_ms": round(1000 * statistics.median(a for a, _ in pairs), 3),
            "floor_ms": round(1000 * statistics.median(b for _, b in pairs), 3),
            "ratio": round(ratio, 3),
            "target": round(target, 3),
        }
        benchmark.extra_info.update(measured)
        print(f"\n{benchmark.name}: {measured}")
        assert ratio <= target, measured

    return run


@pytest.fixture
def take(benchmark, clock):
    """Measures work alone, and holds the median of its times against a target in seconds."""

    def run(work, target, rounds=5):
        works = []

        def timed():
            start = clock()
            work()
            works.append(clock() - start)

        benchmark.pedantic(timed, rounds=rounds, warmup_rounds=2)
        seconds = statistics.median(works[2:])
        measured = {"work_ms": round(1000 * seconds, 3), "target_ms": 1000 * target}
        benchmark.extra_info.update(measured)
        print(f"\n{benchmark.name}: {measured}")
        assert seconds <= target, measured

    return run
