"""Laws of the MMD against naive double sums, closed forms and explicit feature matrices (R2)."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdprompt.theory.kernels import Gaussian, JointKernel, Laplace, Linear, Polynomial, RationalQuadratic
from kdprompt.theory.mmd import mean_embedding, mmd, mmd_squared, mmd_squared_unbiased, witness
from kdprompt.theory.samples import JointSample, WeightedSample


def squared(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


KERNELS = {
    "gaussian": (Gaussian(0.8), lambda a, b: math.exp(-squared(a, b) / 1.6)),
    "laplace": (Laplace(1.2), lambda a, b: math.exp(-math.sqrt(squared(a, b)) / 1.2)),
    "rational_quadratic": (RationalQuadratic(0.8, 1.0), lambda a, b: 1 / (1 + squared(a, b) / 1.6)),
    "linear": (Linear(), dot),
    "polynomial": (Polynomial(2, 1.0), lambda a, b: (dot(a, b) + 1) ** 2),
}
every_kernel = pytest.mark.parametrize(("kernel", "textbook"), KERNELS.values(), ids=KERNELS)
stationary = pytest.mark.parametrize("kernel", [k for k, _ in list(KERNELS.values())[:3]], ids=list(KERNELS)[:3])


def naive_inner(textbook, x, wx, y, wy):
    return sum(wx[i] * wy[j] * textbook(x[i], y[j]) for i in range(len(x)) for j in range(len(y)))


def naive_squared(textbook, x, wx, y, wy):
    within = naive_inner(textbook, x, wx, x, wx) + naive_inner(textbook, y, wy, y, wy)
    return within - 2 * naive_inner(textbook, x, wx, y, wy)


def naive_unbiased(textbook, x, wx, y, wy):
    def within(z, w):
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(w[i] * w[j] * textbook(z[i], z[j]) for i, j in pairs) / sum(w[i] * w[j] for i, j in pairs)

    return within(x, wx) + within(y, wy) - 2 * naive_inner(textbook, x, wx, y, wy)


def draw(seed, n=7, m=5, d=3):
    """Two samples with random weights that sum to 1, as float64 arrays."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), 0.5 + rng.normal(size=(m, d))
    return x, y, rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def tensors(device, dtype, *given_arrays):
    return tuple(torch.as_tensor(array, device=device, dtype=dtype) for array in given_arrays)


def weighted(device, dtype, x, y, wx, wy):
    """Two weighted samples of arrays."""
    x, y, wx, wy = tensors(device, dtype, x, y, wx, wy)
    return WeightedSample(x, wx), WeightedSample(y, wy)


def assert_close(actual, expected, dtype, scale=1.0):
    rtol, atol = (1e-4, 1e-5 * scale) if dtype is torch.float32 else (1e-10, 1e-12 * scale)
    expected = expected.cpu().double() if isinstance(expected, torch.Tensor) else expected
    np.testing.assert_allclose(actual.cpu().double().numpy(), expected, rtol=rtol, atol=atol)


@every_kernel
@pytest.mark.parametrize("seed", range(3))
def test_weighted_mmd_equals_the_naive_double_sum(kernel, textbook, seed, device, dtype):
    x, y, wx, wy = draw(seed)
    expected = naive_squared(textbook, x, wx, y, wy)
    samples = weighted(device, dtype, x, y, wx, wy)
    assert_close(mmd_squared(kernel, *samples), expected, dtype)
    assert_close(mmd(kernel, *samples), math.sqrt(expected), dtype)


@every_kernel
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_uniform_when_absent(kernel, textbook, seed, device, dtype):
    x, y, _, _ = draw(seed)
    expected = naive_squared(textbook, x, [1 / 7] * 7, y, [1 / 5] * 5)
    assert_close(mmd_squared(kernel, *tensors(device, dtype, x, y)), expected, dtype)


@every_kernel
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_unbiased_estimate_leaves_out_the_pairs_of_a_point_with_itself(kernel, textbook, uniform, seed, device, dtype):
    x, y, wx, wy = draw(seed)
    if uniform:
        wx, wy = np.full(7, 1 / 7), np.full(5, 1 / 5)
    samples = tensors(device, dtype, x, y) if uniform else weighted(device, dtype, x, y, wx, wy)
    assert_close(mmd_squared_unbiased(kernel, *samples), naive_unbiased(textbook, x, wx, y, wy), dtype)


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 1), (0, 4)])
def test_unbiased_estimate_needs_two_points_on_each_side(n, m, batch, device, dtype):
    x, y = (torch.zeros(*batch, size, 2, device=device, dtype=dtype) for size in (n, m))
    name = "first" if n < 2 else "second"
    with pytest.raises(ValueError, match=f"{name} must hold at least 2 points, got {min(n, m)}; use mmd_squared"):
        mmd_squared_unbiased(Gaussian(), x, y)


@every_kernel
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_zero_and_never_negative_on_equal_multisets_in_any_order(kernel, textbook, data, device, dtype):
    n, d = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    x = data.draw(arrays(np.float64, (n, d), elements=st.floats(-2, 2, width=32)))
    order = data.draw(st.permutations(range(n)))
    value = mmd_squared(kernel, *tensors(device, dtype, x, x[order]))
    size = max(textbook(a, a) for a in x)
    assert 0 <= float(value) <= 20 * torch.finfo(dtype).eps * max(1, size)
    assert not mmd(kernel, *tensors(device, dtype, x, x[order])).isnan()


@every_kernel
def test_a_repeated_point_is_a_point_with_more_weight(kernel, textbook, device, dtype):
    x, y, _, _ = draw(3, n=2)
    repeated, once, other, weights = tensors(device, dtype, x[[0, 0, 1]], x, y, [2 / 3, 1 / 3])
    heavier = WeightedSample(once, weights)
    assert_close(mmd_squared(kernel, repeated, other), mmd_squared(kernel, heavier, other), dtype)


@every_kernel
@pytest.mark.parametrize("seed", range(3))
def test_invariant_to_row_order(kernel, textbook, seed, device, dtype):
    x, y, wx, wy = draw(seed)
    p, q = np.random.default_rng(seed).permutation(7), np.random.default_rng(seed).permutation(5)
    for estimate in (mmd_squared, mmd_squared_unbiased):
        before = estimate(kernel, *weighted(device, dtype, x, y, wx, wy))
        assert_close(estimate(kernel, *weighted(device, dtype, x[p], y[q], wx[p], wy[q])), before, dtype)


@every_kernel
def test_symmetric_in_its_two_samples(kernel, textbook, device, dtype):
    first, second = weighted(device, dtype, *draw(4))
    assert_close(mmd(kernel, first, second), mmd(kernel, second, first), dtype)


@stationary
@pytest.mark.parametrize("seed", range(3))
def test_invariant_to_translation_under_stationary_kernels(kernel, seed, device, dtype):
    x, y, wx, wy = draw(seed)
    shift = np.array([1.5, -2.0, 0.5])
    before = mmd_squared(kernel, *weighted(device, dtype, x, y, wx, wy))
    after = mmd_squared(kernel, *weighted(device, dtype, x + shift, y + shift, wx, wy))
    assert_close(after, before, dtype, scale=10)


def gaussian_mean(t, difference, variance, d):
    """E exp(−‖u‖²/2t) for u ~ N(difference, variance·I) in d dimensions."""
    return (t / (t + variance)) ** (d / 2) * math.exp(-float(difference @ difference) / (2 * (t + variance)))


def test_analytic_value_between_two_gaussians_within_monte_carlo_error(device, dtype):
    t, d, n, m, draws, deviation = 1.5, 3, 60, 40, 400, 1.4
    shift = np.array([0.8, -0.3, 0.2])
    rng = np.random.default_rng(0)
    x, y = tensors(device, dtype, rng.normal(size=(draws, n, d)), shift + deviation * rng.normal(size=(draws, m, d)))
    xx, yy = gaussian_mean(t, 0 * shift, 2, d), gaussian_mean(t, 0 * shift, 2 * deviation**2, d)
    exact = xx + yy - 2 * gaussian_mean(t, shift, 1 + deviation**2, d)
    biased = exact + (1 - xx) / n + (1 - yy) / m  # the pairs of a point with itself count 1 each
    for estimates, truth in (
        (mmd_squared_unbiased(Gaussian(t), x, y), exact),
        (mmd_squared(Gaussian(t), x, y), biased),
    ):
        error = float(estimates.std()) / math.sqrt(draws)
        assert error < 0.03 * exact
        assert abs(float(estimates.mean()) - truth) < 4 * error


@every_kernel
def test_tile_size_changes_nothing(kernel, textbook, device, dtype):
    first, second = weighted(device, dtype, *draw(5))
    at = first.points[:4] + 0.1
    for estimate in (mmd, mmd_squared, mmd_squared_unbiased):
        assert_close(estimate(kernel, first, second, tile=3), estimate(kernel, first, second), dtype)
    assert_close(witness(kernel, at, first, second, tile=3), witness(kernel, at, first, second), dtype)
    assert_close(mean_embedding(kernel, at, first, tile=3), mean_embedding(kernel, at, first), dtype)


@every_kernel
def test_batch_equals_loop_with_broadcast_leading_dimensions(kernel, textbook, device, dtype):
    rng = np.random.default_rng(6)
    x, y, wx, wy = tensors(
        device,
        dtype,
        rng.normal(size=(2, 1, 4, 3)),
        rng.normal(size=(3, 5, 3)),
        rng.dirichlet(np.ones(4), size=(2, 1)),
        rng.dirichlet(np.ones(5), size=3),
    )
    first, second = WeightedSample(x, wx), WeightedSample(y, wy)
    firsts = [WeightedSample(x[i, 0], wx[i, 0]) for i in range(2)]
    seconds = [WeightedSample(y[j], wy[j]) for j in range(3)]
    for estimate in (mmd_squared, mmd, mmd_squared_unbiased):
        batch = estimate(kernel, first, second, tile=3)
        assert batch.shape == (2, 3)
        assert_close(batch, [[float(estimate(kernel, a, b)) for b in seconds] for a in firsts], dtype)
    values = witness(kernel, x, first, second)
    assert values.shape == (2, 3, 4)
    assert_close(values[1, 2], witness(kernel, x[1, 0], firsts[1], seconds[2]), dtype)


@pytest.mark.parametrize("estimate", [mmd_squared, mmd, mmd_squared_unbiased])
def test_weights_alone_may_carry_the_batch(estimate, device, dtype):
    x, y, _, _ = draw(10)
    several = np.random.default_rng(11).dirichlet(np.ones(7), size=4)
    x, y, several = tensors(device, dtype, x, y, several)
    batch = estimate(Gaussian(), WeightedSample(x, several), y)
    assert_close(batch, [float(estimate(Gaussian(), WeightedSample(x, weights), y)) for weights in several], dtype)


@every_kernel
@pytest.mark.parametrize("seed", range(3))
def test_witness_equals_the_naive_difference_of_mean_embeddings(kernel, textbook, seed, device, dtype):
    x, y, wx, wy = draw(seed)
    at = np.random.default_rng(seed + 100).normal(size=(6, 3))
    expected = [
        sum(w * textbook(p, a) for w, a in zip(wx, x, strict=True))
        - sum(w * textbook(p, b) for w, b in zip(wy, y, strict=True))
        for p in at
    ]
    first, second = weighted(device, dtype, x, y, wx, wy)
    assert_close(witness(kernel, *tensors(device, dtype, at), first, second), expected, dtype)


def test_mean_embedding_of_an_empty_sample_is_zero_in_the_full_shape(device, dtype):
    at, empty = torch.ones(3, 4, 2, device=device, dtype=dtype), torch.ones(3, 0, 2, device=device, dtype=dtype)
    assert mean_embedding(Gaussian(), at, empty).tolist() == [[0.0] * 4] * 3


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_nowhere_to_evaluate_gives_nothing_in_the_full_shape(batch, device, dtype):
    points, nowhere = torch.ones(*batch, 4, 2, device=device, dtype=dtype), torch.ones(0, 2, device=device, dtype=dtype)
    assert mean_embedding(Gaussian(), nowhere, points).shape == (*batch, 0)
    assert witness(Gaussian(), nowhere, points, points[..., :1, :]).shape == (*batch, 0)


def linear_features(x):
    return x


def quadratic_features(x, offset=0.7):
    """φ with ⟨φ(x), φ(y)⟩ = (⟨x, y⟩ + c)²: all products, √2c of each coordinate, c."""
    products = [np.outer(row, row).ravel() for row in x]
    return np.array([[*p, *(math.sqrt(2 * offset) * row), offset] for p, row in zip(products, x, strict=True)])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("kernel", "features"), [(Linear(), linear_features), (Polynomial(2, 0.7), quadratic_features)], ids=["lin", "quad"]
)
def test_r2_mmd_is_the_distance_between_distilled_weights(kernel, features, share, device, dtype):
    x, q, wx, wq = draw(7)
    rng = np.random.default_rng(8)
    v, vq = rng.normal(size=(7, 2)), rng.normal(size=(5, 2))

    def distilled(points, values, weights):
        """Σ w_i v_i φ(x_i)ᵀ, the values being (√(1−ρ), √ρ·v)."""
        total = 0
        for phi, value, w in zip(features(points), values, weights, strict=True):
            total = total + w * np.outer([math.sqrt(1 - share), *(math.sqrt(share) * value)], phi)
        return total

    expected = np.linalg.norm(distilled(x, v, wx) - distilled(q, vq, wq))
    x, v, q, vq, wx, wq = tensors(device, dtype, x, v, q, vq, wx, wq)
    prompt, target = JointSample(x, v, wx), JointSample(q, vq, wq)
    joint_kernel = JointKernel(kernel, input_width=3, output_share=share)
    distance = mmd(joint_kernel, prompt.to_weighted_sample(), target.to_weighted_sample())
    assert abs(float(distance) - expected) < (1e-10 if dtype is torch.float64 else 1e-4 * expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_joint_kernel_diagonal_is_that_of_its_gram_matrix(share, device, dtype):
    points = torch.as_tensor(np.random.default_rng(9).normal(size=(2, 6, 5)), device=device, dtype=dtype)
    kernel = JointKernel(Polynomial(2, 0.7), input_width=3, output_share=share)
    assert_close(kernel.diagonal(points), kernel(points, points).diagonal(dim1=-2, dim2=-1), dtype)


MEMORY = """
import resource, sys, torch
from kdprompt.theory.kernels import Linear
from kdprompt.theory.mmd import mmd_squared
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
x = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
mmd_squared(Linear(), x[:100], x[100:200])
before = peak()
value = float(mmd_squared(Linear(), x, x + 1))
print(value, peak() - before)
"""


def test_memory_is_a_tile_and_not_the_gram_matrix():
    pytest.importorskip("resource")
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=120)
    value, grown = map(float, run.stdout.split())
    assert value == pytest.approx(2, rel=1e-3)  # ‖(1, 1)‖², the distance of the means
    assert grown < 150e6  # a full Gram matrix would be 1.6 GB
