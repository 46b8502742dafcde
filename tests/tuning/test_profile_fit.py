"""R9's constants are found again in the answers of simulated readers; the fit is at the optimum of its likelihood."""

import numpy as np
import pytest
import torch

from kdprompt.tuning.profile_fit import ReaderAnswers, fit_constants

PLANTED = {"knowledge_weight": 0.7, "follow": 4.2, "recency": 1.3}
BIAS = {2: [0.5, -0.5], 5: [0.6, -0.2, 0.3, -0.9, 0.2]}


def simulate(seed, labels, *, n=600, noise=0.0, certain=False):
    """What a reader with the planted constants answers to random prompts of eight."""
    rng = np.random.default_rng(seed)
    shown = rng.multinomial(8, rng.dirichlet(np.ones(labels), size=n)) / 8
    last = np.eye(labels)[[rng.choice(labels, p=row) for row in shown]]
    own = np.log(rng.dirichlet(np.ones(labels), size=n) + 1e-3)
    constants = list(PLANTED.values())
    logits = constants[0] * own + constants[1] * shown + constants[2] * last + BIAS[labels]
    logits = logits + noise * rng.normal(size=logits.shape)
    log_probs = torch.tensor(logits).log_softmax(-1)
    if certain:  # no probabilities: one answer, drawn
        drawn = torch.multinomial(log_probs.exp(), 1, generator=torch.Generator().manual_seed(seed))
        log_probs = torch.full_like(log_probs, -torch.inf).scatter(1, drawn, 0.0)
    return ReaderAnswers(log_probs, torch.tensor(own), torch.tensor(shown), torch.tensor(last))


@pytest.mark.parametrize("labels", [2, 5])
def test_planted_constants_are_recovered_from_log_probabilities(labels):
    fit = fit_constants(simulate(0, labels))
    for name, value in PLANTED.items():
        assert getattr(fit, name) == pytest.approx(value, rel=0.1), name
    np.testing.assert_allclose(fit.bias, BIAS[labels], atol=0.1)
    assert fit.explained(simulate(1, labels)) > 0.98


@pytest.mark.parametrize("labels", [2, 5])
def test_noise_lowers_what_is_explained_and_hardly_the_constants(labels):
    fit = fit_constants(simulate(2, labels, n=4000, noise=0.7))
    assert fit.follow == pytest.approx(PLANTED["follow"], rel=0.15)
    assert 0.5 < fit.explained(simulate(3, labels, noise=0.7)) < 0.95


@pytest.mark.parametrize("labels", [2, 5])
def test_answers_without_probabilities_give_the_constants_too(labels):
    answers = simulate(4, labels, n=6000, certain=True)
    fit = fit_constants(answers)
    for name, value in PLANTED.items():
        assert getattr(fit, name) == pytest.approx(value, rel=0.15), name
    assert np.isnan(fit.explained(answers))


def test_a_reader_that_pays_no_attention_follows_nothing():
    answers = simulate(5, 2)
    deaf = ReaderAnswers((answers.own + torch.tensor([0.3, -0.3])).log_softmax(-1), *list(vars(answers).values())[1:])
    fit = fit_constants(deaf)
    assert fit.follow == pytest.approx(0, abs=0.05) and fit.recency == pytest.approx(0, abs=0.05)
    assert fit.knowledge_weight == pytest.approx(1, rel=0.05)


def test_a_contrary_reader_is_one_that_does_not_follow():
    answers = simulate(6, 2)
    contrary = ReaderAnswers((-3 * answers.shown).log_softmax(-1), *list(vars(answers).values())[1:])
    assert fit_constants(contrary).follow == 0.0


@pytest.mark.parametrize("labels", [2, 5])
def test_no_step_from_the_fit_is_likelier(labels):
    answers = simulate(7, labels, n=200, noise=0.5)
    fit = fit_constants(answers)
    target = answers.log_probs.exp()

    def penalised(knowledge_weight, follow, recency, bias):
        expected = (
            knowledge_weight * answers.own + follow * answers.shown + recency * answers.last + bias
        ).log_softmax(-1)
        return float(-(target * expected).sum(-1).mean() + 0.5 / len(answers) * bias.square().sum())

    found = penalised(fit.knowledge_weight, fit.follow, fit.recency, fit.bias)
    rng = np.random.default_rng(0)
    for _ in range(50):
        step = torch.tensor(rng.normal(scale=0.05, size=3 + labels))
        constants = (fit.knowledge_weight + step[0], fit.follow + step[1], fit.recency + step[2])
        assert penalised(*constants, fit.bias + step[3:]) >= found - 1e-7
