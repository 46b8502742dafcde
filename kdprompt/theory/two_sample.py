r"""Two-sample tests on the MMD: do two samples come from one distribution?

Takes a kernel and two samples, gives a p-value. ``permutation_test`` is exact for exchangeable samples of any size; it
evaluates all permutations as one product with one kernel matrix. ``cross_mmd_test`` needs no permutations and no kernel
matrix: its studentised statistic is asymptotically normal under the null. It is for large samples.

Rejected: ``scipy.stats.norm.sf`` for the normal tail; ``math.erfc`` is exact enough and needs no dependency.

Sources: Gretton et al. (2012), "A Kernel Two-Sample Test", JMLR 13; Phipson & Smyth (2010) for the +1 correction,
arXiv 1603.05766; Shekhar, Kim, Ramdas (2022), "A permutation-free kernel two-sample test", arXiv 2211.14908.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kdprompt.theory.kernels import Kernel
from kdprompt.theory.mmd import witness

__all__ = ["TwoSampleResult", "cross_mmd_test", "permutation_test", "two_sample_test"]

MAX_PERMUTATION_POINTS = 4096  # of both samples together; beyond it two_sample_test holds no kernel matrix


@dataclass(frozen=True)
class TwoSampleResult:
    """The outcome of a two-sample test.

    Attributes:
        statistic: Unbiased MMD² (``permutation``), which may be negative, or the studentised cross-MMD (``cross``).
        p_value: Probability under the null of a statistic at least as large, in (0, 1].
        method: ``permutation`` or ``cross``.
        n: Number of points of the first sample.
        m: Number of points of the second.
    """

    statistic: float
    p_value: float
    method: Literal["permutation", "cross"]
    n: int
    m: int


def permutation_test(
    kernel: Kernel, x: Tensor, y: Tensor, *, permutations: int = 1000, seed: int = 0, chunk: int = 256
) -> TwoSampleResult:
    """The unbiased MMD² against relabelled samples: p = (1 + #{permuted ≥ observed}) / (1 + permutations).

    Args:
        kernel: κ.
        x: First sample ``[n, d]``, n ≥ 2.
        y: Second sample ``[m, d]``, m ≥ 2.
        permutations: Number of random relabellings; p is at least 1 / (1 + permutations).
        seed: Seed of the relabellings.
        chunk: Relabellings held at a time; memory is (n + m)·(n + m + chunk) numbers.

    Returns:
        The unbiased MMD² and its p-value.

    Raises:
        ValueError: A sample has fewer than two points, or there are no permutations.
    """
    n, m = _check_sizes(x, y)
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    points = torch.cat([x, y])
    gram = kernel(points, points)
    gram = gram - torch.diag_embed(gram.diagonal())  # pairs i ≠ j alone
    observed = _unbiased_mmd_squared(gram, torch.arange(n + m, device=x.device)[None] < n, n, m)
    generator = torch.Generator().manual_seed(seed)
    at_least_as_large = 0
    for start in range(0, permutations, chunk):
        count = min(chunk, permutations - start)
        order = torch.rand(count, n + m, generator=generator).argsort(-1).to(x.device)
        permuted = _unbiased_mmd_squared(gram, order < n, n, m)
        at_least_as_large += int((permuted >= observed - _rounding_error(gram)).sum())
    return TwoSampleResult(float(observed), (1 + at_least_as_large) / (1 + permutations), "permutation", n, m)


def _rounding_error(gram: Tensor) -> float:
    """Smaller differences are ties: a relabelling that swaps equal points must count."""
    return 32 * torch.finfo(gram.dtype).eps * float(gram.abs().amax())


def _unbiased_mmd_squared(gram: Tensor, in_first: Tensor, n: int, m: int) -> Tensor:
    """MMD² without diagonal terms, ``[b]``, for relabellings that put the points ``in_first: [b, n + m]`` first."""
    first = in_first.to(gram.dtype)
    second = 1 - first
    to_first, to_second = first @ gram, second @ gram
    within = (to_first * first).sum(-1) / (n * (n - 1)) + (to_second * second).sum(-1) / (m * (m - 1))
    return within - 2 * (to_first * second).sum(-1) / (n * m)


def cross_mmd_test(kernel: Kernel, x: Tensor, y: Tensor, *, seed: int = 0) -> TwoSampleResult:
    """The studentised cross-MMD: the witness function of one half of the samples, evaluated on the other half.

    Its mean difference over its standard error is asymptotically standard normal under the null; the test is
    one-sided. It has less power than the permutation test, about as if samples were √2 times smaller.

    Args:
        kernel: κ.
        x: First sample ``[n, d]``, n ≥ 4.
        y: Second sample ``[m, d]``, m ≥ 4.
        seed: Seed of the random halves.

    Returns:
        The studentised statistic and its p-value.

    Raises:
        ValueError: A sample has fewer than four points.
    """
    n, m = _check_sizes(x, y, minimum=4)
    generator = torch.Generator().manual_seed(seed)
    x = x[torch.randperm(n, generator=generator).to(x.device)]
    y = y[torch.randperm(m, generator=generator).to(y.device)]
    (x1, x2), (y1, y2) = (x[: n // 2], x[n // 2 :]), (y[: m // 2], y[m // 2 :])
    at_x = witness(kernel, x1, x2, y2).double()
    at_y = witness(kernel, y1, x2, y2).double()
    standard_error = math.sqrt(float(at_x.var() / len(at_x) + at_y.var() / len(at_y)))
    difference = float(at_x.mean() - at_y.mean())
    statistic = difference / standard_error if standard_error > 0 else 0.0
    return TwoSampleResult(statistic, 0.5 * math.erfc(statistic / math.sqrt(2)), "cross", n, m)


def two_sample_test(
    kernel: Kernel, x: Tensor, y: Tensor, *, permutations: int = 1000, seed: int = 0
) -> TwoSampleResult:
    """``permutation_test`` where the samples have at most 4,096 points together, else ``cross_mmd_test``.

    Args:
        kernel: κ.
        x: First sample ``[n, d]``.
        y: Second sample ``[m, d]``.
        permutations: Number of random relabellings, where they are used.
        seed: Seed of every random draw.

    Returns:
        The result of the test, which names its method.

    Raises:
        ValueError: As the test that is used.
    """
    if x.shape[0] + y.shape[0] <= MAX_PERMUTATION_POINTS:
        return permutation_test(kernel, x, y, permutations=permutations, seed=seed)
    return cross_mmd_test(kernel, x, y, seed=seed)


def _check_sizes(x: Tensor, y: Tensor, minimum: int = 2) -> tuple[int, int]:
    """The sizes n and m, which must reach the minimum."""
    for name, sample in (("x", x), ("y", y)):
        if sample.shape[0] < minimum:
            raise ValueError(f"{name} must hold at least {minimum} points, got {sample.shape[0]}")
    return x.shape[0], y.shape[0]
