"""Sets that J has no part in: random draws, and one member replaced by another."""

import torch
from torch import Tensor

from kdprompt.search.constraints import Constraints

__all__ = ["draw_sets", "replace_member"]


def draw_sets(constraints: Constraints, k: int, keys: Tensor) -> Tensor:
    """Sets that J has no part in: k times the feasible candidate with the largest key, ``[b, k]``, −1 pads.

    Args:
        constraints: What may be chosen.
        k: Most demonstrations.
        keys: Of each candidate ``[b, L]``, finite; of random keys every feasible set may come.
    """
    chosen = torch.full((keys.shape[0], k), -1, dtype=torch.long, device=keys.device)
    for step in range(k):
        chosen[:, step] = _largest(keys, constraints.addable(chosen, k - (chosen >= 0).sum(-1)))
    return chosen


def replace_member(constraints: Constraints, chosen: Tensor, place: int, keys: Tensor) -> Tensor:
    """Sets with another member in one place: the feasible candidate with the largest key, ``[b, K]``.

    Args:
        constraints: What may be chosen.
        chosen: Feasible sets ``[b, K]``, −1 pads.
        place: Which member goes; a pad stays one.
        keys: Of each candidate ``[b, L]``, finite.

    Returns:
        The sets; the member stays where no other candidate is feasible.
    """
    gone, others = chosen[:, place], chosen.clone()
    others[:, place] = -1
    allowed = constraints.addable(others, torch.ones_like(gone)) & (gone >= 0)[:, None]
    allowed &= torch.arange(keys.shape[-1], device=keys.device) != gone[:, None]
    newcomer = _largest(keys, allowed)
    others[:, place] = torch.where(newcomer >= 0, newcomer, gone)
    return others


def _largest(keys: Tensor, allowed: Tensor) -> Tensor:
    """The allowed candidate with the largest key ``[b]``, −1 where none is allowed."""
    key, index = keys.masked_fill(~allowed, -torch.inf).max(-1)
    return torch.where(key.isfinite(), index, -1)
