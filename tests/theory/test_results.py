"""R1 to R8, each against autograd, explicit features, Monte Carlo or brute force."""

import itertools
import math

import numpy as np
import pytest
import torch

from kdprompt.theory import results as theory
from kdprompt.theory.kernels import Linear, Polynomial
from kdprompt.theory.samples import JointSample

DOUBLE = torch.float64


def problem(seed: int, *, k: int = 5, d: int = 3, c: int = 2, batch=()):
    g = torch.Generator().manual_seed(seed)
    x, v = torch.randn(*batch, k, d, generator=g, dtype=DOUBLE), torch.randn(*batch, k, c, generator=g, dtype=DOUBLE)
    w = torch.rand(*batch, k, generator=g, dtype=DOUBLE)
    return x, v, w / w.sum(-1, keepdim=True)


def squares(x: torch.Tensor) -> torch.Tensor:
    """Explicit features of (⟨x, y⟩ + 1)²: products of all pairs of coordinates of (x, 1)."""
    one = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    return (one[..., :, None] * one[..., None, :]).flatten(-2)


FEATURES = {"linear": (Linear(), lambda x: x), "polynomial": (Polynomial(degree=2, offset=1.0), squares)}
each_kernel = pytest.mark.parametrize("name", FEATURES)


# -- R1, R2 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_r1_the_distilled_weights_are_one_gradient_step(seed):
    x, v, w = problem(seed)
    start = torch.zeros(v.shape[-1], x.shape[-1], dtype=DOUBLE, requires_grad=True)
    loss = (w * (v - x @ start.T).square().sum(-1)).sum() / 2
    (gradient,) = torch.autograd.grad(loss, start)
    assert torch.allclose(theory.distilled_weights(w, v, x), -gradient, rtol=0, atol=1e-10)


@each_kernel
@pytest.mark.parametrize("seed", range(10))
def test_r2_bias_is_the_distance_of_the_distilled_weights(name, seed):
    kernel, phi = FEATURES[name]
    (x, v, w), (q, y, u) = problem(seed, batch=(4,)), problem(seed + 100, k=7, batch=(4,))
    apart = theory.distilled_weights(w, v, phi(x)) - theory.distilled_weights(u, y, phi(q))
    bias = theory.bias(kernel, JointSample(x, v, w), JointSample(q, y, u))
    assert torch.allclose(bias, torch.linalg.matrix_norm(apart), rtol=1e-10, atol=1e-10)
    # The read-outs of both models at any point differ by no more than √κ(q, q) times that.
    at = torch.randn(4, 20, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    shift = (phi(at) @ apart.transpose(-1, -2)).norm(dim=-1)
    assert bool((shift <= theory.read_out_shift(bias[:, None], kernel.diagonal(at)) * (1 + 1e-12)).all())


def test_r2_samples_of_different_widths_raise_with_the_widths():
    x, v, _ = problem(0, d=3, c=2)
    with pytest.raises(ValueError, match=r"the same widths d and c, got \(3, 2\) and \(2, 3\)"):
        theory.bias(Linear(), JointSample(x, v), JointSample(v, x))


@each_kernel
def test_r2_lifted_values_obey_the_operator_norm(name):
    kernel, phi = FEATURES[name]
    for seed in range(10):
        (x, _, w), (q, _, u) = problem(seed), problem(seed + 50, k=4)
        a = torch.randn(2, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
        apart = theory.distilled_weights(w, x @ a.T, phi(x)) - theory.distilled_weights(u, q @ a.T, phi(q))
        bound = torch.linalg.matrix_norm(a, 2) * theory.bias(kernel, JointSample(x, x, w), JointSample(q, q, u))
        assert torch.linalg.matrix_norm(apart) <= bound * (1 + 1e-12)


@each_kernel
@pytest.mark.parametrize("normalised", [False, True])
def test_read_out_is_that_of_the_distilled_weights(name, normalised):
    kernel, phi = FEATURES[name]
    x, v, w = problem(3, batch=(2,))
    q = torch.randn(2, 6, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    attention = kernel(x, q)
    plain = phi(q) @ theory.distilled_weights(w, v, phi(x)).transpose(-1, -2)
    expected = plain / (w[..., None] * attention).sum(-2)[..., None] if normalised else plain
    usable = (w[..., None] * attention).sum(-2) > 0
    read_out = theory.read_out(w, v, attention, normalised=normalised)
    assert torch.allclose(read_out[usable], expected[usable], rtol=1e-9, atol=1e-12)
    nothing = theory.read_out(w, v, torch.zeros_like(attention))
    assert nothing.abs().max() == 0


def test_softmax_attention_is_the_normalised_read_out():
    """Unit-norm keys: softmax(⟨k, q⟩/t) over the demonstrations, log-weights added, is f̄_D."""
    x, v, w = problem(7)
    keys = torch.nn.functional.normalize(x, dim=-1)
    q = torch.nn.functional.normalize(torch.randn(4, 3, dtype=DOUBLE), dim=-1)
    t = 0.3
    softmax = (q @ keys.T / t + w.log()).softmax(-1) @ v
    assert torch.allclose(theory.read_out(w, v, ((keys @ q.T - 1) / t).exp()), softmax, atol=1e-12)


# -- R3 to R5 -----------------------------------------------------------------------------------------------------


def test_r3_is_above_the_rademacher_average_on_200_problems_and_within_three_of_it_at_the_median():
    rng, ratios = np.random.default_rng(0), []
    for _ in range(200):
        n, c, p, radius = rng.integers(2, 30), rng.integers(1, 5), rng.integers(1, 8), rng.uniform(0.5, 3)
        phi, w = rng.normal(size=(n, p)), rng.dirichlet(np.ones(n))
        signs = rng.choice([-1.0, 1.0], size=(2000, n, c))
        sums = np.einsum("sic,i,ip->scp", signs, w, phi)
        norms = radius * np.sqrt((sums**2).sum((1, 2)))
        diagonal = torch.as_tensor((phi**2).sum(1))
        bound = float(theory.complexity(torch.as_tensor(w), diagonal, radius, int(c)))
        assert bound >= norms.mean() - 3 * norms.std() / math.sqrt(len(norms))  # the average is itself estimated
        ratios.append(bound / norms.mean())
    assert np.median(ratios) < 3


def test_r4_fails_in_at_most_delta_of_2000_draws():
    """Linear read-outs of W_D on demonstrations drawn afresh, absolute loss clipped to [0, 1]; risk by a sample."""
    rng, delta, n, failures = np.random.default_rng(0), 0.05, 12, 0
    x = rng.normal(size=(100_000, 2))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1)
    y = np.sign(x[:, 0] + 0.3 * rng.normal(size=len(x)))
    for _ in range(2000):
        rows = rng.integers(len(x), size=n)
        w = np.full(n, 1 / n)
        model = (w * y[rows]) @ x[rows]
        sample = np.minimum(np.abs(y[rows] - x[rows] @ model), 1)
        rest = rng.integers(len(x), size=2000)
        risk = np.minimum(np.abs(y[rest] - x[rest] @ model), 1).mean()
        radius = 1.0  # max|v| κ_max^½
        rademacher = theory.complexity(torch.as_tensor(w), torch.as_tensor((x[rows] ** 2).sum(1)), radius, 1)
        bound = theory.generalisation_bound(
            torch.tensor((w * sample).sum()), rademacher, torch.as_tensor(w), selected=False, delta=delta
        )
        assert bound.kind == "certificate"
        failures += risk > float(bound.value)
    assert failures <= delta * 2000
    chosen = theory.generalisation_bound(torch.tensor(0.0), rademacher, torch.as_tensor(w), selected=True)
    assert chosen.kind == "regulariser" and "selected" in chosen.premise


def test_r5_fails_in_at_most_delta_of_2000_draws():
    rng, delta, m, failures = np.random.default_rng(1), 0.05, 40, 0
    x, q = rng.normal(size=(6, 2)), rng.normal(size=(4000, 2)) + 0.5

    def gram(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 2)

    dd, dq, qq = gram(x, x).mean(), gram(x, q).mean(0), gram(q, q)
    exact = math.sqrt(dd - 2 * dq.mean() + qq.mean())
    bound = theory.query_sample_error(1.0, m, delta=delta)
    for _ in range(2000):
        rows = rng.integers(len(q), size=m)
        sampled = math.sqrt(max(dd - 2 * dq[rows].mean() + qq[np.ix_(rows, rows)].mean(), 0))
        failures += abs(sampled - exact) > bound
    assert failures <= delta * 2000


# -- R6 -----------------------------------------------------------------------------------------------------------


def test_r6_is_never_violated_on_10_000_random_inputs_and_splits_by_task():
    g = torch.Generator().manual_seed(0)
    k, m, c, b = 6, 2, 3, 5000
    w = torch.rand(b, k, generator=g, dtype=DOUBLE)
    w = w / w.sum(-1, keepdim=True)
    v, truth = torch.randn(b, k, c, generator=g, dtype=DOUBLE), torch.randn(b, m, c, generator=g, dtype=DOUBLE)
    attention = torch.rand(b, k, m, generator=g, dtype=DOUBLE).pow(4)
    conflict = (v[:, :, None] - truth[:, None]).norm(dim=-1)
    split = theory.interference(w, attention, conflict)
    missed = (theory.read_out(w, v, attention) - truth).norm(dim=-1)
    assert bool((missed <= split.sum(1) * (1 + 1e-12)).all()) and missed.numel() == 10_000
    task = torch.randint(3, (b, k), generator=g)
    by_task = theory.interference_by_task(split, task, 3)
    for code in range(3):
        assert torch.allclose(by_task[:, code], (split * (task == code)[..., None]).sum(1))


# -- R7, R8 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(3))
def test_r7_equals_brute_force_over_all_pairs_of_orders(k, seed):
    x, v, _ = problem(seed, k=k)
    gram = (x @ x.T) * (v @ v.T)
    profile = torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    profile = profile / profile.sum()
    distances = []
    for one, other in itertools.product(itertools.permutations(range(k)), repeat=2):
        shift = theory.distilled_weights(profile[list(one)], v, x) - theory.distilled_weights(
            profile[list(other)], v, x
        )
        distances.append(float(shift.norm()))
    sensitivity = theory.order_sensitivity(gram, profile)
    assert float(sensitivity.rms) == pytest.approx(math.sqrt(np.mean(np.square(distances))), rel=1e-10, abs=1e-10)
    assert float(sensitivity.largest) == pytest.approx(max(distances), rel=1e-7, abs=1e-7)


def test_r7_needs_no_enumeration_for_long_prompts_and_is_zero_for_a_uniform_profile():
    x, v, _ = problem(0, k=30)
    gram = (x @ x.T) * (v @ v.T)
    omega = torch.linspace(1, 3, 30, dtype=DOUBLE)
    sensitivity = theory.order_sensitivity(gram, omega / omega.sum())
    rng, sampled = np.random.default_rng(0), []
    for _ in range(4000):
        a, b = (omega / omega.sum())[rng.permutation(30)], (omega / omega.sum())[rng.permutation(30)]
        sampled.append(float((a - b) @ gram @ (a - b)))
    assert sensitivity.largest is None and float(sensitivity.rms) == pytest.approx(
        math.sqrt(np.mean(sampled)), rel=0.05
    )
    assert float(theory.order_sensitivity(gram, torch.full((30,), 1 / 30, dtype=DOUBLE)).rms) < 1e-7


def test_r8_adds_up_and_says_what_it_is():
    w = torch.tensor([0.5, 0.5], dtype=DOUBLE)
    terms = [torch.tensor(value, dtype=DOUBLE) for value in (0.3, 0.2, 0.4)]
    bound = theory.risk_bound(*terms, w, kernel_max=4.0, lipschitz=0.5, delta=2 * math.exp(-2))
    gap = 2 * math.sqrt(2) * 0.5 * 0.2 + 3 * math.sqrt(2 * 0.5 / 2)
    assert float(bound.value) == pytest.approx(0.5 * (2 * 0.3 + 0.4) + gap) and bound.kind == "regulariser"


# -- all of them --------------------------------------------------------------------------------------------------


def test_everything_is_differentiable_and_batched():
    x, v, w = problem(5, batch=(2, 3))
    q = torch.randn(2, 3, 4, 3, dtype=DOUBLE)
    y = torch.randn(2, 3, 4, 2, dtype=DOUBLE)
    inputs = [t.clone().requires_grad_() for t in (x, v, w)]

    def everything(x, v, w):
        kernel = Polynomial(degree=2, offset=1.0)
        attention = kernel(x, q)
        shift = theory.bias(kernel, JointSample(x, v, w), JointSample(q, y))
        rademacher = theory.complexity(w, kernel.diagonal(x), 1.0, 2)
        conflict = (v[..., :, None, :] - y[..., None, :, :]).norm(dim=-1)
        pulled = theory.interference(w, attention, conflict).sum(-2).mean(-1)
        order = theory.order_sensitivity(
            (x @ x.transpose(-1, -2)).square(), torch.tensor([0.1, 0.1, 0.2, 0.2, 0.4], dtype=DOUBLE)
        )
        return (
            theory.risk_bound(shift, rademacher, pulled, w).value
            + order.rms
            + theory.read_out(w, v, attention).sum((-1, -2))
        )

    assert everything(*inputs).shape == (2, 3)
    assert torch.autograd.gradcheck(everything, inputs, atol=1e-5)
