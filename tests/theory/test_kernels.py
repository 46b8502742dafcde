"""The laws that every kernel obeys, against its textbook formula in float64 Python loops.

A new kernel needs one entry in ``CONTRACTS``: a kernel and the formula κ(a, b) of two points, lists of floats.
"""

import dataclasses
import math
import re
from inspect import isabstract
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import TypeAdapter

from kdprompt.theory import kernels
from kdprompt.theory.kernels import (
    KERNELS,
    Cosine,
    Gaussian,
    JointKernel,
    Kernel,
    Laplace,
    Linear,
    Matern,
    Polynomial,
    RationalQuadratic,
    Scaled,
)
from kdprompt.theory.point_pairs import PointPairs


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def distance(a, b):
    return math.sqrt(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)))


def cosine(a, b):
    norms = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    return dot(a, b) / norms if norms > 0 else 0.0


def matern_five_halves(s):
    return (1 + math.sqrt(5) * s + 5 * s * s / 3) * math.exp(-math.sqrt(5) * s)


CONTRACTS = {
    "gaussian": (Gaussian(0.5), lambda a, b: math.exp(-(distance(a, b) ** 2) / (2 * 0.5))),
    "laplace": (Laplace(0.7), lambda a, b: math.exp(-distance(a, b) / 0.7)),
    "matern_rough": (Matern(0.5, 0.7), lambda a, b: math.exp(-distance(a, b) / 0.7)),
    "matern_once_differentiable": (
        Matern(1.5, 0.7),
        lambda a, b: (1 + math.sqrt(3) * distance(a, b) / 0.7) * math.exp(-math.sqrt(3) * distance(a, b) / 0.7),
    ),
    "matern_twice_differentiable": (Matern(2.5, 0.7), lambda a, b: matern_five_halves(distance(a, b) / 0.7)),
    "rational_quadratic": (
        RationalQuadratic(0.8, 1.5),
        lambda a, b: (1 + distance(a, b) ** 2 / (2 * 1.5 * 0.8)) ** -1.5,
    ),
    "linear": (Linear(), dot),
    "cosine": (Cosine(), cosine),
    "polynomial": (Polynomial(3, 0.5), lambda a, b: (dot(a, b) + 0.5) ** 3),
    "homogeneous": (Polynomial(2, 0.0), lambda a, b: dot(a, b) ** 2),
    "sum": (Laplace(2.0) + Linear(), lambda a, b: math.exp(-distance(a, b) / 2) + dot(a, b)),
    "product": (
        Gaussian(2.0) * Polynomial(2, 1.0),
        lambda a, b: math.exp(-(distance(a, b) ** 2) / 4) * (dot(a, b) + 1) ** 2,
    ),
    "scaled": (Cosine() * 0.3, lambda a, b: 0.3 * cosine(a, b)),
    "nested": (
        (2 * Linear() + Cosine() * Gaussian(1.0)) * Laplace(1.0),
        lambda a, b: (2 * dot(a, b) + cosine(a, b) * math.exp(-(distance(a, b) ** 2) / 2)) * math.exp(-distance(a, b)),
    ),
    "joint": (
        JointKernel(Gaussian(0.5), input_width=1, output_share=0.3),
        lambda a, b: math.exp(-((a[0] - b[0]) ** 2) / (2 * 0.5)) * (0.7 + 0.3 * dot(a[1:], b[1:])),
    ),
}
every_kernel = pytest.mark.parametrize(("kernel", "textbook"), CONTRACTS.values(), ids=CONTRACTS)
some_samples = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def samples(draw):
    """Two samples of up to five points on a grid: zeros and coinciding points occur, rounding of inputs does not."""
    d = draw(st.integers(1, 4))
    grid = st.integers(-16, 16).map(lambda i: i / 8)
    return tuple(draw(arrays(np.float64, (draw(st.integers(1, 5)), d), elements=grid)) for _ in range(2))


def tensor(points, device, dtype):
    return torch.as_tensor(points, device=device, dtype=dtype)


def assert_close(actual, expected, dtype):
    rtol, atol = (1e-4, 2e-5) if dtype is torch.float32 else (1e-10, 1e-12)
    np.testing.assert_allclose(actual.cpu().double().numpy(), expected, rtol=rtol, atol=atol)


# -- the list of kernels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_class", KERNELS, ids=lambda kernel_class: kernel_class.__name__)
def test_every_kernel_has_a_contract(kernel_class):
    tested = {type(kernel) for kernel, _ in CONTRACTS.values()}
    assert kernel_class in tested, f"give {kernel_class.__name__} an entry in CONTRACTS"


def test_every_kernel_is_listed():
    classes = [value for value in vars(kernels).values() if isinstance(value, type) and issubclass(value, Kernel)]
    concrete = {kernel_class for kernel_class in classes if not isabstract(kernel_class)}
    assert concrete == set(KERNELS) and len(KERNELS) == len(concrete)
    assert {kernel_class.__name__ for kernel_class in concrete} <= set(kernels.__all__)


@every_kernel
def test_every_kernel_is_stored_by_its_kind(kernel, textbook):
    stored = TypeAdapter(Kernel)
    assert stored.validate_json(stored.dump_json(kernel, warnings="error")) == kernel


def test_every_kernel_has_a_kind_of_its_own():
    kinds = []
    for kernel_class in KERNELS:
        last = dataclasses.fields(kernel_class)[-1]
        assert last.name == "kind", f"kind must be the last field of {kernel_class.__name__}"
        assert last.type == Literal[last.default], f"kind of {kernel_class.__name__} must be a Literal of its default"
        kinds.append(last.default)
    assert len(set(kinds)) == len(kinds)


# -- the laws -------------------------------------------------------------------------------------------------------


@every_kernel
def test_frozen_hashable_and_equal_to_its_copy(kernel, textbook):
    copy = dataclasses.replace(kernel)
    assert copy is not kernel and copy == kernel and hash(copy) == hash(kernel)
    for field in dataclasses.fields(kernel):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kernel, field.name, getattr(kernel, field.name))


def test_kernels_of_different_contracts_differ():
    assert len({kernel for kernel, _ in CONTRACTS.values()}) == len(CONTRACTS)


@every_kernel
@some_samples
@given(pair=samples())
def test_gram_equals_the_naive_double_loop(kernel, textbook, pair, device, dtype):
    x, y = pair
    expected = [[textbook(a, b) for b in y] for a in x]
    gram = kernel(tensor(x, device, dtype), tensor(y, device, dtype))
    assert gram.dtype is dtype
    assert_close(gram, expected, dtype)


@every_kernel
@some_samples
@given(pair=samples())
def test_pairs_with_inner_products_at_hand_give_the_gram_matrix(kernel, textbook, pair, device, dtype):
    x, y = (tensor(points, device, dtype) for points in pair)
    between, among = PointPairs(x, y), PointPairs(x, x)
    assert_close(kernel.of_pairs(between), [[textbook(a, b) for b in pair[1]] for a in pair[0]], dtype)
    assert_close(kernel.of_pairs(among), [[textbook(a, b) for b in pair[0]] for a in pair[0]], dtype)
    known = between.with_known(inner=x @ y.T, x_norms=among.x_norms)
    assert_close(kernel.of_pairs(known), kernel(x, y).cpu(), dtype)


def test_what_is_at_hand_is_not_computed_again():
    x, y = torch.eye(3), torch.ones(2, 3)
    planted = PointPairs(x, y).with_known(inner=torch.full((3, 2), 0.5))
    assert planted.inner.unique().tolist() == [0.5]
    assert Linear().of_pairs(planted).unique().tolist() == [0.5]
    assert planted.squared_distances().unique().tolist() == [3.0]  # 1 + 3 − 2 · 0.5


@every_kernel
@some_samples
@given(pair=samples())
def test_diagonal_is_that_of_the_gram_matrix(kernel, textbook, pair, device, dtype):
    points = tensor(pair[0], device, dtype)
    assert_close(kernel.diagonal(points), [textbook(a, a) for a in pair[0]], dtype)
    assert_close(kernel.diagonal(points), kernel(points, points).diagonal().cpu(), dtype)


@every_kernel
@some_samples
@given(pair=samples())
def test_symmetric(kernel, textbook, pair, device, dtype):
    x, y = (tensor(points, device, dtype) for points in pair)
    assert_close(kernel(x, y), kernel(y, x).T.cpu(), dtype)


@every_kernel
@pytest.mark.parametrize("seed", range(5))
def test_positive_semi_definite(kernel, textbook, seed, device, dtype):
    points = np.random.default_rng(seed).normal(size=(20, 3))
    points[10:15] = points[:5]  # rank-deficient: some eigenvalues are exactly zero
    x = tensor(points, device, dtype)
    eigenvalues = np.linalg.eigvalsh(kernel(x, x).cpu().double().numpy())
    assert eigenvalues[-1] > 0
    assert eigenvalues[0] >= -100 * torch.finfo(dtype).eps * eigenvalues[-1]


@every_kernel
def test_batch_equals_loop_with_broadcast_leading_dimensions(kernel, textbook, device, dtype):
    rng = np.random.default_rng(0)
    x, y = tensor(rng.normal(size=(2, 1, 4, 3)), device, dtype), tensor(rng.normal(size=(3, 5, 3)), device, dtype)
    gram = kernel(x, y)
    assert gram.shape == (2, 3, 4, 5)
    for i in range(2):
        for j in range(3):
            assert_close(gram[i, j], kernel(x[i, 0], y[j]).cpu(), dtype)
        assert_close(kernel.diagonal(x)[i, 0], kernel.diagonal(x[i, 0]).cpu(), dtype)


@every_kernel
@some_samples
@given(pair=samples())
def test_sums_products_and_multiples_are_those_of_the_gram_matrices(kernel, textbook, pair, device, dtype):
    x, y = (tensor(points, device, dtype) for points in pair)
    other = Polynomial(2, 0.5)
    for composed, combine in (
        (kernel + other, lambda a, b: a + b),
        (kernel * other, lambda a, b: a * b),
        (0.3 * kernel, lambda a, b: 0.3 * a),
        (kernel * 0.3, lambda a, b: 0.3 * a),
    ):
        assert_close(composed(x, y), combine(kernel(x, y), other(x, y)).cpu(), dtype)
        assert_close(composed.diagonal(x), combine(kernel.diagonal(x), other.diagonal(x)).cpu(), dtype)


@every_kernel
@pytest.mark.parametrize("apart", [0.0, 1e-6, 1.0, 1e6])
def test_gradients_are_finite_at_coincident_and_at_far_points(kernel, textbook, apart, device, dtype):
    x = tensor([[0.5, -1.0, 0.25], [0.5, -1.0, 0.25]], device, dtype)
    x[1] += apart
    y = x.clone().requires_grad_()
    kernel(x.requires_grad_(), y).sum().backward()
    assert x.grad.isfinite().all() and y.grad.isfinite().all()


# -- single kernels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_gaussian_on_unit_vectors_is_softmax_attention(temperature, device, dtype):
    points = np.random.default_rng(1).normal(size=(9, 16))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    x = tensor(points, device, dtype)
    expected = [[math.exp((dot(a, b) - 1) / temperature) for b in points] for a in points]
    np.testing.assert_allclose(
        Gaussian(temperature)(x, x).cpu().double().numpy(), expected, atol=1e-4 if dtype is torch.float32 else 1e-12
    )


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("apart", [1e12, 1e19])
def test_matern_of_points_whose_squared_distance_leaves_the_dtype_is_zero(smoothness, apart, device, dtype):
    x = torch.tensor([[0.0]], device=device, dtype=dtype, requires_grad=True)
    gram = Matern(smoothness)(x, torch.tensor([[apart]], device=device, dtype=dtype))
    gram.sum().backward()
    assert gram.item() == 0 and x.grad.item() == 0


@pytest.mark.parametrize("smoothness", [1.5, 2.5])
def test_matern_has_the_gradient_of_its_formula(smoothness, device):
    x, y = (torch.randn(4, 3, dtype=torch.float64, device=device, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(Matern(smoothness, 0.8), (x, y))


@pytest.mark.parametrize("size", [1e-25, 1e-3, 1e25])
def test_cosine_ignores_length_even_where_its_square_leaves_the_dtype(size, device, dtype):
    x = torch.tensor([[3.0, 4.0]], device=device, dtype=dtype)
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0]], device=device, dtype=dtype)
    np.testing.assert_allclose(Cosine()(x * size, y).cpu(), [[0.6, 0.0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (Gaussian, 0.0),
        (Gaussian, -1.5),
        (Gaussian, math.nan),
        (Laplace, 0.0),
        (Laplace, -0.25),
        (lambda value: Matern(smoothness=value), 1.0),
        (lambda value: Matern(smoothness=value), math.inf),
        (lambda value: Matern(length_scale=value), 0.0),
        (lambda value: Matern(length_scale=value), math.nan),
        (RationalQuadratic, -2.0),
        (lambda value: RationalQuadratic(1.0, value), 0.0),
        (Polynomial, 0),
        (Polynomial, 2.5),
        (lambda value: Polynomial(2, value), -0.1),
        (lambda value: Polynomial(2, value), math.nan),
        (lambda value: Scaled(Linear(), value), 0.0),
        (lambda value: Linear() * value, -3.0),
        (lambda value: value * Linear(), math.nan),
    ],
)
def test_invalid_parameters_raise_with_the_value(make, value):
    with pytest.raises(ValueError, match=f"got {re.escape(str(value))}"):
        make(value)


def test_a_polynomial_of_degree_1_is_the_smallest_and_is_allowed():
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    kernel = Polynomial(degree=1)
    assert kernel(x, y).shape == (1, 1) and kernel.degree == 1
