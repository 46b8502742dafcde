"""Samples: uniform weights by default, shapes that are checked once, joint points."""

import pytest
import torch

from kdprompt.theory.samples import JointSample, WeightedSample, join_inputs_and_values, to_weighted_sample


def test_weights_are_filled_in_where_they_are_absent(device, dtype):
    points = torch.zeros(2, 5, 3, device=device, dtype=dtype)
    filled = WeightedSample(points).filled_weights
    assert filled.dtype is dtype and filled.device.type == device.type
    assert filled.tolist() == torch.full((2, 5), 1 / 5, dtype=dtype).tolist()
    weights = torch.rand(5, device=device, dtype=dtype)
    assert WeightedSample(points, weights).filled_weights is weights
    assert WeightedSample(points[:, :0]).filled_weights.shape == (2, 0)


@pytest.mark.parametrize(
    ("points", "weights"),
    [((4, 2), (4,)), ((3, 4, 2), (4,)), ((4, 2), (3, 4)), ((3, 1, 4, 2), (1, 5, 4)), ((0, 2), (0,))],
)
def test_weights_broadcast_with_their_points(points, weights):
    sample = WeightedSample(torch.zeros(points), torch.zeros(weights))
    assert sample.filled_weights.shape == weights


@pytest.mark.parametrize(
    ("points", "weights"), [((4, 2), (3,)), ((4, 2), (1,)), ((4, 2), ()), ((4, 2), (4, 1)), ((3, 4, 2), (2, 4))]
)
def test_weights_that_do_not_fit_raise_with_both_shapes(points, weights):
    message = f"weights must be of shape [..., n] for points [..., n, d], got {list(weights)} for {list(points)}"
    for make in (
        lambda: WeightedSample(torch.zeros(points), torch.zeros(weights)),
        lambda: JointSample(torch.zeros(points), torch.zeros(points), torch.zeros(weights)),
    ):
        with pytest.raises(ValueError) as error:
            make()
        assert str(error.value) == message


@pytest.mark.parametrize("make", [WeightedSample, to_weighted_sample])
def test_points_without_a_dimension_raise_with_the_shape(make):
    with pytest.raises(ValueError, match=r"points must be of shape \[\.\.\., n, d\], got \[7\]"):
        make(torch.zeros(7))


def test_points_alone_are_a_uniform_sample():
    points = torch.rand(4, 2)
    sample = to_weighted_sample(points)
    assert sample.points is points and sample.weights is None
    assert to_weighted_sample(sample) is sample


def test_joint_points_are_inputs_then_values():
    inputs, values, weights = torch.rand(3, 4, 2), torch.rand(3, 4, 5), torch.rand(4)
    sample = JointSample(inputs, values, weights).to_weighted_sample()
    assert torch.equal(sample.points[..., :2], inputs) and torch.equal(sample.points[..., 2:], values)
    assert sample.weights is weights and torch.equal(sample.points, join_inputs_and_values(inputs, values))


@pytest.mark.parametrize(
    ("inputs", "values"), [((4, 2), (3, 2)), ((3, 4, 2), (4, 2)), ((4,), (4,)), ((1, 4, 2), (3, 4, 2))]
)
@pytest.mark.parametrize("make", [JointSample, join_inputs_and_values])
def test_values_of_other_inputs_raise_with_both_shapes(make, inputs, values):
    with pytest.raises(ValueError) as error:
        make(torch.zeros(inputs), torch.zeros(values))
    assert str(error.value) == (
        f"inputs and values must be of shapes [..., n, d] and [..., n, c], got {list(inputs)} and {list(values)}"
    )
