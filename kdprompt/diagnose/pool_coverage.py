"""Whether a pool covers the traffic: a two-sample test on the inputs, and the queries that are worst covered."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.pool.vectors import normalise_rows
from kdprompt.theory.bandwidth import median_heuristic
from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.mmd import mean_embedding, mmd
from kdprompt.theory.two_sample import TwoSampleResult, two_sample_test

__all__ = ["PoolCoverage", "measure_coverage"]

LEVEL = 0.05  # of the two-sample test
SAMPLE = 2048  # examples that stand for the pool in the test, whose cost is quadratic
CHUNK = 1024  # queries whose similarities to the whole pool are held at a time


@dataclass(frozen=True)
class PoolCoverage:
    """A pool against a sample of the traffic.

    Attributes:
        test: Two-sample test of whether both come from one distribution.
        bias: MMD of their inputs (R2), in [0, √2].
        witness: Witness function of the MMD at each query ``[m]``: the pool's kernel mean less that of the other
            queries, negative where the pool has too few examples of that kind.
        similarity: Cosine of each query with its nearest example ``[m]``.
        temperature: Temperature of the kernel, by the median heuristic on both samples.
    """

    test: TwoSampleResult
    bias: float
    witness: Tensor
    similarity: Tensor
    temperature: float

    @property
    def covered(self) -> bool:
        """Whether the test does not reject one distribution at a level of 5 %."""
        return self.test.p_value > LEVEL

    def worst(self, count: int) -> list[int]:
        """Indices of the queries with the smallest witness, the worst first."""
        order: list[int] = self.witness.argsort(stable=True)[:count].tolist()
        return order

    def __str__(self) -> str:
        """The result in sentences."""
        verdict = "may come from one distribution" if self.covered else "do not come from one distribution"
        return (
            f"Pool and traffic {verdict}: MMD {self.bias:.3f}, p = {self.test.p_value:.2g} ({self.test.method} test of "
            f"{self.test.n:,} examples against {self.test.m:,} queries). The nearest example is at a cosine of "
            f"{float(self.similarity.median()):.2f} from a query at the median, {float(self.similarity.min()):.2f} at "
            "the worst."
        )


def measure_coverage(pool: Tensor, queries: Tensor, *, permutations: int = 1000, seed: int = 0) -> PoolCoverage:
    """Compares a pool's inputs with a sample of the traffic; of a pool of more than 2,048 a random sample is tested.

    Args:
        pool: Embeddings of the pool's inputs ``[n, d]``, n ≥ 2.
        queries: Embeddings of the queries ``[m, d]``, m ≥ 2.
        permutations: Number of permutations of the test, for samples that are not too large for it.
        seed: Seed of the permutations, and of the sample of the pool.

    Raises:
        ValueError: A sample has fewer than two points.
    """
    whole, q = (normalise_rows(vectors.float().cpu()) for vectors in (pool, queries))
    x = whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))[:SAMPLE]]
    for name, sample in (("pool", x), ("queries", q)):
        if len(sample) < 2:
            raise ValueError(f"coverage needs at least 2 {name}, got {len(sample)}")
    kernel = Gaussian(median_heuristic(torch.cat([x, q])))
    m = len(q)
    others = (mean_embedding(kernel, q, q) * m - kernel.diagonal(q)) / (m - 1)
    return PoolCoverage(
        test=two_sample_test(kernel, x, q, permutations=permutations, seed=seed),
        bias=float(mmd(kernel, x, q)),
        witness=mean_embedding(kernel, q, x) - others,
        similarity=torch.cat([(part @ whole.T).amax(-1) for part in q.split(CHUNK)]),
        temperature=kernel.temperature,
    )
