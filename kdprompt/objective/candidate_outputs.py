"""The outputs of candidates: how likely each is at the queries, how far each is what one expects, which are the same.

Read by the reading orders ``LikeliestLast`` and ``AgreementLast`` alone; J does not depend on it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.objective.set_state import gather_rows
from kdprompt.objective.target import Target

__all__ = ["CandidateOutputs"]

EQUAL = 1e-4  # squared distance below which two values are one output, in units of the largest squared norm


@dataclass(frozen=True)
class CandidateOutputs:
    """The outputs of ``L`` candidates, for ``b`` problems; compared for the members of prompts alone.

    Attributes:
        v: Values of the candidates ``[b, L, c]``.
        target: ``b`` targets.
        value_radius: max‖v‖ over the pool.
    """

    v: Tensor
    target: Target
    value_radius: float

    def likelihood(self, members: Tensor) -> Tensor:
        """⟨v_i, v̂(q)⟩ of candidates ``members: [b, K]``, of labels their estimated share, averaged over the queries.

        Returns:
            ``[b, K]``.
        """
        queries = self.target.queries
        with_target = gather_rows(self.v, members) @ self.target.v[:, :queries].transpose(-1, -2)
        return (with_target * self.target.query_mass[:, None, :queries]).sum(-1)

    def agreement(self, members: Tensor, shares: Tensor) -> Tensor:
        """⟨v_i, r(q)⟩ of the members of prompts with what the whole pool says of the queries, in its ridge regression.

        Where none was fitted, ⟨v_i, f̄_S(q)⟩ with what each prompt says.

        Args:
            members: Candidates ``[b, K]``, −1 pads.
            shares: a_i(q) of each, 0 at pads ``[b, K]``.

        Returns:
            In the dtype of the shares, in units of the largest squared norm ``[b, K]``.
        """
        v = gather_rows(self.v, members.clamp_min(0)).to(shares)
        expected = self.target.expected
        if expected is None:
            said = shares[:, None, :] @ v
        else:
            mass = self.target.query_mass[:, None, : self.target.queries]
            said = mass.to(shares) @ expected.to(shares)
        return (v @ said.transpose(-1, -2)).squeeze(-1) / max(self.value_radius, EQUAL) ** 2

    def group(self, members: Tensor) -> Tensor:
        """The place of the first of the ``members: [b, K]`` with the same output, of each ``[b, K]``."""
        v = gather_rows(self.v, members)
        same = torch.cdist(v, v) < EQUAL**0.5 * self.value_radius
        return same.view(torch.uint8).argmax(-1) if same.numel() else torch.zeros_like(members)
