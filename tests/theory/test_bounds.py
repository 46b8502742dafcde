"""R3 to R6: hand-worked three-point cases, monotonicity, coverage where the truth is known."""

import math

import numpy as np
import pytest
import torch

from kdprompt.theory.bounds import complexity, complexity_of_trace, generalisation_gap, interference, query_sample_error


def tensor(values, device, dtype):
    return torch.as_tensor(np.asarray(values), device=device, dtype=dtype)


WEIGHTS = [0.5, 0.25, 0.25]  # Σ w² = 3/8


def test_r3_by_hand(device, dtype):
    # Σ w²κ = 1/4·1 + 1/16·4 + 1/16·4 = 3/4; B √(d·3/4) = 2·√(9/4) = 3
    value = complexity(tensor(WEIGHTS, device, dtype), tensor([1.0, 4.0, 4.0], device, dtype), 2.0, 3)
    assert value.tolist() == pytest.approx(3.0)
    assert complexity_of_trace(tensor(0.75, device, dtype), 2.0, 3).tolist() == pytest.approx(3.0)


def test_r4_by_hand(device, dtype):
    # 2√2·½·3 + 3·2·√(2·(3/8)/2) with log(2/δ) = 2
    value = generalisation_gap(
        3.0, tensor(WEIGHTS, device, dtype), lipschitz=0.5, loss_range=2.0, delta=2 * math.exp(-2)
    )
    assert value.tolist() == pytest.approx(3 * 1.4142135623730951 + 6 * 0.6123724356957945)


def test_r5_by_hand():
    assert query_sample_error(4.0, 16, delta=math.exp(-2)) == pytest.approx(1.5)  # √(4/16)·(1 + √4)


def test_r6_by_hand(device, dtype):
    # w·κ = (½, ½, 0), so a = (½, ½, 0); the third demonstration does not attend to q, whatever its conflict
    attention, conflict = tensor([[1.0], [2.0], [0.0]], device, dtype), tensor([[2.0], [4.0], [100.0]], device, dtype)
    split = interference(tensor(WEIGHTS, device, dtype), attention, conflict)
    np.testing.assert_allclose(split.cpu(), [[1.0], [2.0], [0.0]], rtol=1e-6)


def test_r6_is_zero_where_tasks_do_not_interact_or_nothing_attends(device, dtype):
    w = tensor(WEIGHTS, device, dtype)
    attention = tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]], device, dtype)
    conflict = tensor([[0.0, 1.0], [0.0, 1.0], [7.0, 1.0]], device, dtype)  # the other task is the third one
    assert interference(w, attention, conflict).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("seed", range(5))
def test_r3_is_above_the_rademacher_average_and_within_root_two_of_it(seed, device, dtype):
    """sup over ‖W‖ ≤ B of Σ w_i⟨ε_i, Wφ_i⟩ is B‖Σ w_i ε_i φ_iᵀ‖_F; Kahane: E‖·‖ ≥ (E‖·‖²)^½/√2."""
    rng = np.random.default_rng(seed)
    n, width, radius, draws = int(rng.integers(1, 12)), int(rng.integers(1, 5)), 1.7, 4000
    phi, w = rng.normal(size=(n, 6)), rng.dirichlet(np.ones(n))
    signs = rng.choice([-1.0, 1.0], size=(draws, n, width))
    sums = np.zeros((draws, width, 6))
    for i in range(n):
        sums += w[i] * signs[:, i, :, None] * phi[i]
    sup = radius * np.sqrt((sums**2).sum((1, 2)))
    error = 4 * sup.std() / math.sqrt(draws)
    diagonal = [float(row @ row) for row in phi]
    bound = float(complexity(tensor(w, device, dtype), tensor(diagonal, device, dtype), radius, width))
    assert sup.mean() - error <= bound * (1 + 1e-5)
    assert bound <= math.sqrt(2) * (sup.mean() + error)


def test_r3_is_attained_by_one_demonstration(device, dtype):
    phi, width, radius = np.array([0.6, -1.1, 0.4]), 3, 1.3
    sup = radius * np.linalg.norm(np.outer([1.0, -1.0, 1.0], phi))  # the same for all signs
    bound = complexity(tensor([1.0], device, dtype), tensor([phi @ phi], device, dtype), radius, width)
    assert float(bound) == pytest.approx(sup, rel=1e-6)


def test_r3_grows_with_radius_width_and_diagonal_and_falls_as_one_over_root_n(device, dtype):
    def bound(k=4, radius=1.0, width=2, kappa=1.0):
        return float(
            complexity(
                torch.full((k,), 1 / k, device=device, dtype=dtype), tensor([kappa] * k, device, dtype), radius, width
            )
        )

    assert bound(radius=2) > bound()
    assert bound(width=3) > bound()
    assert bound(kappa=2) > bound()
    assert bound(k=16) == pytest.approx(bound(k=4) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_uniform_weights_have_the_smallest_complexity_and_gap(seed, device, dtype):
    w = tensor(np.random.default_rng(seed).dirichlet(np.ones(6)), device, dtype)
    uniform, ones = torch.full_like(w, 1 / 6), torch.ones_like(w)
    assert complexity(uniform, ones, 1.0, 1) < complexity(w, ones, 1.0, 1)
    assert generalisation_gap(0.0, uniform) < generalisation_gap(0.0, w)


def test_r4_grows_with_confidence_loss_and_complexity_and_falls_with_n(device, dtype):
    def gap(k=4, rademacher=0.5, **settings):
        return float(generalisation_gap(rademacher, torch.full((k,), 1 / k, device=device, dtype=dtype), **settings))

    assert gap(delta=0.01) > gap(delta=0.1)
    assert gap(lipschitz=2.0) > gap()
    assert gap(loss_range=2.0) > gap()
    assert gap(rademacher=1.0) > gap()
    assert gap(k=8) < gap()


def test_r5_grows_with_confidence_and_kernel_and_falls_as_one_over_root_m():
    assert query_sample_error(1.0, 50, delta=0.01) > query_sample_error(1.0, 50, delta=0.1)
    assert query_sample_error(2.0, 50) > query_sample_error(1.0, 50)
    assert query_sample_error(1.0, 200) == pytest.approx(query_sample_error(1.0, 50) / 2)


@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_r4_covers_the_worst_predictor_of_the_class(delta, device, dtype):
    """Loss (1 − y⟨w, φ⟩)/2 over ‖w‖ ≤ 1: the largest risk − empirical risk is ‖E yφ − Σ w_i y_i φ_i‖/2, known."""
    rng = np.random.default_rng(0)
    draws, n, size, d = 2000, 8, 40, 5
    phi = rng.normal(size=(size, d))
    signed = phi / np.linalg.norm(phi, axis=1, keepdims=True) * rng.choice([-1, 1], size=(size, 1))
    w = rng.dirichlet(np.full(n, 3.0))
    sample = signed[rng.integers(size, size=(draws, n))]
    excess = np.linalg.norm(signed.mean(0) - (sample * w[:, None]).sum(1), axis=1) / 2
    weights = tensor(w, device, dtype)
    rademacher = complexity(weights, torch.ones_like(weights), 1.0, 1)
    gap = float(generalisation_gap(rademacher, weights, lipschitz=0.5, loss_range=1.0, delta=delta))
    assert (excess > gap).mean() <= delta
    assert np.quantile(excess, 1 - delta) > gap / 15  # the problem is not so easy that any bound would do


@pytest.mark.parametrize("delta", [0.05, 0.3])
@pytest.mark.parametrize("m", [5, 40])
def test_r5_covers_the_error_of_a_finite_query_sample(delta, m):
    """Q is uniform on 30 known points, so MMD(D, Q) and MMD(D, Q̂) are exact quadratic forms of a Gram matrix."""
    rng = np.random.default_rng(1)
    draws, size = 2000, 30
    points = rng.normal(size=(size, 4))
    gram = np.array([[math.exp(-float((a - b) @ (a - b)) / 2) for b in points] for a in points])
    q = np.full(size, 1 / size)

    def distance(p, r):
        return np.sqrt(np.einsum("...i,ij,...j->...", p - r, gram, p - r).clip(0))

    sampled = rng.multinomial(m, q, size=draws) / m
    bound = query_sample_error(1.0, m, delta=delta)
    for d in (q, rng.dirichlet(np.full(size, 0.1))):
        error = np.abs(distance(d, q) - distance(d, sampled))
        assert (error > bound).mean() <= delta
    assert (np.abs(distance(q, sampled)) > bound / 4).mean() > delta  # a quarter of the bound would not cover


def test_r6_bounds_the_read_out_on_random_inputs(device, dtype):
    rng = np.random.default_rng(2)
    for _ in range(1000):
        k, m, c = int(rng.integers(1, 7)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
        w, kappa = rng.dirichlet(np.ones(k)), rng.exponential(size=(k, m)) * (rng.random((k, m)) < 0.8)
        v, truth = rng.normal(size=(k, c)), rng.normal(size=(m, c))
        conflict = [[math.dist(v[i], truth[q]) for q in range(m)] for i in range(k)]
        split = interference(tensor(w, device, dtype), tensor(kappa, device, dtype), tensor(conflict, device, dtype))
        for q in range(m):
            mass = sum(w[i] * kappa[i, q] for i in range(k))
            attention = [w[i] * kappa[i, q] / mass if mass > 0 else 0.0 for i in range(k)]
            naive = sum(attention[i] * conflict[i][q] for i in range(k))
            total = float(split[:, q].sum())
            assert total == pytest.approx(naive, rel=1e-4 if dtype is torch.float32 else 1e-12)
            if mass > 0:
                read_out = sum(attention[i] * v[i] for i in range(k))
                assert math.dist(read_out, truth[q]) <= total * (1 + 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_delta_out_of_range_raises_with_the_value(delta):
    with pytest.raises(ValueError, match=f"delta must be in .0, 1., got {delta}"):
        generalisation_gap(1.0, torch.ones(1), delta=delta)
    with pytest.raises(ValueError, match=f"delta must be in .0, 1., got {delta}"):
        query_sample_error(1.0, 10, delta=delta)


def test_no_queries_raise_with_the_value():
    with pytest.raises(ValueError, match="m must be at least 1, got 0"):
        query_sample_error(1.0, 0)


def test_r5_of_one_query_is_its_formula():
    assert query_sample_error(3.0, 1, delta=0.2) == pytest.approx(math.sqrt(3) * (1 + math.sqrt(2 * math.log(5))))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (4, 1, 4)])
def test_every_bound_of_a_batch_is_that_of_each_alone(batch, device, dtype):
    rng, k, m = np.random.default_rng(7), 4, 3
    w, diagonal, radius = rng.dirichlet(np.ones(k), size=batch), rng.exponential(size=(*batch, k)), rng.random(batch)
    kappa, conflict = rng.exponential(size=(*batch, k, m)), rng.exponential(size=(*batch, k, m))
    given = [tensor(values, device, dtype) for values in (w, diagonal, radius, kappa, conflict)]
    r3 = complexity(given[0], given[1], given[2], 5)
    r4 = generalisation_gap(r3, given[0], lipschitz=0.7, loss_range=1.5, delta=0.1)
    r6 = interference(given[0], given[3], given[4])
    assert (r3.shape, r4.shape, r6.shape) == (batch, batch, (*batch, k, m))
    for at in np.ndindex(batch):
        squares = sum(w[at][i] ** 2 * diagonal[at][i] for i in range(k))
        alone = radius[at] * math.sqrt(5 * squares)
        deviation = 3 * 1.5 * math.sqrt(math.log(2 / 0.1) * sum(weight**2 for weight in w[at]) / 2)
        mass = [sum(w[at][i] * kappa[at][i, q] for i in range(k)) for q in range(m)]
        split = [[w[at][i] * kappa[at][i, q] / mass[q] * conflict[at][i, q] for q in range(m)] for i in range(k)]
        assert float(r3[at]) == pytest.approx(alone, rel=1e-5)
        assert float(r4[at]) == pytest.approx(2 * math.sqrt(2) * 0.7 * alone + deviation, rel=1e-5)
        np.testing.assert_allclose(r6[at].cpu(), split, rtol=1e-5)
