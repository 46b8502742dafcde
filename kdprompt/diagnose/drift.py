r"""Whether the traffic has drifted away from a reference, and what to label next.

A window of recent queries is compared with a reference (an earlier window, or the inputs of the pool) by an MMD
two-sample test. A permutation test is exact for any size: where both come from one distribution, it raises an alarm in
a share of ``level`` of the windows, whatever the embedding. The reference is thinned to a random sample, so that a
test costs the same however large the pool is.

What to label next: queries of the window where it has more mass than the reference (the witness function of the MMD).
Each query that is chosen takes mass away around it, so that the next stands for another kind: the step of kernel
herding.

Sources: Gretton et al. (2012), "A Kernel Two-Sample Test", JMLR 13; Chen, Welling, Smola (2010), "Super-samples from
kernel herding", arXiv 1203.3472.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.pool.vectors import normalise_rows
from kdprompt.theory.bandwidth import median_heuristic
from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.mmd import mean_embedding
from kdprompt.theory.two_sample import TwoSampleResult, permutation_test

__all__ = ["Drift", "measure_drift"]

REFERENCE = 2048  # points of the reference that are compared, drawn at random
WINDOW = 2048  # and of the window


@dataclass(frozen=True)
class Drift:
    """A window of traffic against a reference.

    Attributes:
        test: The permutation test; ``m`` is the size of the window, ``n`` that of the reference, as they were compared.
        level: Share of false alarms, in (0, 1).
        witness: Mass of the window at each of its queries, less that of the reference ``[m]``; large where the
            reference has too few of that kind. A query's own mass does not count.
        similarity: Cosine of each query with the nearest point of the reference ``[m]``.
        label_next: Queries of the window to label next, the most useful first.
    """

    test: TwoSampleResult
    level: float
    witness: Tensor
    similarity: Tensor
    label_next: tuple[int, ...]

    @property
    def alarm(self) -> bool:
        """Whether the test rejects that window and reference come from one distribution."""
        return self.test.p_value <= self.level

    def __str__(self) -> str:
        """The result in sentences."""
        verdict = "The traffic has drifted" if self.alarm else "No drift is seen"
        return (
            f"{verdict}: p = {self.test.p_value:.2g}, alarm at {self.level:g} ({self.test.m:,} queries against "
            f"{self.test.n:,} of the reference). The nearest text of the reference is at a cosine of "
            f"{float(self.similarity.median()):.2f} at the median, {float(self.similarity.min()):.2f} at the worst."
        )


def measure_drift(
    reference: Tensor,
    window: Tensor,
    *,
    level: float = 0.05,
    count: int = 10,
    permutations: int = 1000,
    seed: int = 0,
) -> Drift:
    """Tests a window of traffic against a reference.

    Args:
        reference: Embeddings of the reference ``[n, d]``, n ≥ 2; of more than 2,048 a random sample is tested.
        window: Embeddings of the window's queries ``[m, d]``, m ≥ 2; likewise.
        level: Share of windows without drift that raise an alarm, in (0, 1).
        count: Queries to propose for labelling, at most m.
        permutations: Of the test; the smallest p-value is 1 / (1 + permutations).
        seed: Seed of permutations and samples.

    Returns:
        The test, and what to label next.

    Raises:
        ValueError: A sample has fewer than two points, or the level cannot be reached by so few permutations.

    Example:
        >>> import torch
        >>> reference = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
        >>> drift = measure_drift(reference, reference[:60] + torch.tensor([2.0] + [0.0] * 7))
        >>> drift.alarm, len(drift.label_next)
        (True, 10)
    """
    if not 1 / (1 + permutations) <= level < 1:
        raise ValueError(
            f"level must lie in [1 / (1 + permutations), 1), got {level} with {permutations} permutations; no p-value "
            "would be small enough for an alarm"
        )
    for name, sample in (("reference", reference), ("window", window)):
        if len(sample) < 2:
            raise ValueError(f"drift needs at least 2 texts in the {name}, got {len(sample)}")
    whole, queries = normalise_rows(reference.float().cpu()), normalise_rows(window.float().cpu())
    generator = torch.Generator().manual_seed(seed)
    x, q = _sample(whole, REFERENCE, generator), _sample(queries, WINDOW, generator)
    kernel = Gaussian(median_heuristic(torch.cat([x, q])))
    test = permutation_test(kernel, x, q, permutations=permutations, seed=seed)
    m = len(queries)
    others = (mean_embedding(kernel, queries, queries) * m - kernel.diagonal(queries)) / (m - 1)
    witness = others - mean_embedding(kernel, queries, x)
    similarity = torch.cat([(part @ whole.T).amax(-1) for part in queries.split(1024)])
    return Drift(test, level, witness, similarity, _choose_diverse(kernel, queries, witness, count))


def _sample(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:size]]


def _choose_diverse(kernel: Gaussian, q: Tensor, witness: Tensor, count: int) -> tuple[int, ...]:
    """Queries with the largest witness, less what those chosen before them took away.

    At its own place a chosen query takes 1/count of the largest witness: where a kind of query has twice the witness of
    another, about twice as many of it are chosen.
    """
    chosen: list[int] = []
    left, share = witness.clone(), float(witness.amax().clamp_min(0)) / max(count, 1)
    for _ in range(min(count, len(q))):
        left[chosen[-1:]] = -torch.inf
        chosen.append(int(left.argmax()))
        left -= share * kernel(q, q[chosen[-1]][None]).squeeze(-1)
    return tuple(chosen)
