r"""The bounds R3 to R6 of the theory as pure functions on tensors.

Attention over demonstrations z = (x, v) with position weights w builds the reference model W_D = Σ w_i v_i φ(x_i)ᵀ.
Its distance to the model that the query distribution would build is an MMD (R2, ``kdprompt.theory.mmd``). The
functions here bound the rest of its risk. Each says whether its bound is a *certificate* (it holds as stated) or only
a *regulariser* (its premise is broken by selection).

Source: arXiv 2506.11516, in the numbered form R1–R8 of ``docs/theory.md``.
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from kdprompt.theory.attention import normalise_attention

__all__ = [
    "Bound",
    "BoundKind",
    "complexity",
    "complexity_of_trace",
    "generalisation_gap",
    "interference",
    "query_sample_error",
]

BoundKind = Literal["certificate", "regulariser"]


@dataclass(frozen=True)
class Bound:
    """A number that bounds a part of the risk, with the premise that it needs.

    Attributes:
        name: What is bounded.
        result: The result it comes from (R2 … R8).
        value: The bound, ≥ 0.
        kind: ``certificate``: holds as stated. ``regulariser``: the same expression where its premise (draws
            independent of the values) is broken by selection.
        premise: The conditions under which it holds.
    """

    name: str
    result: str
    value: float
    kind: BoundKind
    premise: str


def complexity(weights: Tensor, diagonal: Tensor, radius: Tensor | float, width: int) -> Tensor:
    """R3: B √(d Σ w_i² κ(x_i, x_i)) ≥ 0, the weighted empirical Rademacher complexity of {x ↦ Wφ(x): ‖W‖ ≤ B}.

    Args:
        weights: Position weights ``[..., k]``, ≥ 0, summing to 1.
        diagonal: κ(x_i, x_i), ``[..., k]``.
        radius: B, a bound on ‖W‖_HS, ``[...]``; W_D itself obeys B ≤ max‖v‖·κ_max^½.
        width: d, the number of value dimensions.

    Returns:
        ``[...]``. An L-Lipschitz loss multiplies it by √2·L (Maurer 2016, arXiv 1605.00251).

    Example:
        >>> import torch
        >>> complexity(torch.full((4,), 0.25), torch.ones(4), 1.0, 1)  # the 1/√n law
        tensor(0.5000)
    """
    return complexity_of_trace((weights.square() * diagonal).sum(-1), radius, width)


def complexity_of_trace(trace: Tensor, radius: Tensor | float, width: int) -> Tensor:
    """R3 where the sum Σ w_i² κ(x_i, x_i) is already known.

    Args:
        trace: That sum, ``[...]``, ≥ 0.
        radius: B, ``[...]``.
        width: d, the number of value dimensions.

    Returns:
        ``[...]``.
    """
    return radius * (width * trace).sqrt()


def generalisation_gap(
    rademacher: Tensor | float,
    weights: Tensor,
    *,
    lipschitz: float = 1.0,
    loss_range: float = 1.0,
    delta: float = 0.05,
) -> Tensor:
    """R4: 2·√2·L·R3 + 3b √(log(2/δ) Σ w_i²/2) ≥ 0 bounds how far the risk exceeds the weighted empirical risk.

    A certificate, with probability ≥ 1 − δ, only for demonstrations drawn i.i.d. and independently of their
    values; for *selected* demonstrations a regulariser.

    Args:
        rademacher: R3, ``[...]``.
        weights: Position weights ``[..., k]``, summing to 1.
        lipschitz: L of the loss.
        loss_range: b, the loss lies in [0, b].
        delta: Probability of failure, in (0, 1).

    Returns:
        ``[...]``.

    Raises:
        ValueError: ``delta`` is not in (0, 1).
    """
    _check_delta(delta)
    deviation = 3 * loss_range * (math.log(2 / delta) * weights.square().sum(-1) / 2).sqrt()
    return 2 * math.sqrt(2) * lipschitz * rademacher + deviation


def query_sample_error(kernel_max: float, m: int, *, delta: float = 0.05) -> float:
    """R5: √(κ⊗max/m)·(1 + √(2 log(1/δ))) ≥ |MMD(D, Q) − MMD(D, Q̂_m)| with probability ≥ 1 − δ.

    Args:
        kernel_max: The largest κ⊗(z, z).
        m: Number of queries drawn i.i.d. from Q.
        delta: Probability of failure, in (0, 1).

    Returns:
        The bound, ≥ 0.

    Raises:
        ValueError: ``delta`` is not in (0, 1) or m < 1.

    Example:
        >>> round(query_sample_error(1.0, 100), 3)
        0.345
    """
    _check_delta(delta)
    if m < 1:
        raise ValueError(f"m must be at least 1, got {m}")
    return math.sqrt(kernel_max / m) * (1 + math.sqrt(2 * math.log(1 / delta)))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1), got {delta}")


def interference(weights: Tensor, attention: Tensor, conflict: Tensor) -> Tensor:
    """R6 split by demonstration: a_i(q)·‖v(z_i) − v*(q)‖ with a_i(q) = w_i κ(x_i, q)/Σ_j w_j κ(x_j, q).

    Their sum over i bounds ‖f̄_D(q) − v*(q)‖ for every set of values, with certainty. Attention is never negative:
    clip a kernel that can be negative at zero first.

    Args:
        weights: Position weights ``[..., k]``.
        attention: κ(x_i, q) ≥ 0, ``[..., k, m]``.
        conflict: ‖v(z_i) − v*(q)‖, ``[..., k, m]``.

    Returns:
        ``[..., k, m]``; zero where no demonstration attends to q.
    """
    return normalise_attention(weights[..., None] * attention, dim=-2) * conflict
