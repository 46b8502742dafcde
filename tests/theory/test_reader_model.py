"""R9 against its formula in float64 Python loops, and the statements that ``docs/theory.md`` proves of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprompt.theory.reader_model import (
    combine_knowledge,
    expected_log_loss,
    log_softmax_of_few,
    pool_evidence,
    reader_log_probs,
)

seeds = st.integers(0, 10_000)
some = settings(max_examples=60, deadline=None)


def softmax(values):
    top = max(values)
    mass = [math.exp(value - top) for value in values]
    return [value / sum(mass) for value in mass]


def problem(seed, labels=4):
    """A random query: shares near it and in the pool, own knowledge, leaning, and a prompt's shares and last output."""
    rng = np.random.default_rng(seed)
    shown = rng.multinomial(8, rng.dirichlet(np.ones(labels))) / 8
    last = np.eye(labels)[rng.choice(np.flatnonzero(shown))]
    return {
        "estimate": rng.dirichlet(np.ones(labels)),
        "prior": rng.dirichlet(5 * np.ones(labels)),
        "own": np.log(rng.dirichlet(np.ones(labels))),
        "bias": rng.normal(size=labels),
        "shown": shown,
        "last": last,
        "constants": rng.uniform([0, 0, -1], [2, 8, 2]),  # γ, τ, ρ
    }


def compute(case, device="cpu", dtype=torch.float64):
    """log π and log p of a problem, by the library."""
    t = {name: torch.as_tensor(value, device=device, dtype=dtype) for name, value in case.items()}
    knowledge, follow, recency = case["constants"].tolist()
    target = combine_knowledge(t["own"], pool_evidence(t["estimate"], t["prior"]), knowledge)
    return target, reader_log_probs(t["bias"] + knowledge * t["own"], t["shown"], t["last"], follow, recency)


@pytest.mark.parametrize("seed", range(20))
def test_both_distributions_are_those_of_the_formulas(seed, device, dtype):
    case = problem(seed)
    knowledge, follow, recency = case["constants"]
    target, answer = compute(case, device, dtype)
    known = zip(case["own"], case["estimate"], case["prior"], strict=True)
    pi = softmax([knowledge * o + math.log(e / p) for o, e, p in known])
    columns = zip(case["bias"], case["own"], case["shown"], case["last"], strict=True)
    p = softmax([b + knowledge * o + follow * g + recency * end for b, o, g, end in columns])
    tolerance = 1e-4 if dtype is torch.float32 else 1e-12
    np.testing.assert_allclose(target.exp().cpu(), pi, atol=tolerance)
    np.testing.assert_allclose(answer.exp().cpu(), p, atol=tolerance)
    expected = -sum(a * math.log(b) for a, b in zip(pi, p, strict=True))
    assert float(expected_log_loss(target, answer)) == pytest.approx(expected, rel=1e-3 if tolerance > 1e-6 else 1e-10)


@some
@given(seeds)
def test_the_loss_is_at_least_the_entropy_and_reaches_it_for_the_exact_evidence(seed):
    case = problem(seed)
    target, answer = compute(case)
    entropy = expected_log_loss(target, target)
    assert expected_log_loss(target, answer) >= entropy - 1e-12
    evidence = torch.as_tensor(np.log(case["estimate"]) - np.log(case["prior"]))
    knowledge = case["constants"][0]
    exact = reader_log_probs(knowledge * torch.as_tensor(case["own"]), evidence + 3.0, torch.zeros(4), 1.0, 0.0)
    assert float(expected_log_loss(target, exact)) == pytest.approx(float(entropy), abs=1e-10)


@some
@given(seeds)
def test_a_copying_reader_without_knowledge_loses_at_most_the_interference(seed):
    """For γ = b = ρ = 0 and equal priors, L/τ tends to max ḡ − Σ v̂ ḡ, which R6 bounds but does not equal."""
    rng = np.random.default_rng(seed)
    estimate, attention = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(6))
    values = np.eye(3)[rng.integers(3, size=6)]
    shown = attention @ values
    follow = 1e7
    target = combine_knowledge(torch.zeros(3), pool_evidence(torch.tensor(estimate), torch.full((3,), 1 / 3)), 0.0)
    answer = reader_log_probs(torch.zeros(3, dtype=torch.float64), torch.tensor(shown), torch.zeros(3), follow, 0.0)
    limit = float(expected_log_loss(target, answer)) / follow
    assert limit == pytest.approx(shown.max() - float(estimate @ shown), abs=1e-6)
    interference = sum(a * math.dist(v, estimate) for a, v in zip(attention, values, strict=True))
    assert limit <= interference + 1e-6


@pytest.mark.parametrize("follow", [3.3, 6.8])
def test_a_prompt_of_one_output_is_best_only_where_the_evidence_exceeds_what_the_reader_can_take(follow):
    """Two labels: the pool's log-odds against τ, at v̂ = σ(τ)."""
    border = 1 / (1 + math.exp(-follow))

    def best_share(estimate):
        evidence = pool_evidence(torch.tensor([estimate, 1 - estimate]), torch.tensor([0.5, 0.5]))
        target = combine_knowledge(torch.zeros(2), evidence, 1.0)
        share = torch.linspace(0, 1, 1001)
        shown = torch.stack([share, 1 - share], -1)
        answer = reader_log_probs(torch.zeros(2), shown, torch.zeros(2), follow, 0.0)
        return float(share[expected_log_loss(target, answer).argmin()])

    assert best_share(border + 0.3 * (1 - border)) == 1.0
    assert best_share(border - 0.3 * (1 - border)) < 1.0
    assert best_share(0.5) == pytest.approx(0.5)


def test_outputs_that_cannot_occur_are_never_answered_and_cost_nothing(device, dtype):
    estimate = torch.tensor([0.7, 0.3, 0.0], device=device, dtype=dtype, requires_grad=True)
    evidence = pool_evidence(estimate, torch.tensor([0.5, 0.5, 0.0], device=device, dtype=dtype))
    assert evidence.tolist()[2] == -math.inf
    target = combine_knowledge(torch.zeros_like(evidence), evidence, 1.0)
    base = torch.zeros_like(evidence).masked_fill(evidence.isinf(), -math.inf)
    answer = reader_log_probs(base, torch.zeros_like(base), torch.zeros_like(base), 3.0, 1.0)
    loss = expected_log_loss(target, answer)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    loss.backward()
    assert estimate.grad[:2].isfinite().all()


def test_the_loss_has_the_gradient_of_its_formula(device):
    case = {name: torch.as_tensor(value, device=device) for name, value in problem(3).items()}

    def loss(own, shown, follow):
        target = combine_knowledge(own, pool_evidence(case["estimate"], case["prior"]), 0.8)
        return expected_log_loss(target, reader_log_probs(case["bias"] + own, shown, case["last"], follow, 0.5))

    inputs = (case["own"], case["shown"], torch.tensor(2.0, dtype=torch.float64, device=device))
    assert torch.autograd.gradcheck(loss, tuple(value.clone().requires_grad_() for value in inputs))


def test_leading_dimensions_are_a_loop(device, dtype):
    cases = [problem(seed) for seed in range(5)]
    stacked = {name: np.stack([case[name] for case in cases]) for name in cases[0]}
    t = {name: torch.as_tensor(value, device=device, dtype=dtype) for name, value in stacked.items()}
    constants = t["constants"][:, :, None].unbind(1)
    target = combine_knowledge(t["own"], pool_evidence(t["estimate"], t["prior"]), constants[0])
    base = t["bias"] + constants[0] * t["own"]
    together = expected_log_loss(target, reader_log_probs(base, t["shown"], t["last"], *constants[1:]))
    alone = [float(expected_log_loss(*compute(case, device, dtype))) for case in cases]
    np.testing.assert_allclose(together.cpu(), alone, rtol=1e-4 if dtype is torch.float32 else 1e-12)


@pytest.mark.parametrize("outputs", [1, 2, 7, 15, 16, 40])
@pytest.mark.parametrize("leading", [(), (3,), (2, 5, 1)])
def test_the_softmax_of_few_outputs_is_that_of_torch(outputs, leading, device, dtype):
    logits = torch.randn(*leading, outputs, generator=torch.Generator().manual_seed(outputs)).to(device, dtype)
    logits[..., outputs // 2 + 1 :] = -torch.inf
    found, expected = log_softmax_of_few(logits), logits.log_softmax(-1)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=16 * torch.finfo(dtype).eps)


def test_where_no_output_can_occur_nothing_is_known():
    estimate, prior = torch.tensor([[0.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    evidence = pool_evidence(estimate, prior)
    assert evidence.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    target = combine_knowledge(torch.zeros(2, 2), evidence, 1.0)
    loss = expected_log_loss(target, reader_log_probs(evidence, torch.zeros(2, 2), torch.zeros(2, 2), 1.0, 0.5))
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
