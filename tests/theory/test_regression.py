"""Ridge regression, and its leave-one-out without another fit, against plain fits by NumPy."""

import numpy as np
import pytest
import torch

from kdprompt.theory.regression import ridge_regression


def fit_plainly(x, v, penalty, q):
    """The ridge regression of all the points given, at q; an unpenalised intercept."""
    centred = x - x.mean(0)
    slope = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (v - v.mean(0)))
    return (q - x.mean(0)) @ slope + v.mean(0)


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(40, 5)), np.eye(3)[rng.integers(3, size=40)]
    x[7] = x[3]  # one text twice, with outputs of its own
    return x, v


@pytest.mark.parametrize("penalty", [0.1, 3.0, 100.0])
def test_it_is_the_ridge_regression(points, penalty, device):
    x, v = points
    fit = ridge_regression(torch.tensor(x, device=device), torch.tensor(v, device=device), penalty)
    q = np.random.default_rng(1).normal(size=(6, 5))
    expected = [fit_plainly(x, v, penalty, row) for row in q]
    np.testing.assert_allclose(fit.predict(torch.tensor(q, device=device)).cpu(), expected, atol=1e-10)


@pytest.mark.parametrize("penalty", [0.1, 3.0])
def test_leaving_points_out_is_a_fit_without_them(points, penalty, device):
    x, v = points
    fit = ridge_regression(torch.tensor(x, device=device), torch.tensor(v, device=device), penalty)
    for i, own in ((0, [0]), (3, [3, 7]), (12, [12])):
        others = [j for j in range(40) if j not in own]
        copies = torch.tensor([float(len(own))], dtype=torch.float64, device=device)
        values = torch.tensor(v[own].sum(0, keepdims=True), device=device)
        found = fit.predict_without(torch.tensor(x[[i]], device=device), copies, values)[0]
        np.testing.assert_allclose(found.cpu(), fit_plainly(x[others], v[others], penalty, x[i]), atol=1e-9)


def test_leaving_nothing_out_is_the_fit_itself(points):
    x, v = points
    fit, q = ridge_regression(torch.tensor(x), torch.tensor(v), 1.0), torch.randn(4, 5, dtype=torch.float64)
    none = torch.zeros(4, dtype=torch.float64)
    assert (fit.predict_without(q, none, torch.zeros(4, 3, dtype=torch.float64)) == fit.predict(q)).all()


def test_a_single_point_leaves_its_own_value():
    fit = ridge_regression(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]]), 1.0)
    assert fit.predict(torch.zeros(1, 2)).tolist() == [[0.0, 1.0]]
    left_out = fit.predict_without(torch.tensor([[1.0, 2.0]]), torch.ones(1), torch.tensor([[0.0, 1.0]]))
    assert left_out.isfinite().all()
