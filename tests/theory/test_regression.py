"""Ridge regression, and its leave-one-out without another fit, against plain fits by NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdprompt.theory import regression
from kdprompt.theory.regression import RidgeChange, RidgeSums, ridge_regression
from support import fit_ridge_plainly


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
    expected = [fit_ridge_plainly(x, v, penalty, row) for row in q]
    np.testing.assert_allclose(fit.predict(torch.tensor(q, device=device)).cpu(), expected, atol=1e-10)


@pytest.mark.parametrize("penalty", [0.03, 0.1, 3.0])
def test_leaving_points_out_is_a_fit_without_them_wherever_it_is_asked(points, penalty, device):
    """Points that lie at the query, near it, and far away; the queries of one call leave out as many as they like."""
    x, v = points
    fit = ridge_regression(torch.tensor(x, device=device), torch.tensor(v, device=device), penalty)
    left_out, most = [[0], [3, 7], [12], [], [5, 20, 21, 22]], 4
    q = np.concatenate([x[[0, 3]], x[[12]] + 0.01, x[[1]], 3 * x[[9]]])
    rows = torch.tensor([[*own, *[0] * (most - len(own))] for own in left_out])
    there = torch.tensor([[place < len(own) for place in range(most)] for own in left_out], device=device)
    held = (torch.tensor(points[which][rows], device=device) for which in (0, 1))
    found = fit.predict_without(torch.tensor(q, device=device), *held, there)
    for b, own in enumerate(left_out):
        others = [j for j in range(40) if j not in own]
        np.testing.assert_allclose(found[b].cpu(), fit_ridge_plainly(x[others], v[others], penalty, q[b]), atol=1e-9)


def test_leaving_nothing_out_is_the_fit_itself(points):
    x, v = points
    fit, q = ridge_regression(torch.tensor(x), torch.tensor(v), 1.0), torch.randn(4, 5, dtype=torch.float64)
    held = torch.tensor(x[:4, None]), torch.tensor(v[:4, None])
    assert (fit.predict_without(q, *held, torch.zeros(4, 1, dtype=torch.bool)) == fit.predict(q)).all()


def test_a_single_point_leaves_its_own_value():
    x, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])
    fit = ridge_regression(x, v, 1.0)
    assert fit.predict(torch.zeros(1, 2)).tolist() == [[0.0, 1.0]]
    left_out = fit.predict_without(x, x[None], v[None], torch.ones(1, 1, dtype=torch.bool))
    assert left_out.isfinite().all()


def test_where_no_point_is_left_nothing_is_known():
    x, v = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    fit = ridge_regression(x, v, 1.0)
    there = torch.tensor([[True, True, True], [True, True, False]])
    found = fit.predict_without(x[:2], x.expand(2, -1, -1), v.expand(2, -1, -1), there)
    assert found[0].tolist() == [0.0] * 4
    np.testing.assert_allclose(found[1], v[2], atol=1e-12)  # the one that is left has its own mean


@pytest.mark.parametrize("width", [5, 300])
def test_points_join_and_leave_the_sums(width, device):
    rng = np.random.default_rng(2)
    x, v = (torch.tensor(rng.normal(size=(60, size)), device=device) for size in (width, 3))
    q = rng.normal(size=width)
    sums = RidgeSums.of(x[:40], v[:40]) + RidgeSums.of(x[40:], v[40:]) - RidgeSums.of(x[10:30], v[10:30])
    assert sums.count == 40
    rest = [*range(10), *range(30, 60)]
    for penalty in (0.3, 30.0):
        expected = fit_ridge_plainly(x[rest].cpu().numpy(), v[rest].cpu().numpy(), penalty, q)
        np.testing.assert_allclose(sums.fit(penalty).predict(torch.tensor(q, device=device)).cpu(), expected, atol=1e-9)


def test_sums_are_of_all_chunks_whatever_the_dtype_of_the_points(monkeypatch):
    monkeypatch.setattr(regression, "CHUNK", 7)
    rng = np.random.default_rng(3)
    x = torch.tensor(rng.normal(size=(40, 200)), dtype=torch.float32)
    v = torch.tensor(np.eye(3, dtype=np.float32)[rng.integers(3, size=40)])
    exact = x.double().numpy()
    sums = RidgeSums.of(x, v)
    np.testing.assert_allclose(sums.squares, exact.T @ exact, atol=1e-12)
    np.testing.assert_allclose(sums.products, exact.T @ v.double().numpy(), atol=1e-12)
    np.testing.assert_allclose(sums.inputs, exact.sum(0), atol=1e-12)
    assert sums.values.tolist() == v.sum(0).tolist() and sums.squares.dtype == torch.float64


@given(
    n=st.integers(3, 30),
    changes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=5),
    scale=st.sampled_from([1e-3, 1.0]),
    penalty=st.sampled_from([0.3, 3.0]),
)
def test_after_points_have_joined_and_left_it_is_the_regression_of_those_that_are_there(n, changes, scale, penalty):
    """Whether somebody asked for it between two changes or not, and however many there were."""
    rng = np.random.default_rng(n)
    x, v = scale * rng.normal(size=(n, 4)) + 1, np.eye(2)[rng.integers(2, size=n)]
    q = scale * rng.normal(size=(5, 4)) + 1
    fits, change = {penalty: RidgeSums.of(torch.tensor(x), torch.tensor(v)).fit(penalty)}, None
    for come, go, is_asked in changes:
        go = min(go, len(x) - 1)
        more, outputs = scale * rng.normal(size=(come, 4)) + 1, np.eye(2)[rng.integers(2, size=come)]
        change = RidgeChange.of(fits, change, torch.tensor(more), torch.tensor(x[:go]))
        x, v = np.concatenate([x[go:], more]), np.concatenate([v[go:], outputs])
        sums = RidgeSums.of(torch.tensor(x), torch.tensor(v))
        fits = {penalty: change.fit(penalty, sums)} if is_asked else {}
    fit = change.fit(penalty, sums)
    np.testing.assert_allclose(
        fit.predict(torch.tensor(q)), [fit_ridge_plainly(x, v, penalty, row) for row in q], atol=1e-8
    )
    centred = x - x.mean(0)
    squares = centred.T @ centred + penalty * np.eye(4)
    np.testing.assert_allclose(fit.inverse, np.linalg.inv(squares), rtol=1e-8, atol=1e-10 / penalty)
    assert fit.count == len(x)
    again = change.fit(2 * penalty, sums)  # which nobody asked for before
    np.testing.assert_allclose(again.predict(torch.tensor(q[0])), fit_ridge_plainly(x, v, 2 * penalty, q[0]), atol=1e-9)


def test_an_inverse_is_computed_anew_before_rounding_adds_up():
    rng = np.random.default_rng(1)
    x, v = torch.tensor(rng.normal(size=(50, 4))), torch.eye(2, dtype=torch.float64)[rng.integers(2, size=50)]
    fit, sums = RidgeSums.of(x, v).fit(1.0), RidgeSums.of(x, v)
    counts = []
    for _ in range(regression.MOST_CHANGES + 1):
        fit = RidgeChange.of({1.0: fit}, None, x[:1], x[:1]).fit(1.0, sums)
        counts.append(fit.changes)
    upwards = range(2, regression.MOST_CHANGES + 1, 2)
    assert counts == [*upwards, 0, *upwards]
