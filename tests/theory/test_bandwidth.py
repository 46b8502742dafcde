"""Temperatures: the median heuristic against NumPy, leave-one-out against a naive loop and known truths."""

import math
import statistics

import numpy as np
import pytest
import torch

from kdprompt.theory.bandwidth import SHRINKAGES, TEMPERATURES, fit_by_leave_one_out, median_heuristic


def tensor(values, device, dtype):
    return torch.as_tensor(np.asarray(values), device=device, dtype=dtype)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def numpy_median(points):
    """The median squared distance of distinct points; of two middle ones the lower."""
    n = len(points)
    squared = [float(((points[i] - points[j]) ** 2).sum()) for i in range(n) for j in range(i)]
    return np.percentile([s for s in squared if s > 0], 50, method="lower")


@pytest.mark.parametrize("n", [2, 3, 6, 9, 40])
def test_median_heuristic_is_the_squared_median_distance(n, device, dtype):
    points = np.random.default_rng(n).normal(size=(n, 4))
    temperature = median_heuristic(tensor(points, device, dtype))
    assert temperature == pytest.approx(numpy_median(points), rel=1e-4)


def test_median_heuristic_does_not_count_coinciding_points(device, dtype):
    points = np.random.default_rng(0).normal(size=(5, 4))
    repeated = np.concatenate([points, np.tile(points[0], (20, 1))])
    assert median_heuristic(tensor(repeated, device, dtype)) == pytest.approx(numpy_median(repeated), rel=1e-4)


@pytest.mark.parametrize("n", [1, 4])
def test_median_heuristic_is_one_where_all_points_coincide(n, device, dtype):
    assert median_heuristic(tensor(np.full((n, 3), 0.3), device, dtype)) == 1.0


def test_median_heuristic_looks_at_evenly_spaced_points(device, dtype):
    points = np.random.default_rng(1).normal(size=(100, 4))
    temperature = median_heuristic(tensor(points, device, dtype), max_points=12)
    assert temperature == pytest.approx(numpy_median(points[::9]), rel=1e-4)


def naive_losses(similarities, values, held_out_values, prior, labels, choice):
    """Loss of each held-out point under v̂ = (Σ κ v + λ v̄)/(Σ κ + λ) for a (temperature, relative λ), and λ."""
    temperature, relative = choice
    kappas = [[math.exp((s - 1) / temperature) for s in row] for row in similarities]
    masses = sorted(sum(row) for row in kappas)
    shrinkage = relative * masses[(len(masses) - 1) // 2]
    losses = []
    for row, neighbours, truth in zip(kappas, values, held_out_values, strict=True):
        total = sum(k * v for k, v in zip(row, neighbours, strict=True)) + shrinkage * prior
        losses.append(one_loss(total / (sum(row) + shrinkage), truth, labels))
    return losses, shrinkage


def naive_choice(data, labels):
    """The largest temperature within one paired standard error of the least mean loss, with its best shrinkage."""
    grid = {(t, relative): naive_losses(*data, labels, (t, relative)) for t in TEMPERATURES for relative in SHRINKAGES}
    mean = {pair: statistics.fmean(losses) for pair, (losses, _) in grid.items()}
    best = min(mean, key=mean.get)
    tied = []
    for pair, (losses, _) in grid.items():
        above = [loss - least for loss, least in zip(losses, grid[best][0], strict=True)]
        if statistics.fmean(above) <= statistics.stdev(above) / math.sqrt(len(above)) + 1e-12:
            tied.append(pair)
    smoothest = max(temperature for temperature, _ in tied)
    chosen = min((pair for pair in grid if pair[0] == smoothest), key=mean.get)
    return smoothest, grid[chosen][1], mean[chosen]


def one_loss(estimate, truth, labels):
    if labels:
        return -math.log(max(sum(p * t for p, t in zip(estimate, truth, strict=True)), 1e-9))
    return sum((p - t) ** 2 for p, t in zip(estimate, truth, strict=True))


def pool(seed, n, *, informative, classes=4, labels=True, d=12, noise=0.25):
    """Similarities, neighbours' values, true values and prior of every point of a clustered pool, each held out."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(classes, size=n)
    x = unit(np.eye(d)[cluster] + noise * rng.normal(size=(n, d)))
    code = cluster if informative else rng.integers(classes, size=n)
    v = np.eye(classes)[code] if labels else unit(np.eye(classes)[code] + 0.2 * rng.normal(size=(n, classes)))
    rest = np.array([[j for j in range(n) if j != i] for i in range(n)])
    return (x @ x.T)[np.arange(n)[:, None], rest], v[rest], v, v.mean(0)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("informative", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_leave_one_out_picks_what_a_naive_loop_picks(labels, informative, seed, device, dtype):
    data = pool(seed, 14, informative=informative, labels=labels)
    temperature, shrinkage, loss = naive_choice(data, labels)
    fit = fit_by_leave_one_out(*(tensor(array, device, dtype) for array in data), labels=labels)
    assert fit.temperature == temperature
    assert fit.shrinkage == pytest.approx(shrinkage, rel=1e-4)
    assert fit.loss == pytest.approx(loss, rel=1e-4)
    assert fit.prior_loss == pytest.approx(np.mean([one_loss(data[3], truth, labels) for truth in data[2]]), rel=1e-4)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out_predicts_a_clustered_pool(labels, seed, device, dtype):
    data = pool(seed, 80, informative=True, labels=labels)
    fit = fit_by_leave_one_out(*(tensor(array, device, dtype) for array in data), labels=labels)
    assert fit.loss < 0.3 * fit.prior_loss


@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out_shrinks_random_labels_to_the_prior(seed, device, dtype):
    data = pool(seed, 200, informative=False)
    similarities, values, _, prior = data
    fit = fit_by_leave_one_out(*(tensor(array, device, dtype) for array in data), labels=True)
    kappa = np.exp((similarities - 1) / fit.temperature)
    total = np.einsum("ij,ijc->ic", kappa, values) + fit.shrinkage * prior
    estimates = total / (kappa.sum(1, keepdims=True) + fit.shrinkage)
    assert np.abs(estimates - prior).mean() < 0.05
    assert fit.loss == pytest.approx(fit.prior_loss, rel=0.03)
