r"""Two-sample tests on the MMD: do two samples come from one distribution?

``permutation_test`` is exact for exchangeable samples at any size, and evaluates all permutations as one product with
one kernel matrix. ``cross_mmd_test`` needs no permutations: its statistic is studentised and normal under the null, in
linear memory, for samples too large for a kernel matrix.

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

__all__ = ["TwoSample", "cross_mmd_test", "permutation_test", "two_sample_test"]

LARGEST = 4096  # points in all for which two_sample_test holds a kernel matrix


@dataclass(frozen=True)
class TwoSample:
    """The outcome of a two-sample test.

    Attributes:
        statistic: Unbiased MMD² (permutation), which may be negative, or the studentised cross-MMD.
        p_value: In (0, 1]; probability under the null of a statistic at least as large.
        method: ``permutation`` or ``cross``.
        n: Points of the first sample.
        m: Points of the second.
    """

    statistic: float
    p_value: float
    method: Literal["permutation", "cross"]
    n: int
    m: int


def permutation_test(
    kernel: Kernel, x: Tensor, y: Tensor, *, permutations: int = 1000, seed: int = 0, chunk: int = 256
) -> TwoSample:
    """The unbiased MMD² against relabelled samples: p = (1 + #{permuted ≥ observed}) / (1 + permutations).

    Args:
        kernel: κ.
        x: First sample ``[n, d]``, n ≥ 2.
        y: Second sample ``[m, d]``, m ≥ 2.
        permutations: Relabellings drawn; p is at least 1 / (1 + permutations).
        seed: Of the draws.
        chunk: Relabellings held at a time; memory is (n + m)·(n + m + chunk).

    Raises:
        ValueError: A sample has fewer than two points, or there are no permutations.
    """
    n, m = _sizes(x, y)
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    both = torch.cat([x, y])
    gram = kernel(both, both)
    gram = gram - torch.diag_embed(gram.diagonal())  # pairs i ≠ j alone
    observed = _unbiased(gram, torch.arange(n + m, device=x.device)[None] < n, n, m)
    generator = torch.Generator().manual_seed(seed)
    larger = 0
    for start in range(0, permutations, chunk):
        count = min(chunk, permutations - start)
        order = torch.rand(count, n + m, generator=generator).argsort(-1).to(x.device)
        values = _unbiased(gram, order < n, n, m)
        larger += int((values >= observed - _rounding(gram)).sum())
    return TwoSample(float(observed), (1 + larger) / (1 + permutations), "permutation", n, m)


def _rounding(gram: Tensor) -> float:
    """Differences below this are ties: a relabelling that swaps equal points must count."""
    return 32 * torch.finfo(gram.dtype).eps * float(gram.abs().amax())


def _unbiased(gram: Tensor, first: Tensor, n: int, m: int) -> Tensor:
    """MMD² without diagonal terms for each relabelling ``first: [b, n + m]``, ``[b]``."""
    one = first.to(gram.dtype)
    two = 1 - one
    to_first, to_second = one @ gram, two @ gram
    within = (to_first * one).sum(-1) / (n * (n - 1)) + (to_second * two).sum(-1) / (m * (m - 1))
    return within - 2 * (to_first * two).sum(-1) / (n * m)


def cross_mmd_test(kernel: Kernel, x: Tensor, y: Tensor, *, seed: int = 0) -> TwoSample:
    """The studentised cross-MMD: the witness function of one half of the samples, evaluated on the other half.

    Its mean difference over its standard error is asymptotically standard normal under the null; the test is
    one-sided. Costs some power against the permutation test (about √2 in sample size), and no kernel matrix.

    Args:
        kernel: κ.
        x: First sample ``[n, d]``, n ≥ 4.
        y: Second sample ``[m, d]``, m ≥ 4.
        seed: Of the halving.

    Raises:
        ValueError: A sample has fewer than four points.
    """
    n, m = _sizes(x, y, least=4)
    generator = torch.Generator().manual_seed(seed)
    x = x[torch.randperm(n, generator=generator).to(x.device)]
    y = y[torch.randperm(m, generator=generator).to(y.device)]
    (x1, x2), (y1, y2) = (x[: n // 2], x[n // 2 :]), (y[: m // 2], y[m // 2 :])
    at_x = witness(kernel, x1, x2, y2).double()
    at_y = witness(kernel, y1, x2, y2).double()
    error = math.sqrt(float(at_x.var() / len(at_x) + at_y.var() / len(at_y)))
    difference = float(at_x.mean() - at_y.mean())
    statistic = difference / error if error > 0 else 0.0
    return TwoSample(statistic, 0.5 * math.erfc(statistic / math.sqrt(2)), "cross", n, m)


def two_sample_test(kernel: Kernel, x: Tensor, y: Tensor, *, permutations: int = 1000, seed: int = 0) -> TwoSample:
    """``permutation_test`` up to 4,096 points in all, ``cross_mmd_test`` beyond."""
    if x.shape[0] + y.shape[0] <= LARGEST:
        return permutation_test(kernel, x, y, permutations=permutations, seed=seed)
    return cross_mmd_test(kernel, x, y, seed=seed)


def _sizes(x: Tensor, y: Tensor, least: int = 2) -> tuple[int, int]:
    for name, sample in (("x", x), ("y", y)):
        if sample.shape[0] < least:
            raise ValueError(f"{name} must hold at least {least} points, got {sample.shape[0]}")
    return x.shape[0], y.shape[0]
