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
