"""v̂ of R8 against plain Python: kernel regression, the ridge regression that joins it, and Bayes' rule for noise."""

import math

import numpy as np
import pytest
import torch

from kdprompt.objective.regression import KernelRegression, RidgePart
from kdprompt.objective.set_state import gather_rows
from kdprompt.theory.kernels import Gaussian

BATCHES = pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 4)])
LABELS, POINTS, NEIGHBOURS = 4, 3, 5


def tolerance(dtype):
    return {"rtol": 2e-5 if dtype is torch.float32 else 1e-12, "atol": 1e-6 if dtype is torch.float32 else 1e-14}


def tensors(device, dtype, *arrays):
    return [torch.as_tensor(array, device=device, dtype=dtype) for array in arrays]


@BATCHES
@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 20.0])
def test_kernel_regression_is_its_formula(shrinkage, batch, device, dtype):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(*batch, POINTS, NEIGHBOURS))  # negative ones count for nothing
    weights[..., 0, :] = -1.0  # a point without neighbours
    values, prior = rng.random((*batch, NEIGHBOURS, LABELS)), rng.dirichlet(np.ones(LABELS), size=batch)
    regression = KernelRegression(Gaussian(), shrinkage)
    estimate, support = regression(*tensors(device, dtype, weights, values, prior))
    assert estimate.shape == (*batch, POINTS, LABELS) and support.shape == (*batch, POINTS)
    for at in np.ndindex(*batch, POINTS):
        one, own = at[:-1], [max(float(weight), 0.0) for weight in weights[at]]
        mass = sum(own)
        held = sum(own) / (sum(own) + shrinkage) if mass + shrinkage > 0 else 0.0
        np.testing.assert_allclose(support[at].cpu(), held, **tolerance(dtype))
        if mass + shrinkage > 0:
            sums = [sum(w * values[one][j, y] for j, w in enumerate(own)) for y in range(LABELS)]
            expected = [(s + shrinkage * p) / (mass + shrinkage) for s, p in zip(sums, prior[one], strict=True)]
            np.testing.assert_allclose(estimate[at].cpu(), expected, **tolerance(dtype))


@BATCHES
@pytest.mark.parametrize(("weight", "exponent"), [(0.0, 1.0), (1.7, 0.6), (2.0, 0.0)])
def test_the_ridge_regression_joins_in_the_logarithm(weight, exponent, batch, device, dtype):
    rng = np.random.default_rng(2)
    shares, scores = rng.dirichlet(np.ones(LABELS), size=batch), rng.normal(size=(*batch, LABELS))
    shares[..., 2] = 0.0  # a label that no neighbour has
    possible = np.ones((*batch, LABELS), dtype=bool)
    possible[..., 3] = False
    held = tensors(device, dtype, shares, scores)
    found = RidgePart(1.0, weight, exponent).combine(*held, torch.as_tensor(possible, device=device))
    for at in np.ndindex(batch):
        powers = [max(shares[at][y], 1e-30) ** exponent * math.exp(weight * scores[at][y]) for y in range(3)]
        expected = [power / sum(powers) for power in powers] + [0.0]
        np.testing.assert_allclose(found[at].cpu(), expected, **tolerance(dtype))


@BATCHES
def test_embedded_outputs_are_joined_as_a_sum(batch, device, dtype):
    values, scores = np.random.default_rng(3).normal(size=(2, *batch, LABELS))
    found = RidgePart(1.0, 0.7, 0.4).add(*tensors(device, dtype, values, scores))
    np.testing.assert_allclose(found.cpu(), 0.4 * values + 0.7 * scores, **tolerance(dtype))


@BATCHES
@pytest.mark.parametrize("noise", [0.0, 0.2, 0.9])
def test_what_is_right_where_a_label_is_shown_follows_from_bayes(noise, batch, device, dtype):
    rng = np.random.default_rng(3)
    estimate = rng.dirichlet(np.ones(LABELS), size=batch)
    estimate[..., 1] = 0.0
    estimate /= estimate.sum(-1, keepdims=True)
    shown = np.asarray(rng.choice([0, 2, 3], size=batch))
    values = np.eye(LABELS)[shown]
    found = RidgePart(1.0, 1.0, 1.0, noise).believe(*tensors(device, dtype, values, estimate))
    possible = [0, 2, 3]
    for at in np.ndindex(batch):
        says = {y: (1 - noise) * (shown[at] == y) + noise / len(possible) for y in possible}  # P(shown | y is right)
        whole = sum(estimate[at][y] * says[y] for y in possible)
        expected = [estimate[at][y] * says[y] / whole if y in possible else 0.0 for y in range(LABELS)]
        np.testing.assert_allclose(found[at].cpu(), values[at] if noise == 0 else expected, **tolerance(dtype))


def test_the_only_possible_label_is_believed_entirely_whatever_is_shown(device, dtype):
    """Noise has nowhere else to fall, so that seeing it says nothing, and seeing it is sure."""
    values, estimate = tensors(device, dtype, np.eye(LABELS)[[2, 2]], np.eye(LABELS)[[2, 2]] * [[1.0], [0.4]])
    found = RidgePart(1.0, 1.0, 1.0, 0.3).believe(values, estimate)
    np.testing.assert_allclose(found.cpu(), np.eye(LABELS)[[2, 2]], **tolerance(dtype))


def test_where_nothing_is_possible_nothing_is_believed(device, dtype):
    values, estimate = tensors(device, dtype, np.eye(LABELS)[[0, 1]], np.zeros((2, LABELS)))
    assert RidgePart(1.0, 1.0, 1.0, 0.3).believe(values, estimate).tolist() == [[0.0] * LABELS] * 2


@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("rest", [(), (2,), (2, 3)])
def test_rows_are_taken_from_the_matrix_of_each_problem(b, places, rest, device):
    rng = np.random.default_rng(4)
    matrix, index = rng.normal(size=(b, 6, *rest)), rng.integers(6, size=(b, places))
    found = gather_rows(torch.as_tensor(matrix, device=device), torch.as_tensor(index, device=device))
    expected = [[matrix[problem, row] for row in index[problem]] for problem in range(b)]
    np.testing.assert_array_equal(found.cpu(), expected)
