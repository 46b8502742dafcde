"""Two-sample tests against an independent implementation, their level and their power."""

import math

import numpy as np
import pytest
import torch

from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.mmd import mmd_squared_unbiased
from kdprompt.theory.two_sample import cross_mmd_test, permutation_test, two_sample_test

T = 0.5


def naive_gram(x: np.ndarray) -> np.ndarray:
    """exp((⟨x, x′⟩ − 1)/t) entry by entry."""
    return np.array([[math.exp((float(a @ b) - 1) / T) for b in x] for a in x])


def naive_mmd2(gram: np.ndarray, first: list[int], second: list[int]) -> float:
    n, m = len(first), len(second)
    within = sum(gram[i, j] for i in first for j in first if i != j) / (n * (n - 1))
    within += sum(gram[i, j] for i in second for j in second if i != j) / (m * (m - 1))
    return within - 2 * sum(gram[i, j] for i in first for j in second) / (n * m)


def samples(seed: int, n: int, m: int, shift: float, dtype=torch.float64, device="cpu"):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + np.array([shift, 0, 0])
    return tuple(
        torch.as_tensor(z / np.linalg.norm(z, axis=1, keepdims=True), dtype=dtype, device=device) for z in (x, y)
    )


@pytest.mark.parametrize("seed", range(50))
def test_permutation_test_agrees_with_an_independent_implementation(seed):
    rng = np.random.default_rng(1000 + seed)
    n, m = int(rng.integers(4, 14)), int(rng.integers(4, 14))
    x, y = samples(seed, n, m, shift=float(rng.uniform(0, 1.5)))
    result = permutation_test(Gaussian(T), x, y, permutations=2000, seed=seed)
    gram = naive_gram(torch.cat([x, y]).numpy())
    observed = naive_mmd2(gram, list(range(n)), list(range(n, n + m)))
    assert result.statistic == pytest.approx(observed, rel=1e-9, abs=1e-12)
    count, draws = 0, 400
    for _ in range(draws):
        order = rng.permutation(n + m).tolist()
        count += naive_mmd2(gram, order[:n], order[n:]) >= observed - 1e-12
    p = (1 + count) / (1 + draws)
    assert abs(result.p_value - p) < 4.5 * math.sqrt(max(p * (1 - p), 0.01) * (1 / draws + 1 / 2000))


def test_the_statistic_is_the_unbiased_mmd(device, dtype):
    x, y = samples(3, 20, 30, 0.5, dtype, device)
    result = permutation_test(Gaussian(T), x, y, permutations=10)
    expected = float(mmd_squared_unbiased(Gaussian(T), x, y))
    assert result.statistic == pytest.approx(expected, rel=1e-4 if dtype is torch.float32 else 1e-10, abs=1e-6)
    assert (result.n, result.m) == (20, 30) and result == permutation_test(Gaussian(T), x, y, permutations=10)


def test_the_level_is_kept_and_differences_are_found():
    """Under the null p ≤ α in a share α of the draws: exactly for permutations, asymptotically for the cross-MMD."""
    draws, alpha = 200, 0.1
    for test, slack in (
        (lambda x, y, s: permutation_test(Gaussian(T), x, y, permutations=99, seed=s), 0.07),
        (lambda x, y, s: cross_mmd_test(Gaussian(T), x, y, seed=s), 0.08),
    ):
        same = [test(*samples(seed, 40, 40, 0.0), seed).p_value for seed in range(draws)]
        different = [test(*samples(seed, 40, 40, 1.2), seed).p_value for seed in range(draws)]
        assert np.mean(np.array(same) <= alpha) < alpha + slack
        assert np.mean(np.array(different) <= alpha) > 0.8


def test_equal_points_count_as_ties():
    x = torch.nn.functional.normalize(torch.ones(5, 3), dim=-1)
    assert permutation_test(Gaussian(T), x, x.clone(), permutations=50).p_value == 1.0
    assert cross_mmd_test(Gaussian(T), x, x.clone()).p_value == 0.5


def test_large_samples_take_the_test_without_permutations():
    small, large = samples(0, 50, 50, 0.8), samples(0, 2500, 2500, 0.2)
    assert two_sample_test(Gaussian(T), *small, permutations=20).method == "permutation"
    result = two_sample_test(Gaussian(T), *large)
    assert result.method == "cross" and result.p_value < 1e-3


def test_samples_that_are_too_small_raise_with_their_size():
    x = torch.randn(1, 3)
    with pytest.raises(ValueError, match="x must hold at least 2 points, got 1"):
        permutation_test(Gaussian(T), x, torch.randn(5, 3))
    with pytest.raises(ValueError, match="y must hold at least 4 points, got 3"):
        cross_mmd_test(Gaussian(T), torch.randn(5, 3), torch.randn(3, 3))
    with pytest.raises(ValueError, match="permutations must be at least 1, got 0"):
        permutation_test(Gaussian(T), torch.randn(5, 3), torch.randn(5, 3), permutations=0)
