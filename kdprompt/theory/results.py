r"""The results R1 to R8 as functions that can be run: batched, differentiable torch, each with its statement.

Objects: demonstrations z_i = (x_i, v_i) with key features φ(x_i) ``[..., k, p]`` and kernel κ = ⟨φ, φ⟩, values v_i
``[..., k, c]``, position weights w ``[..., k]``, w_i ≥ 0, Σ w_i = 1. A prompt D builds W_D = Σ w_i v_i φ(x_i)ᵀ,
the query distribution Q would build W_Q. R3, R5 and R6 live in ``kdprompt.theory.bounds`` and are named here again, so
that all results can be called from one place.

Source: arXiv 2506.11516, in the numbered form R1–R8 of ``docs/theory.md``, which states and proves them.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from kdprompt.theory.attention import normalise_attention
from kdprompt.theory.bounds import BoundKind, complexity, generalisation_gap, interference, query_sample_error
from kdprompt.theory.kernels import JointKernel, Kernel
from kdprompt.theory.mmd import mmd
from kdprompt.theory.samples import JointSample

__all__ = [
    "Guarantee",
    "OrderSensitivity",
    "bias",
    "complexity",
    "distilled_weights",
    "generalisation_bound",
    "interference",
    "interference_by_task",
    "order_sensitivity",
    "query_sample_error",
    "read_out",
    "read_out_shift",
    "risk_bound",
]

MAX_ENUMERATED = 7  # demonstrations whose orders are enumerated: 7! = 5,040


@dataclass(frozen=True)
class Guarantee:
    """A batch of bounds, with the premise that they need.

    Attributes:
        value: ``[...]``, ≥ 0.
        kind: ``certificate``: holds as stated; ``regulariser``: its premise is broken by selection.
        premise: The conditions under which it holds.
    """

    value: Tensor
    kind: BoundKind
    premise: str


def distilled_weights(weights: Tensor, values: Tensor, features: Tensor) -> Tensor:
    """R1: W_D = Σ w_i v_i φ(x_i)ᵀ, the reference model that attention over a prompt distils.

    It is one gradient step of size 1 from W = 0 on ½ Σ w_i ‖v_i − W φ(x_i)‖². Exact.

    Args:
        weights: ``[..., k]``.
        values: ``[..., k, c]``.
        features: φ(x_i), ``[..., k, p]``.

    Returns:
        ``[..., c, p]``.

    Example:
        >>> import torch
        >>> distilled_weights(torch.tensor([0.5, 0.5]), torch.eye(2), torch.tensor([[1.0], [3.0]])).tolist()
        [[0.5], [1.5]]
    """
    return (weights[..., None] * values).transpose(-1, -2) @ features


def read_out(weights: Tensor, values: Tensor, attention: Tensor, *, normalised: bool = True) -> Tensor:
    """f_D(q) = Σ w_i κ(x_i, q) v_i, or f̄_D(q), the same divided by Σ w_i κ(x_i, q), as softmax attention does.

    Args:
        weights: ``[..., k]``.
        values: ``[..., k, c]``.
        attention: κ(x_i, q), ``[..., k, m]``.
        normalised: Whether to divide: f̄_D, else f_D.

    Returns:
        ``[..., m, c]``; zero where nothing attends to q.
    """
    pull = weights[..., None] * attention
    if normalised:
        pull = normalise_attention(pull, dim=-2)
    return pull.transpose(-1, -2) @ values


def bias(kernel: Kernel, prompt: JointSample, target: JointSample) -> Tensor:
    """R2: ‖W_D − W_Q‖_HS = MMD under κ⊗ = κ·⟨v, v′⟩. Exact, and it holds after selection too.

    Args:
        kernel: κ of the inputs.
        prompt: The demonstrations: inputs ``[..., k, d]``, values ``[..., k, c]``, position weights ``[..., k]``.
        target: The query distribution: inputs ``[..., m, d]``, values ``[..., m, c]``, weights ``[..., m]``.

    Returns:
        ``[...]``, ≥ 0. Where values are v = Aφ′(x), ‖A‖_op times the MMD under κ′κ bounds it: pass φ′(x) as values.

    Raises:
        ValueError: Prompt and target differ in the width of their inputs or of their values.

    Example:
        >>> import torch
        >>> from kdprompt.theory.kernels import Linear
        >>> x, v = torch.eye(2), torch.tensor([[1.0], [-1.0]])
        >>> bias(Linear(), JointSample(x, v), JointSample(x, -v))  # W_D = (½, −½), W_Q = (−½, ½)
        tensor(1.4142)
    """
    widths = [(sample.inputs.shape[-1], sample.values.shape[-1]) for sample in (prompt, target)]
    if widths[0] != widths[1]:
        raise ValueError(f"prompt and target must have the same widths d and c, got {widths[0]} and {widths[1]}")
    joint_kernel = JointKernel(kernel, prompt.inputs.shape[-1], output_share=1.0)
    return mmd(joint_kernel, prompt.to_weighted_sample(), target.to_weighted_sample())


def read_out_shift(bias: Tensor, kernel_at_query: Tensor | float) -> Tensor:
    """R2: √κ(q, q)·‖W_D − W_Q‖ ≥ ‖f_D(q) − f_Q(q)‖, how far the read-out at q moves with the model.

    Args:
        bias: ‖W_D − W_Q‖, ``[...]``.
        kernel_at_query: κ(q, q), ``[...]``.

    Returns:
        ``[...]``, ≥ 0.
    """
    return torch.as_tensor(kernel_at_query, dtype=bias.dtype, device=bias.device).sqrt() * bias


def generalisation_bound(  # noqa: PLR0913 - the constants of the theorem
    empirical_risk: Tensor,
    rademacher: Tensor,
    weights: Tensor,
    *,
    selected: bool,
    lipschitz: float = 1.0,
    loss_range: float = 1.0,
    delta: float = 0.05,
) -> Guarantee:
    """R4: risk ≤ Σ w_i ℓ_i + 2·√2·L·R3 + 3b √(log(2/δ) Σ w_i²/2) with probability ≥ 1 − δ.

    Args:
        empirical_risk: Σ w_i ℓ_i with ℓ in [0, b], ``[...]``.
        rademacher: R3, ``[...]``.
        weights: ``[..., k]``.
        selected: Whether the demonstrations were chosen by their values, as any selector does.
        lipschitz: L of the loss.
        loss_range: b.
        delta: Probability of failure, in (0, 1).

    Returns:
        A certificate for demonstrations drawn i.i.d. and independently of their values, else a regulariser.
    """
    gap = generalisation_gap(rademacher, weights, lipschitz=lipschitz, loss_range=loss_range, delta=delta)
    premise = "demonstrations drawn i.i.d. and independently of their values"
    if selected:
        return Guarantee(empirical_risk + gap, "regulariser", f"would need {premise}; these were selected")
    return Guarantee(empirical_risk + gap, "certificate", premise)


def interference_by_task(by_demonstration: Tensor, task_codes: Tensor, task_count: int) -> Tensor:
    """R6 by task: ``interference`` summed over the demonstrations of each task.

    Args:
        by_demonstration: What ``interference`` returns, ``[..., k, m]``.
        task_codes: Task of each demonstration, 0 … task_count − 1, ``[..., k]``.
        task_count: Number of tasks.

    Returns:
        ``[..., task_count, m]``. For a query, the row of its task is the label conflict, the other rows are the
        cross-task interference.
    """
    membership = torch.nn.functional.one_hot(task_codes, task_count).to(by_demonstration.dtype)
    return membership.transpose(-1, -2) @ by_demonstration


@dataclass(frozen=True)
class OrderSensitivity:
    """How far apart the orders of one prompt are, as distances ‖W_π − W_σ‖ of their distilled weights.

    Attributes:
        rms: Root mean square distance of two random orders, ``[...]``.
        largest: Largest distance of two orders, ``[...]``; None for more than 7 demonstrations.
    """

    rms: Tensor
    largest: Tensor | None


def order_sensitivity(gram: Tensor, profile: Tensor) -> OrderSensitivity:
    """R7: order acts through w_π(i) = ω_i alone, so ‖W_π − W_σ‖ is an MMD between weightings of the same points.

    The mean squared distance of two random orders is 2 s² (tr G − (1ᵀG1 − tr G)/(k − 1)), with s² the variance of ω:
    exact for every k, without enumeration.

    Args:
        gram: κ⊗ among the demonstrations ``[..., k, k]``.
        profile: ω, ``[k]``, summing to 1.

    Returns:
        Both distances; zero for a uniform profile, and for one demonstration.
    """
    k = gram.shape[-1]
    if k < 2:
        zero = gram.sum((-1, -2)) * 0
        return OrderSensitivity(zero, zero)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    variance = (profile - profile.mean()).square().mean()
    rms = (2 * variance * (trace - (gram.sum((-1, -2)) - trace) / (k - 1))).clamp_min(0).sqrt()
    if k > MAX_ENUMERATED:
        return OrderSensitivity(rms, None)
    return OrderSensitivity(rms, _largest_distance(gram, profile))


def _largest_distance(gram: Tensor, profile: Tensor) -> Tensor:
    """The largest ‖W_π − W_σ‖ over all pairs of orders, ``[...]``."""
    orders = torch.tensor(list(permutations(range(gram.shape[-1]))), device=gram.device)
    weights = profile[orders]
    squares = torch.einsum("pi,...ij,pj->...p", weights, gram, weights)
    largest = gram.new_zeros(gram.shape[:-2])
    for row in range(weights.shape[0]):
        cross = torch.einsum("i,...ij,pj->...p", weights[row], gram, weights)
        squared_distances = squares + squares[..., row, None] - 2 * cross
        largest = torch.maximum(largest, squared_distances.amax(-1))
    return largest.clamp_min(0).sqrt()


def risk_bound(  # noqa: PLR0913 - the terms of J and the constants of the theorem
    bias: Tensor,
    rademacher: Tensor,
    interference: Tensor,
    weights: Tensor,
    *,
    kernel_max: float = 1.0,
    lipschitz: float = 1.0,
    delta: float = 0.05,
) -> Guarantee:
    """R8 with the theory's own constants: L·(√κ_max·MMD + R6) + R4's gap. J is the same sum with calibrated weights.

    The prompt's risk at the queries exceeds that of the reference model W_Q by at most L·√κ_max·MMD (R2). R6 bounds how
    far the read-out misses the estimated outputs, and R4's gap how far the demonstrations can mislead.

    Args:
        bias: R2, ``[...]``.
        rademacher: R3, ``[...]``.
        interference: R6, summed over the demonstrations, ``[...]``.
        weights: ``[..., k]``.
        kernel_max: Largest κ(q, q).
        lipschitz: L of the loss.
        delta: Probability of failure of R4's gap, in (0, 1).

    Returns:
        Always a regulariser: R4's premise does not hold for demonstrations chosen to make this sum small.
    """
    gap = generalisation_gap(rademacher, weights, lipschitz=lipschitz, delta=delta)
    value = lipschitz * (kernel_max**0.5 * bias + interference) + gap
    return Guarantee(value, "regulariser", "R2 and R6 hold after selection, R4's gap would need independent draws")
