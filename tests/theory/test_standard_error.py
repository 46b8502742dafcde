"""The one-standard-error rule against the formula in plain Python."""

import math
import statistics

import numpy as np
import pytest
import torch

from kdprompt.theory.standard_error import is_within_one_standard_error


@pytest.mark.parametrize("seed", range(20))
def test_the_paired_difference_decides(seed):
    rng = np.random.default_rng(seed)
    best = rng.normal(size=30)
    losses = best + rng.normal(0.2, 1.0, size=30)
    differences = [a - b for a, b in zip(losses, best, strict=True)]
    expected = statistics.fmean(differences) <= statistics.stdev(differences) / math.sqrt(30)
    assert is_within_one_standard_error(torch.as_tensor(losses), torch.as_tensor(best)) is expected


def test_the_best_is_within_one_standard_error_of_itself():
    losses = torch.rand(10)
    assert is_within_one_standard_error(losses, losses)
    assert not is_within_one_standard_error(losses + 1, losses)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_examples_tell_nothing_apart(count):
    assert is_within_one_standard_error(torch.full((count,), 9.0), torch.zeros(count))
