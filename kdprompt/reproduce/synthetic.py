"""Predictions of the theory where it is exact: linear attention with explicit features, and linear regression."""

import torch
from torch import Tensor

from kdprompt.reproduce.phenomenon import Phenomenon, fit_line, judge_below, judge_equal
from kdprompt.theory.kernels import Polynomial
from kdprompt.theory.results import bias, distilled_weights
from kdprompt.theory.samples import JointSample

__all__ = ["measure_bias_and_mmd", "measure_gap_and_length"]

DIMENSION = 8  # of the inputs of the regression
NOISE = 0.3  # standard deviation before the sign is taken
FRESH_POINTS = 2000  # that the risk is measured on


def measure_bias_and_mmd(*, problems: int = 200, seed: int = 0) -> Phenomenon:
    """R2 on linear attention with explicit features: ‖W_D − W_Q‖ against the MMD, slope 1.

    Args:
        problems: Number of random pairs of demonstrations and queries.
        seed: Seed of every random draw.
    """
    g = torch.Generator().manual_seed(seed)
    kernel, x, y = Polynomial(degree=2, offset=1.0), [], []
    for _ in range(problems):
        k, m = (int(torch.randint(2, 20, (1,), generator=g)) for _ in range(2))
        shift = 2 * torch.rand(1, generator=g, dtype=torch.float64)
        a, q = (torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (k, m))
        v, u = (torch.randn(n, 2, generator=g, dtype=torch.float64) for n in (k, m))
        q = q + shift
        distance = _uniform_weights(a, v) - _uniform_weights(q, u)
        x.append(float(bias(kernel, JointSample(a, v), JointSample(q, u))))
        y.append(float(torch.linalg.matrix_norm(distance)))
    claim = "R2: the distance of the distilled weights is the MMD, slope 1"
    line = fit_line(x, y)
    verdict = judge_equal("slope is 1", line, expected=1)
    return Phenomenon("bias and MMD", claim, "MMD", "‖W_D − W_Q‖", x, y, line, (verdict,))


def _uniform_weights(inputs: Tensor, values: Tensor) -> Tensor:
    """W of linear attention that weighs n tokens alike, with the features of the quadratic kernel.

    Args:
        inputs: ``[n, d]``.
        values: ``[n, d_v]``.
    """
    extended = torch.cat([inputs, torch.ones_like(inputs[:, :1])], -1)
    features = (extended[:, :, None] * extended[:, None, :]).flatten(1)
    n = len(inputs)
    return distilled_weights(torch.full((n,), 1 / n, dtype=inputs.dtype), values, features)


def measure_gap_and_length(*, draws: int = 300, seed: int = 0) -> Phenomenon:
    """R3 and R4: how far the risk of W_D exceeds its risk on the demonstrations, against their number; slope −½.

    Args:
        draws: Number of random sets of demonstrations of each length.
        seed: Seed of every random draw.
    """
    g = torch.Generator().manual_seed(seed)
    x, y = [], []
    truth = torch.nn.functional.normalize(torch.randn(DIMENSION, generator=g), dim=0)

    def sample(*shape: int) -> tuple[Tensor, Tensor]:
        inputs = torch.nn.functional.normalize(torch.randn(*shape, DIMENSION, generator=g), dim=-1)
        return inputs, (inputs @ truth + NOISE * torch.randn(*shape, generator=g)).sign()

    for n in (4, 8, 16, 32, 64, 128, 256):
        inputs, labels = sample(draws, n)
        weights = (labels[..., None] * inputs).mean(-2)  # W_D of uniform attention
        fresh_inputs, fresh_labels = sample(draws, FRESH_POINTS)
        risk = _squared_risk(weights, fresh_inputs, fresh_labels)
        x.append(float(n))
        y.append(float((risk - _squared_risk(weights, inputs, labels)).mean()))
    logs = torch.tensor([x, y]).clamp_min(1e-12).log()
    line = fit_line(logs[0].tolist(), logs[1].tolist())
    return Phenomenon(
        "generalisation gap",
        "R3, R4: bounded by the 1/√n law, slope −½ or steeper on logarithmic axes",
        "demonstrations n",
        "risk − own risk",
        x,
        y,
        line,
        (judge_below("slope is at most −½", line, bound=-0.5),),
    )


def _squared_risk(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error ``[b]`` of linear models ``[b, d]`` on inputs ``[b, n, d]`` with labels ``[b, n]``."""
    return (labels - (inputs @ weights[..., None]).squeeze(-1)).square().mean(-1)
