"""Fits R9's constants of a reader to its answers: a multinomial logistic regression of what it says on what it saw.

Log-probabilities enter as shares of an answer, answers without them as a share of 1, so that one convex fit serves
both. What is left over is reported on answers that the fit did not see.

Rejected: least squares on log-probabilities, in which outputs that nobody would answer weigh as much as the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.theory.multinomial import fit_multinomial

__all__ = ["ProfileFit", "ReaderAnswers", "fit_constants"]

RIDGE = 0.5  # on the leaning b: outputs that are hardly ever answered keep none


@dataclass(frozen=True)
class ReaderAnswers:
    """What a reader saw and answered, ``n`` times, among ``c`` outputs.

    Attributes:
        log_probs: Log-probabilities of the outputs ``[n, c]``; of a reader that gives none, 0 for the answer and −∞.
        own: ℓ₀, what it answers without the pool's help, in nats ``[n, c]``.
        shown: ḡ, the position weights of each output's demonstrations, summed ``[n, c]``.
        last: 1 for the output of the last demonstration ``[n, c]``.
    """

    log_probs: Tensor
    own: Tensor
    shown: Tensor
    last: Tensor

    def __len__(self) -> int:
        return len(self.log_probs)

    def take(self, rows: Tensor) -> "ReaderAnswers":
        """The answers at some rows."""
        return ReaderAnswers(**{name: value[rows] for name, value in vars(self).items()})


@dataclass(frozen=True)
class ProfileFit:
    """The constants of R9.

    Attributes:
        knowledge_weight: γ ≥ 0.
        follow: τ ≥ 0.
        recency: ρ.
        bias: b of each output ``[c]``, mean 0.
    """

    knowledge_weight: float
    follow: float
    recency: float
    bias: Tensor

    def predict(self, answers: ReaderAnswers) -> Tensor:
        """Log softmax ℓ, what the reader was expected to answer ``[n, c]``."""
        constants = torch.tensor([self.knowledge_weight, self.follow, self.recency], dtype=torch.float64)
        return (_features(answers) @ constants + self.bias).log_softmax(-1)

    def explained(self, answers: ReaderAnswers) -> float:
        """R²: the share of the variance of log-probabilities that the form explains, at most 1; below 0 it misleads.

        Log-probabilities are compared up to a constant in the output, and the variance is that around each output's
        mean. NaN for a reader that gives no probabilities.
        """
        if not bool(answers.log_probs.isfinite().all()):
            return float("nan")
        actual, expected = (_centre(values.double()) for values in (answers.log_probs, self.predict(answers)))
        return float(1 - (actual - expected).square().sum() / (actual - actual.mean(0)).square().sum())


def fit_constants(answers: ReaderAnswers) -> ProfileFit:
    """Fits γ, τ, ρ and b by maximum likelihood, γ and τ not below 0.

    Args:
        answers: At least one, of at least two outputs.

    Returns:
        The constants; those on which the answers say nothing are 0.
    """
    target = answers.log_probs.double().softmax(-1)
    fit = fit_multinomial(_features(answers), target, lowest=(0.0, 0.0, None), ridge=RIDGE)
    knowledge_weight, follow, recency = fit.constants.tolist()
    return ProfileFit(knowledge_weight, follow, recency, fit.bias)


def _features(answers: ReaderAnswers) -> Tensor:
    """ℓ₀, ḡ and the last output, side by side, float64 on the CPU ``[n, c, 3]``."""
    return torch.stack([answers.own, answers.shown, answers.last], -1).cpu().double()


def _centre(log_probs: Tensor) -> Tensor:
    return log_probs - log_probs.mean(-1, keepdim=True)
