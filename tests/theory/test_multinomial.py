"""The multinomial regression against autograd on the naive likelihood, and outputs that cannot occur."""

import math

import pytest
import torch

from kdprompt.theory.multinomial import fit_multinomial

N, C = 400, 4


def cases(seed, barred):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(N, C, 2, generator=generator, dtype=torch.float64)
    possible = torch.rand(N, C, generator=generator) > (0.3 if barred else -1)
    possible[torch.arange(N), torch.randint(C, (N,), generator=generator)] = True
    scores = (features @ torch.tensor([1.5, 0.4], dtype=torch.float64)).masked_fill(~possible, -math.inf)
    answers = torch.multinomial(scores.softmax(-1), 1, generator=generator).squeeze(-1)
    return features, torch.nn.functional.one_hot(answers, C).double(), possible


@pytest.mark.parametrize("barred", [False, True], ids=["all can occur", "some cannot"])
@pytest.mark.parametrize("ridge", [0.5, math.inf])
def test_the_naive_likelihood_has_no_slope_at_the_fit(ridge, barred):
    features, target, possible = cases(0, barred)
    fit = fit_multinomial(features, target, lowest=(None, None), ridge=ridge, possible=possible)
    constants, bias = fit.constants.clone().requires_grad_(), fit.bias.clone().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(N):
        total = sum((features[i, c] @ constants + bias[c]).exp() for c in range(C) if possible[i, c])
        true = int(target[i].argmax())
        loss = loss - ((features[i, true] @ constants + bias[true]) - total.log()) / N
    if math.isfinite(ridge):
        loss = loss + ridge / N * bias.square().sum()
    slope = torch.autograd.grad(loss, [constants, bias] if math.isfinite(ridge) else [constants])
    assert torch.cat(slope).abs().max() < 1e-5


def test_planted_constants_are_found_where_outputs_are_barred():
    features, target, possible = cases(1, barred=True)
    fit = fit_multinomial(features, target, lowest=(0.0, 0.0), ridge=math.inf, possible=possible)
    assert fit.constants.tolist() == pytest.approx([1.5, 0.4], abs=0.25)
    log_probs = fit.log_probs(features, possible)
    assert bool((log_probs.isinf() == ~possible).all())
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(N, dtype=torch.float64))


def with_noise(share, n=4000, seed=2):
    """Cases of which a share has an output drawn from the possible ones."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, C, 2, generator=generator, dtype=torch.float64)
    possible = torch.rand(n, C, generator=generator) > 0.3
    possible[torch.arange(n), torch.randint(C, (n,), generator=generator)] = True
    scores = (features @ torch.tensor([3.0, 1.0], dtype=torch.float64)).masked_fill(~possible, -math.inf)
    right = torch.multinomial(scores.softmax(-1), 1, generator=generator).squeeze(-1)
    drawn = torch.multinomial(possible.double(), 1, generator=generator).squeeze(-1)
    shown = torch.where(torch.rand(n, generator=generator) < share, drawn, right)
    return features, torch.nn.functional.one_hot(shown, C).double(), possible


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_planted_noise_is_found_with_the_constants_of_the_rest(share):
    features, target, possible = with_noise(share)
    fit = fit_multinomial(features, target, (0.0, 0.0), math.inf, possible, noise_prior=2.0)
    assert fit.noise == pytest.approx(share, abs=0.06)
    assert fit.constants.tolist() == pytest.approx([3.0, 1.0], rel=0.25)
    assert fit_multinomial(features, target, (0.0, 0.0), math.inf, possible).constants[0] < 2.6  # it was needed


@pytest.mark.parametrize("prior", [0.0, 5.0])
def test_the_naive_likelihood_with_noise_has_no_slope_at_the_fit(prior):
    features, target, possible = with_noise(0.3, n=300)
    fit = fit_multinomial(features, target, (None, None), math.inf, possible, noise_prior=prior)
    constants, noise = fit.constants.clone().requires_grad_(), torch.tensor(fit.noise).double().requires_grad_()
    loss = -prior * (1 - noise).log() / 300
    for i in range(300):
        total = sum((features[i, c] @ constants).exp() for c in range(C) if possible[i, c])
        sure = (features[i, int(target[i].argmax())] @ constants).exp() / total
        loss = loss - ((1 - noise) * sure + noise / int(possible[i].sum())).log() / 300
    assert 0 < fit.noise < 0.9
    for slope in torch.autograd.grad(loss, [noise, constants]):
        assert slope.abs().max() < 1e-5
    assert fit.loss == pytest.approx(loss.item(), abs=1e-10)


def test_noise_must_be_worth_its_prior():
    features, target, possible = with_noise(0.02, n=200)
    without = fit_multinomial(features, target, (0.0, 0.0), math.inf, possible)
    fit = fit_multinomial(features, target, (0.0, 0.0), math.inf, possible, noise_prior=1000.0)
    assert fit.noise == 0 and fit.loss == pytest.approx(without.loss, abs=1e-12)
    torch.testing.assert_close(fit.constants, without.constants)
