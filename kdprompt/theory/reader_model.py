r"""R9: a model of the language model that reads the prompt, and the loss of a prompt under it.

The reader is not empty. In log-probabilities of outputs y, up to a constant in y,

ℓ(y) = b_y + γ·ℓ₀(y) + τ·ḡ(y) + ρ·[the last demonstration has output y],   ḡ(y) = Σ ω_i ⟨v_i, e_y⟩.

ℓ₀ is what it answers without the pool's help. What the pool knows of the query is λ(y) = log v̂_y − log v̄_y, and both
together are π(y) ∝ exp(γ·ℓ₀(y) + λ(y)). A prompt should carry exactly the pool's evidence: b_y + τ·ḡ(y) + ρ·[last = y]
should be λ(y), up to a constant. Its loss is what the reader's answer loses under π, L = −Σ_y π(y) log softmax(ℓ)_y,
at least the entropy of π.

All functions are batched and differentiable; outputs lie along the last dimension.

Source: R9 of ``docs/theory.md``; arXiv 2212.10559 for the view that attention adds to a model's own answer.
"""

import torch
from torch import Tensor

__all__ = ["combine_knowledge", "expected_log_loss", "log_softmax_of_few", "pool_evidence", "reader_log_probs"]

NARROW = 16  # outputs, below which PyTorch takes one number at a time on a CPU


def pool_evidence(estimate: Tensor, prior: Tensor) -> Tensor:
    """R9: λ(y) = log v̂_y − log v̄_y, what the pool knows of a query beyond how common each output is.

    Args:
        estimate: v̂, shares of the outputs near the query, ``[..., c]``, ≥ 0.
        prior: v̄, shares of the outputs in the pool, ``[..., c]``, ≥ 0.

    Returns:
        Nats ``[..., c]``; −∞ where either is 0: such an output cannot occur. Zeros where none could: nothing is known.

    Example:
        >>> import torch
        >>> pool_evidence(torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5]))
        tensor([ 0.4700, -0.9163])
    """
    tiny = torch.finfo(estimate.dtype).tiny
    evidence = estimate.clamp_min(tiny).log() - prior.clamp_min(tiny).log()
    impossible = (prior <= 0) | (estimate <= 0)
    nothing = impossible.all(-1, keepdim=True)
    return evidence.masked_fill(impossible, -torch.inf).masked_fill(nothing, 0.0)


def combine_knowledge(own: Tensor, evidence: Tensor, knowledge_weight: float | Tensor) -> Tensor:
    """R9: log π(y) for π ∝ exp(γ·ℓ₀ + λ), what reader and pool know together.

    Args:
        own: ℓ₀, log-probabilities of the reader without the pool's help, ``[..., c]``; zeros where it is not known.
        evidence: λ, ``[..., c]``; −∞ for outputs that cannot occur.
        knowledge_weight: γ ≥ 0.

    Returns:
        Log-probabilities ``[..., c]``.
    """
    return log_softmax_of_few(knowledge_weight * own + evidence)


def reader_log_probs(
    base: Tensor, shown: Tensor, last: Tensor, follow: float | Tensor, recency: float | Tensor
) -> Tensor:
    """R9: log softmax ℓ, what the reader is expected to answer.

    Args:
        base: b + γ·ℓ₀, ``[..., c]``; −∞ for outputs that cannot occur.
        shown: ḡ, the position weights of each output's demonstrations summed, ``[..., c]``; zeros for no demonstration.
        last: 1 for the output of the last demonstration, else 0, ``[..., c]``; its expectation where no order is set.
        follow: τ ≥ 0, how strongly the reader follows what it is shown.
        recency: ρ, what the last demonstration adds.

    Returns:
        Log-probabilities ``[..., c]``.
    """
    return log_softmax_of_few(base + follow * shown + recency * last)


def log_softmax_of_few(logits: Tensor) -> Tensor:
    """The logarithm of softmax along the last dimension ``[..., c]``; of few in float32 ten times as fast on a CPU.

    The result of few outputs is laid out with the outputs first, where PyTorch works on many cases at a time.

    Example:
        >>> import torch
        >>> log_softmax_of_few(torch.zeros(2)).exp()
        tensor([0.5000, 0.5000])
    """
    exact = logits.dtype is torch.float64  # what is reported must not depend on what it is computed together with
    if exact or logits.device.type != "cpu" or logits.shape[-1] >= NARROW or logits.ndim < 2:
        return logits.log_softmax(-1)
    return logits.movedim(-1, 0).contiguous().log_softmax(0).movedim(0, -1)


def expected_log_loss(log_target: Tensor, log_probs: Tensor) -> Tensor:
    """R9: L = −Σ_y π(y) log p(y) ≥ H(π), in nats; outputs of probability 0 under π do not count.

    Args:
        log_target: log π, ``[..., c]``.
        log_probs: log p, ``[..., c]``.

    Returns:
        ``[...]``.

    Example:
        >>> import torch
        >>> sure = torch.tensor([0.9, 0.1]).log()
        >>> expected_log_loss(sure, sure) < expected_log_loss(sure, torch.tensor([0.99, 0.01]).log())
        tensor(True)
    """
    target = log_target.exp()
    return -(target * torch.where(target > 0, log_probs, 0)).sum(-1)
