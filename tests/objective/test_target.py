"""The query distribution against a naive kernel regression with shrinkage, in float64 Python loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdprompt.objective.regression import KernelRegression
from kdprompt.objective.ridge_estimate import predict_by_ridge
from kdprompt.objective.target import (
    assume_sample_target,
    estimate_neighbourhood_target,
    estimate_query_target,
    estimate_sample_target,
    estimate_target,
)
from kdprompt.pool.distinct_rows import DistinctRows
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.pool.neighbours import Neighbours, find_nearest
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.theory.kernels import Gaussian, Linear
from support import kappa

TEMPERATURE, SHRINKAGE = 0.3, 0.4
REGRESSION = KernelRegression(Gaussian(TEMPERATURE), SHRINKAGE)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def naive(at, x, v, prior, allowed):
    """v̂(at) = (Σ κ v + λ v̄)/(Σ κ + λ) over the allowed neighbours, and Σκ/(Σκ + λ)."""
    mass, total = 0.0, SHRINKAGE * prior
    for point, value, ok in zip(x, v, allowed, strict=True):
        if ok:
            mass += kappa(at, point, TEMPERATURE)
            total = total + kappa(at, point, TEMPERATURE) * value
    return total / (mass + SHRINKAGE), mass / (mass + SHRINKAGE)


class World:
    """A pool of 12 rows with two tasks, and 4 queries with 6 neighbours each, some of them not allowed."""

    def __init__(self, seed, device, dtype, *, tagged=True):
        rng = np.random.default_rng(seed)
        self.x, self.v = unit(rng.normal(size=(12, 5))), np.eye(3)[rng.integers(3, size=12)]
        self.q, self.task = unit(rng.normal(size=(4, 5))), rng.integers(2, size=12) if tagged else np.full(12, -1)
        self.index = np.sort(np.array([rng.permutation(12)[:6] for _ in range(4)]), axis=1)
        self.valid = rng.random((4, 6)) < 0.7
        self.wanted = np.array([-1, 0, 1, -1]) if tagged else np.full(4, -1)
        self.device, self.dtype = device, dtype

    @property
    def priors(self):
        tasks = [self.v[self.task == code].mean(0) for code in (0, 1)] if self.task[0] >= 0 else []
        return np.array([*tasks, self.v.mean(0)])

    @property
    def tensors(self):
        codes = torch.zeros(12, dtype=torch.long, device=self.device)
        return PoolTensors(
            x=self.tensor(self.x),
            v=self.tensor(self.v),
            label=codes,
            task=torch.as_tensor(self.task, device=self.device),
            text=torch.arange(12, device=self.device),
            rows=DistinctRows([str(row) for row in range(12)], {}, {}, [str(row) for row in range(12)]),
            tasks=("a", "b") if self.task[0] >= 0 else (),
            labels=((None, "yes"),),
            text_codes={},
            output_mode="labels",
            value_radius=1.0,
            priors=torch.as_tensor(self.priors),
        )

    @property
    def near(self):
        index, valid, task = (torch.as_tensor(a, device=self.device) for a in (self.index, self.valid, self.wanted))
        return Neighbours(index, valid, QueryTensors(self.tensor(self.q), task, torch.full_like(task, -1)))

    def tensor(self, array):
        return torch.as_tensor(array, device=self.device, dtype=self.dtype)

    def around(self, b):
        """Inputs and values of the neighbours of query b, whether they are allowed, and the prior of its task."""
        rows = self.index[b]
        return self.x[rows], self.v[rows], self.valid[b], self.priors[self.wanted[b]]


every_seed = pytest.mark.parametrize("seed", range(4))


def assert_close(actual, expected, dtype):
    np.testing.assert_allclose(actual.cpu().double().numpy(), expected, atol=1e-5 if dtype is torch.float32 else 1e-12)


@every_seed
def test_neighbourhood_estimates_the_query_by_naive_kernel_regression(seed, device, dtype):
    world = World(seed, device, dtype)
    target = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION)
    assert target.queries == 1
    for b in range(4):
        x, v, allowed, prior = world.around(b)
        estimate, support = naive(world.q[b], x, v, prior, allowed)
        assert_close(target.x[b], [world.q[b], *x], dtype)
        assert_close(target.v[b, 0], estimate, dtype)
        assert_close(target.support[b], [support], dtype)


@every_seed
def test_query_target_is_the_query_of_the_neighbourhood_alone(seed, device, dtype):
    world = World(seed, device, dtype)
    alone = estimate_query_target(world.tensors, world.near, REGRESSION)
    whole = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION)
    assert alone.x.shape[1] == alone.queries == 1
    for b in range(4):
        x, v, allowed, prior = world.around(b)
        assert_close(alone.v[b, 0], naive(world.q[b], x, v, prior, allowed)[0], dtype)
    assert alone.weights.tolist() == [[1.0]] * 4
    assert (alone.task == whole.task).all()
    assert_close(alone.support, whole.support.cpu(), dtype)


@every_seed
def test_neighbourhood_estimates_each_neighbour_from_the_others(seed, device, dtype):
    world = World(seed, device, dtype)
    target = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION)
    for b in range(4):
        x, v, allowed, prior = world.around(b)
        for j in range(6):
            others = [ok and i != j for i, ok in enumerate(allowed)]
            assert_close(target.v[b, 1 + j], naive(x[j], x, v, prior, others)[0], dtype)


@every_seed
def test_a_neighbours_own_value_does_not_enter_its_own_estimate(seed, device, dtype):
    world = World(seed, device, dtype)
    world.index, world.valid = np.tile(np.arange(6), (4, 1)), np.ones((4, 6), dtype=bool)
    near, pool = world.near, world.tensors
    before = estimate_neighbourhood_target(pool, near, REGRESSION).v
    pool.v[2] = torch.tensor([5.0, -3.0, 9.0])  # of row 2 alone; the prior stays
    after = estimate_neighbourhood_target(pool, near, REGRESSION).v
    assert (after[:, 3] == before[:, 3]).all()
    assert ((after - before).abs().amax(-1)[:, [1, 2, 4, 5, 6]] > 1e-4).all()


@every_seed
def test_neighbourhood_mass_follows_the_kernel_over_allowed_neighbours(seed, device, dtype):
    world = World(seed, device, dtype)
    target = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION)
    for b in range(4):
        x, _, allowed, _ = world.around(b)
        pulls = [kappa(world.q[b], a, TEMPERATURE) if ok else 0.0 for a, ok in zip(x, allowed, strict=True)]
        assert_close(target.nearby_mass[b], [0.0, *(pull / sum(pulls) for pull in pulls)], dtype)
        assert target.query_mass[b].tolist() == [1.0] + [0.0] * 6


@every_seed
def test_sample_estimates_every_query_by_naive_kernel_regression(seed, device, dtype):
    world = World(seed, device, dtype)
    target = estimate_sample_target(world.tensors, world.near, REGRESSION)
    assert (target.queries, target.x.shape[0]) == (4, 1)
    assert_close(target.x[0], world.q, dtype)
    for b in range(4):
        x, v, allowed, prior = world.around(b)
        estimate, support = naive(world.q[b], x, v, prior, allowed)
        assert_close(target.v[0, b], estimate, dtype)
        assert_close(target.support[0, b], support, dtype)
    assert_close(target.weights[0], [0.25] * 4, dtype)


@every_seed
def test_a_sample_that_only_its_inputs_stand_for_weighs_all_alike_and_knows_nothing(seed, device, dtype):
    world = World(seed, device, dtype)
    target = assume_sample_target(world.tensors, world.near.queries)
    assert (target.queries, target.task.tolist()) == (4, [[-1] * 4])
    assert_close(target.x[0], world.q, dtype)
    assert_close(target.v[0], world.priors[world.wanted], dtype)
    assert_close(target.weights[0], [0.25] * 4, dtype)
    assert_close(target.support[0], [0.0] * 4, dtype)


@every_seed
def test_rows_at_hand_serve_the_neighbours_that_they_are_alone(seed, device, dtype):
    """Those of other neighbours are not taken for them."""
    world = World(seed, device, dtype)
    similarity = world.tensor(np.einsum("bd,bld->bl", world.q, world.x[world.index]))
    near = replace(world.near, similarity=similarity)
    other = replace(near, index=near.index.flip(0), similarity=similarity.flip(0))
    plain = estimate_query_target(world.tensors, near, REGRESSION)
    for neighbours in (near, other):
        rows = GatheredRows.take(world.tensors, neighbours.index, neighbours)
        found = estimate_query_target(world.tensors, near, REGRESSION, rows)
        assert_close(found.v, plain.v.cpu().double().numpy(), dtype)
        assert_close(found.support, plain.support.cpu().double().numpy(), dtype)


def test_sample_of_more_queries_than_a_chunk_equals_the_neighbourhoods_one_by_one(device, dtype):
    world = World(0, device, dtype)
    rng = np.random.default_rng(0)
    world.q, world.index = unit(rng.normal(size=(300, 5))), np.tile(np.arange(6), (300, 1))
    world.valid, world.wanted = rng.random((300, 6)) < 0.7, rng.integers(-1, 2, size=300)
    sample = estimate_sample_target(world.tensors, world.near, REGRESSION)
    single = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION)
    assert_close(sample.v[0], single.v[:, 0].cpu(), dtype)
    assert_close(sample.support[0], single.support[:, 0].cpu(), dtype)
    assert sample.task[0].tolist() == single.task[:, 0].tolist()


@every_seed
def test_support_lies_in_zero_to_one_and_grows_with_nearness(seed, device, dtype):
    world = World(seed, device, dtype)
    support = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION).support
    assert ((support >= 0) & (support < 1)).all()
    world.q = world.x[world.index[:, 0]]  # now each query stands on a neighbour
    world.valid[:, 0] = True
    on_top = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION).support
    assert (on_top >= 1 / (1 + SHRINKAGE) - 1e-6).all()
    assert (on_top < 1).all()


def test_without_allowed_neighbours_the_prior_is_the_estimate_and_the_query_the_target(device, dtype):
    world = World(0, device, dtype)
    world.valid = np.zeros((4, 6), dtype=bool)
    target = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION)
    assert target.support.tolist() == [[0.0]] * 4
    assert_close(target.v[:, 0], [world.priors[task] for task in world.wanted], dtype)
    assert (target.nearby_mass == target.query_mass).all()
    assert target.task.tolist() == [[-1]] * 4


@every_seed
def test_neighbours_that_are_not_allowed_have_no_influence(seed, device, dtype):
    world = World(seed, device, dtype)
    world.index, world.valid = np.tile(np.arange(6), (4, 1)), np.tile([True, False, True, True, False, True], (4, 1))
    pool, near = world.tensors, world.near
    before = (
        estimate_neighbourhood_target(pool, near, REGRESSION),
        estimate_sample_target(pool, near, REGRESSION),
    )
    pool.x[[1, 4]] = pool.x[[4, 1]] * -1
    pool.v[[1, 4]] = 7.0
    pool.task[[1, 4]] = 1 - pool.task[[1, 4]]
    after = (
        estimate_neighbourhood_target(pool, near, REGRESSION),
        estimate_sample_target(pool, near, REGRESSION),
    )
    seen = [0, 1, 3, 4, 6]  # the query, then the allowed neighbours
    assert (after[0].v[:, seen] == before[0].v[:, seen]).all()
    assert (after[0].nearby_mass == before[0].nearby_mass).all()
    assert (after[0].nearby_mass[:, [2, 5]] == 0).all()
    for old, new in zip(before, after, strict=True):
        assert (new.support == old.support).all()
        assert (new.task == old.task).all()
    assert (after[1].v == before[1].v).all()


@every_seed
def test_negative_kernel_values_count_as_none(seed, device, dtype):
    world, regression = World(seed, device, dtype), KernelRegression(Linear(), SHRINKAGE)
    single = estimate_neighbourhood_target(world.tensors, world.near, regression)
    sample = estimate_sample_target(world.tensors, world.near, regression)
    for b in range(4):
        x, v, allowed, prior = world.around(b)
        pulls = [max(float(world.q[b] @ a), 0) * ok for a, ok in zip(x, allowed, strict=True)]
        estimate = sum(pull * value for pull, value in zip(pulls, v, strict=True)) + SHRINKAGE * prior
        assert_close(single.v[b, 0], estimate / (sum(pulls) + SHRINKAGE), dtype)
        assert_close(sample.v[0, b], estimate / (sum(pulls) + SHRINKAGE), dtype)
        for j in range(6):
            others = [
                max(float(x[j] @ a), 0) * (ok and i != j) for i, (a, ok) in enumerate(zip(x, allowed, strict=True))
            ]
            estimate = sum(pull * value for pull, value in zip(others, v, strict=True)) + SHRINKAGE * prior
            assert_close(single.v[b, 1 + j], estimate / (sum(others) + SHRINKAGE), dtype)
        near = [pull / sum(pulls) for pull in pulls] if any(pulls) else [0.0] * 6  # then the query itself is Q
        assert_close(single.nearby_mass[b], [1 - sum(near), *near], dtype)


@every_seed
def test_negative_kernel_values_count_for_no_task(seed, device, dtype):
    world, regression = World(seed, device, dtype), KernelRegression(Linear(), SHRINKAGE)
    single = estimate_neighbourhood_target(world.tensors, world.near, regression)
    sample = estimate_sample_target(world.tensors, world.near, regression)
    for b in range(4):
        mass = [0.0, 0.0]
        for row, ok in zip(world.index[b], world.valid[b], strict=True):
            mass[world.task[row]] += max(float(world.q[b] @ world.x[row]), 0) * ok
        expected = int(mass[1] > mass[0]) if any(mass) else -1
        assert single.task[b].tolist() == [sample.task[0, b].item()] == [expected]


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@every_seed
def test_weights_mix_query_and_neighbourhood_and_sum_to_one(seed, eta, device, dtype):
    world = World(seed, device, dtype)
    world.valid[0] = False  # a query without a neighbourhood keeps its whole mass
    for make in (estimate_neighbourhood_target, estimate_query_target, estimate_sample_target):
        weights = make(world.tensors, world.near, REGRESSION).with_neighbourhood(eta).weights
        assert (weights >= 0).all()
        assert_close(weights.sum(-1), np.ones(weights.shape[0]), dtype)
    single = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION, eta)
    assert_close(single.weights[1:, 0], [1 - eta] * 3, dtype)
    assert_close(single.weights[0, :1], [1.0], dtype)


@every_seed
def test_task_is_that_of_the_larger_kernel_mass(seed, device, dtype):
    world = World(seed, device, dtype)
    world.valid[:, 0] = True
    found = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION).task
    for b in range(4):
        x, _, allowed, _ = world.around(b)
        mass = [0.0, 0.0]
        for row, a, ok in zip(world.index[b], x, allowed, strict=True):
            mass[world.task[row]] += kappa(world.q[b], a, TEMPERATURE) * ok
        assert found[b].tolist() == [int(mass[1] > mass[0]) if sum(mass) else -1]
    untagged = World(seed, device, dtype, tagged=False)
    assert estimate_neighbourhood_target(untagged.tensors, untagged.near, REGRESSION).task.tolist() == [[-1]] * 4


@every_seed
@pytest.mark.parametrize("size", [1, 5, 30])
def test_shortlist_is_the_nearest_allowed_rows_in_ascending_order(seed, size, device, dtype):
    rng = np.random.default_rng(seed)
    x, q, allowed = unit(rng.normal(size=(20, 4))), unit(rng.normal(size=(3, 4))), rng.random((3, 20)) < 0.5
    held = (torch.as_tensor(a, device=device, dtype=dtype) for a in (x, q))
    index, valid = find_nearest(*held, torch.as_tensor(allowed, device=device), size)
    assert index.shape == valid.shape == (3, min(size, 20))
    for b in range(3):
        rows = index[b].tolist()
        assert rows == sorted(set(rows))
        best = sorted(np.flatnonzero(allowed[b]), key=lambda i: -float(x[i] @ q[b]))[:size]
        assert [row for row, ok in zip(rows, valid[b].tolist(), strict=True) if ok] == sorted(best)


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_shortlist_gives_ties_to_the_lowest_row(n, device, dtype):
    x = torch.tensor([[0.6, 0.8]], device=device, dtype=dtype).repeat(n, 1)
    index, _ = find_nearest(x, x[:1], torch.ones(1, n, dtype=torch.bool, device=device), 8)
    assert index.tolist() == [list(range(8))]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_neighbourhood_is_what_the_target_weighs(share, device, dtype):
    world = World(1, device, dtype)
    target = estimate_target(world.tensors, world.near, REGRESSION, share)
    whole = estimate_neighbourhood_target(world.tensors, world.near, REGRESSION).with_neighbourhood(share)
    if share == 0:  # the query alone, and no point that weighs nothing
        assert target.x.shape[1] == 1
    assert_close(target.weights, whole.weights[:, : target.x.shape[1]].cpu(), dtype)
    assert_close(target.v, whole.v[:, : target.x.shape[1]].cpu(), dtype)


def test_a_pool_without_tags_has_no_task_for_any_query(device, dtype):
    world = World(0, device, dtype, tagged=False)
    assert estimate_query_target(world.tensors, world.near, REGRESSION).task.tolist() == [[-1]] * 4


@pytest.mark.parametrize("own", [0, 7])
def test_the_ridge_regression_is_without_the_rows_that_have_the_querys_own_text(own, device):
    """A ridge regression solved anew without that row, in NumPy."""
    world = World(2, device, torch.float64 if device.type != "mps" else torch.float32)
    tensors, penalty = world.tensors, 0.7
    queries = QueryTensors(
        world.tensor(world.x[[own, 3]]),
        torch.full((2,), -1, device=device),
        torch.tensor([own, -1], device=device),
    )
    found = predict_by_ridge(tensors, queries, penalty).cpu().double().numpy()
    for b, left_out in enumerate((own, None)):
        kept = [row for row in range(12) if row != left_out]
        x = np.concatenate([world.x[kept], np.ones((len(kept), 1))], 1)
        gram = x.T @ x + penalty * np.diag([1.0] * 5 + [0.0])
        at = np.append(world.x[[own, 3][b]], 1.0)
        np.testing.assert_allclose(found[b], at @ np.linalg.solve(gram, x.T @ world.v[kept]), atol=1e-4)
