"""Paired statistics against naive versions of their definitions, and against simulation."""

import math
from fractions import Fraction
from itertools import product

import pytest
import torch

from kdprompt.evaluate.statistics import (
    calibration_error,
    compare,
    correct_by_holm,
    mcnemar_p_value,
    mean_interval,
    paired_interval,
)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (9, 1), (0, 7), (30, 18), (400, 300)])
def test_mcnemar_is_the_exact_binomial_test(wins, losses):
    n, low = wins + losses, min(wins, losses)
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(low + 1))
    assert mcnemar_p_value(wins, losses) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-12)


def test_holm_steps_down_and_keeps_the_order():
    values = [0.2, 0.001, 0.04, 0.03]
    ordered = sorted(values)
    expected = {}
    for rank, p in enumerate(ordered):
        expected[p] = max([min(1.0, (len(values) - j) * q) for j, q in enumerate(ordered[: rank + 1])])
    assert correct_by_holm(values) == pytest.approx([expected[p] for p in values])
    assert correct_by_holm([]) == []


def test_paired_interval_covers_the_true_difference():
    hits, trials = 0, 200
    for seed in range(trials):
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(150, generator=generator)
        one = (uniform < 0.7).double()
        other = (0.6 * uniform + 0.4 * torch.rand(150, generator=generator) < 0.5).double()
        truth = 0.7 - 0.5
        low, high = paired_interval(one, other, draws=1000, seed=seed)
        hits += low <= truth <= high
    assert 0.9 <= hits / trials <= 0.99


def test_intervals_are_seeded_and_hold_the_mean():
    values = torch.rand(80, generator=torch.Generator().manual_seed(0))
    low, high = mean_interval(values, draws=1234)
    assert (low, high) == mean_interval(values, draws=1234) and low < float(values.mean()) < high
    assert mean_interval(torch.ones(5)) == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_interval_ends_are_quantiles_of_the_bootstrap_distribution(seed):
    """All 4⁴ samples of four values are equally likely: the ends lie within four standard errors of their levels."""
    values = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    means = sorted(sum(sample) / 4 for sample in product(values, repeat=4))
    low, high = mean_interval(torch.tensor(values, dtype=torch.float64), level=0.8, seed=seed)
    error = 4 * math.sqrt(0.1 * 0.9 / 10_000)
    for end, level in ((low, 0.1), (high, 0.9)):
        below, above = (means[round(255 * (level + sign * error))] for sign in (-1, 1))
        assert below - 1e-12 <= end <= above + 1e-12
    assert (low, high) != mean_interval(torch.tensor(values), level=0.8, seed=seed + 1)


def test_an_interval_of_one_value_is_that_value():
    assert mean_interval(torch.tensor([0.25])) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least 1 value, got none"):
        mean_interval(torch.tensor([]))


def test_compare_counts_wins_ties_and_losses():
    paired = compare(torch.tensor([1.0, 1, 0, 0, 1]), torch.tensor([1.0, 0, 0, 1, 0]))
    assert (paired.wins, paired.ties, paired.losses) == (2, 2, 1) and paired.difference == pytest.approx(0.2)
    assert paired.low <= 0.2 <= paired.high and paired.p == 1.0


def test_calibration_error_equals_the_naive_bins():
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(500, generator=generator)
    correct = torch.rand(500, generator=generator) < confidence**2
    expected = 0.0
    for b in range(10):
        rows = [i for i in range(500) if min(int(float(confidence[i]) * 10), 9) == b]
        if rows:
            gap = sum(float(confidence[i]) - bool(correct[i]) for i in rows) / len(rows)
            expected += abs(gap) * len(rows) / 500
    assert calibration_error(confidence, correct) == pytest.approx(expected, rel=1e-6)
    assert calibration_error(torch.ones(4), torch.ones(4, dtype=torch.bool)) == 0
