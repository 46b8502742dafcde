"""R9 in J: what the reader is expected to lose with a prompt, beside what reader and pool know together.

Read by J alone. ``ReaderLoss`` holds what does not depend on the prompt; the prompt comes as shares of outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.objective.own_knowledge import OwnEstimate
from kdprompt.objective.reader_profile import ReaderProfile
from kdprompt.objective.target import Target
from kdprompt.theory.reader_model import combine_knowledge, expected_log_loss, pool_evidence, reader_log_probs

__all__ = ["ReaderLoss"]


@dataclass(frozen=True)
class ReaderLoss:
    """L of R9 for ``b`` problems with ``q`` queries and ``c`` outputs each.

    Attributes:
        log_target: log π, what reader and pool know together ``[b, q, c]``.
        base: b + γ·ℓ₀, what the reader answers without demonstrations ``[b, q, c]``; −∞ for impossible outputs.
        evidence: λ, what the pool knows ``[b, q, c]``; −∞ likewise.
        own: γ·ℓ₀, what the reader knows itself ``[b, q, c]``.
        leaning: b ``[c]``.
        follow: τ.
        recency: ρ.
    """

    log_target: Tensor
    base: Tensor
    evidence: Tensor
    own: Tensor
    leaning: Tensor
    follow: float
    recency: float

    @classmethod
    def build(
        cls, target: Target, profile: ReaderProfile, outputs: Sequence[str], own_estimate: OwnEstimate | None = None
    ) -> "ReaderLoss":
        """What a prompt is measured by.

        Args:
            target: Whose values are shares of labels.
            profile: The reader.
            outputs: The labels' outputs, in the order of the values ``c``.
            own_estimate: Where the target does not say what the reader knows of a query itself, this does; None:
                nothing.
        """
        queries = target.queries
        estimate = target.v[:, :queries]
        prior = torch.full_like(estimate, 1 / estimate.shape[-1]) if target.prior is None else target.prior
        evidence = pool_evidence(estimate, prior)
        known = torch.zeros_like(evidence) if own_estimate is None else own_estimate(target.x[:, :queries])
        if target.own is not None:
            known = torch.where(target.own.isnan(), known, target.own)
        own, leaning = profile.knowledge_weight * known, evidence.new_tensor(profile.bias_of(outputs))
        return cls(
            log_target=combine_knowledge(known, evidence, profile.knowledge_weight),
            base=(leaning + own).masked_fill(evidence.isinf(), -torch.inf),
            evidence=evidence,
            own=own,
            leaning=leaning,
            follow=profile.follow,
            recency=profile.recency,
        )

    def subset(self, keep: Tensor) -> "ReaderLoss":
        """The problems ``keep`` (indices ``[b]``) alone."""
        names = ("log_target", "base", "evidence", "own")
        return replace(self, **{name: getattr(self, name).index_select(0, keep) for name in names})

    def log_probs(self, shown: Tensor, last: Tensor) -> Tensor:
        """What the reader is expected to answer.

        Args:
            shown: ḡ, the shares of outputs among the demonstrations ``[b, …, c]``; zeros for an empty prompt.
            last: The output of the last demonstration, one-hot or its expectation ``[b, …, c]``.

        Returns:
            Log-probabilities ``[b, …, q, c]``.
        """
        base = self.base.view(len(self.base), *(1,) * (shown.ndim - 2), *self.base.shape[1:])
        return reader_log_probs(base, shown[..., None, :], last[..., None, :], self.follow, self.recency)

    def __call__(self, shown: Tensor, last: Tensor) -> Tensor:
        """L at each query, in nats ``[b, …, q]``; arguments as ``log_probs`` takes them."""
        target = self.log_target.view(len(self.base), *(1,) * (shown.ndim - 2), *self.base.shape[1:])
        return expected_log_loss(target, self.log_probs(shown, last))
