"""Published selectors of one prompt for all queries: from a ``BenchmarkPool`` and k to rows in prompt order.

They see the traffic (dev queries without outputs), never the queries that will be asked. Where a method gives a set,
the rows nearest to the mean of the traffic stand last.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdprompt.evaluate.benchmark_pool import BenchmarkPool
from kdprompt.theory.kernels import Gaussian

__all__ = [
    "STATIC_BASELINES",
    "StaticBaseline",
    "facility_location",
    "herding",
    "kernel_thinning",
    "kmeans_medoids",
    "random_draw",
    "vote_k",
]

StaticBaseline = Callable[[BenchmarkPool, int], list[int]]
TILE = 256  # rows that are looked at together where all are,
FEW = 64  # and where the best are
TEMPERATURE = 0.25  # temperature of the Gaussian kernel of herding and kernel thinning


def random_draw(benchmark: BenchmarkPool, k: int) -> list[int]:
    """A uniform draw without replacement in random order; one draw a seed."""
    generator = torch.Generator().manual_seed(benchmark.seed)
    rows: list[int] = torch.randperm(len(benchmark.pool), generator=generator)[:k].tolist()
    return rows


def kmeans_medoids(benchmark: BenchmarkPool, k: int) -> list[int]:
    """The examples nearest to the centres of the traffic's k-means: Chang et al. (2021), arXiv 2107.14053."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError("the k-means baseline needs scikit-learn: pip install 'kdprompt[bench]'") from error
    traffic = benchmark.traffic_vectors
    clusters = KMeans(min(k, len(traffic)), n_init=10, random_state=benchmark.seed).fit(traffic.numpy())
    similarity = torch.as_tensor(clusters.cluster_centers_, dtype=benchmark.x.dtype) @ benchmark.x.T
    rows: list[int] = []
    for centre in similarity:
        rows.append(next(i for i in centre.argsort(descending=True).tolist() if i not in rows))
    return _arrange_by_traffic(benchmark, rows)


def facility_location(benchmark: BenchmarkPool, k: int) -> list[int]:
    """Greedy maximisation of Σ_q max_i ⟨q, x_i⟩: Nemhauser et al. (1978); survey by Bilmes (2022), arXiv 2202.00132."""
    similarity = benchmark.x @ benchmark.traffic_vectors.T
    return _arrange_by_traffic(benchmark, cover_lazily(similarity, min(k, len(benchmark.pool))))


def cover_lazily(similarity: Tensor, k: int) -> list[int]:
    """The k rows of ``similarity: [n, m]`` that greedily make Σ_j max_i s_ij the largest; of equal ones the first.

    What a row adds never grows as rows join, so what it last added bounds what it adds now: only rows whose bound
    reaches the best are looked at again (Minoux 1978, accelerated greedy).
    """
    if k == 0:
        return []
    rows = [int(similarity.sum(1).argmax())]
    covered = similarity[rows[0]].clone()
    bound = torch.cat([_sum_gains(part, covered) for part in similarity.split(TILE)])
    while len(rows) < k:
        bound[rows] = -1.0
        stale, best = bound.clone(), 0.0
        while True:
            value, top = stale.topk(min(FEW, len(stale)))
            if float(value[0]) <= 0 or float(value[0]) < best:
                break
            top = top[value > 0]
            bound[top] = _sum_gains(similarity[top], covered)
            stale[top] = -1.0
            best = max(best, float(bound[top].amax()))
        rows.append(int(bound.argmax()))
        covered = torch.maximum(covered, similarity[rows[-1]])
    return rows


def _sum_gains(similarity: Tensor, covered: Tensor) -> Tensor:
    """What each row ``[n, m]`` adds to what is covered ``[m]``, ``[n]``."""
    return (similarity - covered).clamp_min_(0).sum(1)


def herding(benchmark: BenchmarkPool, k: int) -> list[int]:
    """Kernel herding to the traffic's mean embedding (inputs alone): Chen, Welling, Smola (2010), arXiv 1203.3472."""
    kernel = Gaussian(TEMPERATURE)
    target = kernel(benchmark.x, benchmark.traffic_vectors).mean(-1)
    sums = torch.zeros_like(target)
    rows: list[int] = []
    for step in range(min(k, len(benchmark.pool))):
        score = target - sums / (step + 1)
        score[rows] = -torch.inf
        rows.append(int(score.argmax()))
        sums = sums + kernel(benchmark.x, benchmark.x[rows[-1:]]).squeeze(-1)
    return _arrange_by_traffic(benchmark, rows)


def kernel_thinning(benchmark: BenchmarkPool, k: int) -> list[int]:
    """Kernel thinning: Dwivedi & Mackey (2021), arXiv 2105.05842 and 2110.01593, by the library ``goodpoints``.

    A seeded sample of k·2^r examples is halved r times; swaps then pull the coreset to the traffic's mean embedding.
    """
    try:
        from goodpoints import kt
    except ImportError as error:
        raise ImportError("kernel thinning needs goodpoints: pip install 'kdprompt[bench]'") from error
    rounds = max(0, (len(benchmark.x) // max(k, 1)).bit_length() - 1)
    generator = torch.Generator().manual_seed(benchmark.seed)
    sample = torch.randperm(len(benchmark.x), generator=generator)[: k << rounds]
    x, kappa = benchmark.x[sample].double(), Gaussian(TEMPERATURE)

    def kernel(y: object, points: object) -> object:
        a, b = (torch.as_tensor(value, dtype=x.dtype) for value in (y, points))
        return kappa(a.reshape(-1, x.shape[-1]), b.reshape(-1, x.shape[-1])).reshape(-1).numpy()

    mean = kappa(x, benchmark.traffic_vectors.double()).mean(-1).numpy()
    coreset = kt.thin(x.numpy(), rounds, kernel, kernel, seed=benchmark.seed, meanK=mean, unique=True, store_K=True)
    return _arrange_by_traffic(benchmark, sample[torch.as_tensor(coreset.astype("int64"))].tolist())


def vote_k(benchmark: BenchmarkPool, k: int, *, neighbours: int = 150, rho: float = 10.0) -> list[int]:
    """The graph-based half of vote-k (the other half asks the model): Su et al. (2023), arXiv 2209.01975.

    Args:
        benchmark: Embedded pool; the traffic is not looked at.
        k: Demonstrations of the prompt.
        neighbours: Out-degree of the graph.
        rho: A vote counts ρ to the minus number of chosen neighbours of the voter.
    """
    similarity = (benchmark.x @ benchmark.x.T).fill_diagonal_(-torch.inf)
    near = similarity.topk(min(neighbours, len(benchmark.x) - 1), dim=-1).indices
    discount = torch.zeros(len(benchmark.x), dtype=torch.float64)
    rows: list[int] = []
    for _ in range(min(k, len(benchmark.x))):
        weights = (rho**-discount).repeat_interleave(near.shape[1])
        votes = torch.zeros_like(discount).index_add(0, near.flatten(), weights)
        votes[rows] = -torch.inf
        rows.append(int(votes.argmax()))
        discount += (near == rows[-1]).any(-1).to(discount.dtype)
    return _arrange_by_traffic(benchmark, rows)


def _arrange_by_traffic(benchmark: BenchmarkPool, rows: Sequence[int]) -> list[int]:
    """Rows by similarity to the mean of the traffic, the most similar last."""
    chosen = torch.as_tensor(list(rows), dtype=torch.long)
    order: Tensor = (benchmark.x[chosen] @ benchmark.traffic_vectors.mean(0)).argsort()
    arranged: list[int] = chosen[order].tolist()
    return arranged


STATIC_BASELINES: dict[str, StaticBaseline] = {
    "random": random_draw,
    "kmeans-medoids": kmeans_medoids,
    "facility-location": facility_location,
    "herding": herding,
    "kernel-thinning": kernel_thinning,
    "vote-k": vote_k,
}
