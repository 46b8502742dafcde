"""The outputs of candidates: how likely each is at the queries, and which candidates have the same one.

Read by the reading order ``LikeliestLast`` alone; J does not depend on it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.objective.target import Target

__all__ = ["CandidateOutputs", "compare_outputs"]

EQUAL = 1e-4  # squared distance below which two values are one output, in units of the largest squared norm


@dataclass(frozen=True)
class CandidateOutputs:
    """The outputs of ``L`` candidates, for ``b`` problems.

    Attributes:
        likelihood: ⟨v_i, v̂(q)⟩, of labels their estimated share, averaged over the queries ``[b, L]``.
        group: The first candidate with the same output ``[b, L]``.
    """

    likelihood: Tensor
    group: Tensor


def compare_outputs(v: Tensor, target: Target, value_radius: float) -> CandidateOutputs:
    """Compares the values of candidates with one another and with the estimates at the queries.

    Args:
        v: Values of the candidates ``[b, L, c]``.
        target: ``b`` targets.
        value_radius: max‖v‖ over the pool.
    """
    queries = target.queries
    norms, inner = v.square().sum(-1), v @ v.transpose(-1, -2)
    distances = norms[..., None] + norms[:, None, :] - 2 * inner
    with_target = (v @ target.v.transpose(-1, -2))[..., :queries]
    return CandidateOutputs(
        likelihood=(with_target * target.query_mass[:, None, :queries]).sum(-1),
        group=_first_true(distances < EQUAL * value_radius**2),
    )


def _first_true(same: Tensor) -> Tensor:
    """The first true place of each row ``[b, L, L]``, 0 where there is none, ``[b, L]``."""
    return same.to(torch.uint8).argmax(-1) if same.numel() else same.new_zeros(same.shape[:-1], dtype=torch.long)
