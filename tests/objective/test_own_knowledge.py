"""ℓ₀ of R9 at any point against plain Python: kernel regression of the answers, of the others at an example itself."""

import math

import numpy as np
import pytest
import torch

from kdprompt.objective.own_knowledge import OwnEstimate, OwnKnowledge

TEMPERATURE = 0.3


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
@pytest.mark.parametrize("shrinkage", [0.0, 0.7, 30.0])
def test_own_knowledge_is_the_regression_of_the_other_answers(shrinkage, batch, device, dtype):
    rng = np.random.default_rng(5)
    x, values, q = unit(rng, 6, 4), rng.normal(size=(6, 3)), unit(rng, *batch, 5, 4)
    q[..., 0, :], q[..., 1, :] = x[2], x[5]  # examples themselves
    held = [torch.as_tensor(array, device=device, dtype=dtype) for array in (x, values, q)]
    found = OwnEstimate(held[0], held[1], TEMPERATURE, shrinkage)(held[2])
    assert found.shape == (*batch, 5, 3)
    for at in np.ndindex(*batch, 5):
        itself = {0: 2, 1: 5}.get(at[-1])
        weights = [
            0.0 if i == itself else math.exp(-(math.dist(q[at], x[i]) ** 2) / (2 * TEMPERATURE)) for i in range(6)
        ]
        sums = [sum(w * row[y] for w, row in zip(weights, values, strict=True)) for y in range(3)]
        mean = values.mean(0)
        expected = [(sums[y] + shrinkage * mean[y]) / (sum(weights) + shrinkage) for y in range(3)]
        np.testing.assert_allclose(found[at].cpu(), expected, rtol=1e-4 if dtype is torch.float32 else 1e-10, atol=1e-6)


@pytest.mark.parametrize("temperature", [1e-5, 1e-9])
def test_where_no_other_example_is_near_it_is_the_mean_of_the_answers(temperature, device, dtype):
    values = torch.tensor([[1.0, -1.0], [3.0, -3.0]], device=device, dtype=dtype)
    axes = torch.eye(3, device=device, dtype=dtype)
    lonely = OwnEstimate(axes[:2], values, temperature, 0.0)  # e^(−1/t) is 0: no kernel mass, and none of the mean
    assert lonely(axes).tolist() == [[2.0, -2.0]] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ("a",)}, "an answer an example is needed, got 2 of 1"),
        ({"inputs": ("a", "b", "c")}, "an answer an example is needed, got 2 of 2"),
        ({"log_probs": ((-1.0, -2.0),)}, "an answer an example is needed, got 1 of 2"),
        ({"log_probs": ((-1.0, -2.0), (-1.0,))}, "each answer must have 2 log-probabilities, one an output"),
        ({"outputs": ("x", "y", "z")}, "each answer must have 3 log-probabilities, one an output"),
    ],
)
def test_answers_that_do_not_fit_are_refused(changes, message):
    whole = {
        "ids": ("a", "b"),
        "inputs": ("1", "2"),
        "outputs": ("x", "y"),
        "log_probs": ((-1.0, -2.0), (-3.0, -0.5)),
        "temperature": 0.1,
        "shrinkage": 1.0,
    }
    assert OwnKnowledge(**whole).ids == ("a", "b")
    with pytest.raises(ValueError, match=message):
        OwnKnowledge(**whole | changes)
