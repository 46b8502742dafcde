"""Does a pool cover the traffic? A two-sample test on the inputs, and the queries that are worst covered."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.theory.bandwidth import median_heuristic
from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.mmd import mean_embedding, mmd
from kdprompt.theory.two_sample import TwoSampleResult, two_sample_test

__all__ = ["Coverage", "coverage"]


@dataclass(frozen=True)
class Coverage:
    """A pool against a sample of the traffic.

    Attributes:
        test: Whether both may come from one distribution.
        bias: MMD of their inputs (R2), in [0, √2].
        witness: At each query, the pool's mass less that of the other queries ``[m]``: negative where the pool has
            too little of that kind.
        similarity: Cosine of each query's nearest example ``[m]``.
        temperature: Of the kernel, by the median heuristic on both samples.
    """

    test: TwoSampleResult
    bias: float
    witness: Tensor
    similarity: Tensor
    temperature: float

    @property
    def covered(self) -> bool:
        """Whether nothing speaks against one distribution, at a level of 5 %."""
        return self.test.p_value > 0.05

    def worst(self, count: int) -> list[int]:
        """The queries with the smallest witness, the worst first."""
        order: list[int] = self.witness.argsort(stable=True)[:count].tolist()
        return order

    def __str__(self) -> str:
        """The finding in a sentence."""
        verdict = "may come from one distribution" if self.covered else "do not come from one distribution"
        return (
            f"Pool and traffic {verdict}: MMD {self.bias:.3f}, p = {self.test.p_value:.2g} ({self.test.method} test of "
            f"{self.test.n:,} examples against {self.test.m:,} queries). The nearest example is at a cosine of "
            f"{float(self.similarity.median()):.2f} from a query at the median, {float(self.similarity.min()):.2f} at "
            "the worst."
        )


def coverage(pool: Tensor, queries: Tensor, *, permutations: int = 1000, seed: int = 0) -> Coverage:
    """Compares a pool's inputs with a sample of the traffic.

    Args:
        pool: Embeddings of the pool's inputs ``[n, d]``, n ≥ 2.
        queries: Embeddings of the queries ``[m, d]``, m ≥ 2.
        permutations: Of the test, for samples that are not too large for it.
        seed: Of the test.

    Raises:
        ValueError: A sample has fewer than two points.
    """
    x, q = (torch.nn.functional.normalize(part.float().cpu(), dim=-1) for part in (pool, queries))
    for name, part in (("pool", x), ("queries", q)):
        if len(part) < 2:
            raise ValueError(f"coverage needs at least 2 {name}, got {len(part)}")
    kernel = Gaussian(median_heuristic(torch.cat([x, q])))
    m = len(q)
    others = (mean_embedding(kernel, q, q) * m - kernel.diagonal(q)) / (m - 1)
    return Coverage(
        test=two_sample_test(kernel, x, q, permutations=permutations, seed=seed),
        bias=float(mmd(kernel, x, q)),
        witness=mean_embedding(kernel, q, x) - others,
        similarity=(q @ x.T).amax(-1),
        temperature=kernel.temperature,
    )
