"""One prompt for many queries, against the evaluation of their mean embedding at every row."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdprompt import ObjectiveWeights, StaticSettings
from kdprompt.evaluate.benchmark_pool import BenchmarkPool
from kdprompt.evaluate.static_baselines import facility_location
from kdprompt.search.mean_search import MeanProblem
from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.mmd import mmd


def evaluate_mean(w):
    """The floor: μ_Q at every row, of the queries as they are."""
    pool = w.first._pool.tensors
    everywhere = torch.ones(len(pool), dtype=torch.bool, device=pool.x.device)
    place = torch.arange(len(pool), device=pool.x.device)
    problem = MeanProblem(pool.x, pool.v, Gaussian(0.1), 0.0, pool.text, 2.0, everywhere, place)
    weights = torch.full((len(w.q),), 1 / len(w.q), device=pool.x.device)
    return problem.evaluate_mean(w.q, pool.v[: len(w.q)], weights)


def test_static_16_of_20000_for_1000_queries(world, compare):
    w = world(20_000, 1_000)
    selector = w.selector(k=16, static=StaticSettings(queries=1_000))
    former = selector.calibration
    alone = former.static_parameters.model_copy(update={"weights": ObjectiveWeights(), "output_share": 0.0})
    selector.calibration = replace(former, static_parameters=alone)
    compare(lambda: selector.select_static(w.queries), lambda: evaluate_mean(w), target=2.0, rounds=3)


def test_128_of_16384_for_themselves_against_compresspp(world, compare):
    """A coreset of the pool: nine times as fast as kernel thinning by goodpoints (arXiv 2111.07941), at a lower MMD."""
    compress = pytest.importorskip("goodpoints.compress", reason="pip install 'kdprompt[bench]'")
    n, k, kernel, chosen = 16_384, 128, Gaussian(0.5), {}
    w = world(n, 0)
    selector = w.selector(k=k, static=StaticSettings(queries=n))
    former = selector.calibration
    changed = {"weights": ObjectiveWeights(), "output_share": 0.0, "kernel": kernel}
    selector.calibration = replace(former, static_parameters=former.static_parameters.model_copy(update=changed))
    points = np.ascontiguousarray(w.x.cpu().numpy().astype("float64"))
    rows = {example.id: row for row, example in enumerate(w.pool)}

    def thin():
        chosen["theirs"] = compress.compresspp_kt(
            points, kernel_type=b"gaussian", k_params=np.array([2 * kernel.temperature]), g=4, seed=0
        )

    def select():
        chosen["ours"] = [rows[name] for name in selector.select_static().ids]

    select()
    thin()
    double = w.x.cpu().double()  # mps has no float64
    ours, theirs = (
        float(mmd(kernel, double[torch.as_tensor(np.asarray(part).astype("int64"))], double))
        for part in (chosen["ours"], chosen["theirs"])
    )
    print(f"\nMMD {ours:.5f}, goodpoints {theirs:.5f}")
    assert len(chosen["ours"]) == k and ours < theirs
    compare(select, thin, target=1 / 9, rounds=1, warm=0)


def test_facility_location_32_of_10000(world, take):
    w = world(10_000, 2)
    benchmark = BenchmarkPool(w.pool, w.x, (), w.x, w.embed)
    take(lambda: facility_location(benchmark, 32), target=1.0, rounds=3)
