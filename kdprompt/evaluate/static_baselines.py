"""Other selectors of one prompt for all queries. Each takes a ``Problem`` and k and returns rows in reading order.

They see the traffic (dev queries without outputs), never the queries that will be asked. Where a method gives a set,
the rows nearest to the mean of the traffic stand last.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdprompt.evaluate.datasets import Problem
from kdprompt.theory.kernels import Gaussian

__all__ = [
    "STATIC",
    "StaticBaseline",
    "facility_location",
    "herding",
    "kernel_thinning",
    "kmeans_medoids",
    "random_draw",
    "vote_k",
]

StaticBaseline = Callable[[Problem, int], list[int]]
TEMPERATURE = 0.25  # of the kernel where a method asks for one


def random_draw(problem: Problem, k: int) -> list[int]:
    """A uniform draw without replacement in random order; one for each seed of the problem."""
    generator = torch.Generator().manual_seed(problem.seed)
    rows: list[int] = torch.randperm(len(problem.pool), generator=generator)[:k].tolist()
    return rows


def kmeans_medoids(problem: Problem, k: int) -> list[int]:
    """The examples nearest to the centres of the traffic's k-means: Chang et al. (2021), arXiv 2107.14053."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError("the k-means baseline needs scikit-learn: pip install 'kdprompt[bench]'") from error
    traffic = problem.traffic_vectors
    found = KMeans(min(k, len(traffic)), n_init=10, random_state=problem.seed).fit(traffic.numpy())
    similarity = torch.as_tensor(found.cluster_centers_, dtype=problem.x.dtype) @ problem.x.T
    rows: list[int] = []
    for centre in similarity:
        rows.append(next(i for i in centre.argsort(descending=True).tolist() if i not in rows))
    return _arranged(problem, rows)


def facility_location(problem: Problem, k: int) -> list[int]:
    """Greedy maximisation of Σ_q max_i ⟨q, x_i⟩: Nemhauser et al. (1978); survey by Bilmes (2022), arXiv 2202.00132."""
    similarity = problem.traffic_vectors @ problem.x.T
    covered = torch.full((len(similarity),), -1.0)
    rows: list[int] = []
    for _ in range(min(k, len(problem.pool))):
        gain = torch.maximum(similarity, covered[:, None]).sum(0)
        gain[rows] = -torch.inf
        rows.append(int(gain.argmax()))
        covered = torch.maximum(covered, similarity[:, rows[-1]])
    return _arranged(problem, rows)


def herding(problem: Problem, k: int) -> list[int]:
    """Kernel herding to the traffic's mean embedding (inputs alone): Chen, Welling, Smola (2010), arXiv 1203.3472."""
    kernel = Gaussian(TEMPERATURE)
    target = kernel(problem.x, problem.traffic_vectors).mean(-1)
    sums = torch.zeros_like(target)
    rows: list[int] = []
    for step in range(min(k, len(problem.pool))):
        score = target - sums / (step + 1)
        score[rows] = -torch.inf
        rows.append(int(score.argmax()))
        sums = sums + kernel(problem.x, problem.x[rows[-1:]]).squeeze(-1)
    return _arranged(problem, rows)


def kernel_thinning(problem: Problem, k: int) -> list[int]:
    """Kernel thinning: Dwivedi & Mackey (2021), arXiv 2105.05842 and 2110.01593, by the library ``goodpoints``.

    A seeded sample of k·2^r examples is halved r times; swaps then pull the coreset to the traffic's mean embedding.
    """
    try:
        from goodpoints import kt
    except ImportError as error:
        raise ImportError("kernel thinning needs goodpoints: pip install 'kdprompt[bench]'") from error
    rounds = max(0, (len(problem.x) // max(k, 1)).bit_length() - 1)
    generator = torch.Generator().manual_seed(problem.seed)
    sample = torch.randperm(len(problem.x), generator=generator)[: k << rounds]
    x, kappa = problem.x[sample].double(), Gaussian(TEMPERATURE)

    def kernel(y: object, points: object) -> object:
        a, b = (torch.as_tensor(value, dtype=x.dtype) for value in (y, points))
        return kappa(a.reshape(-1, x.shape[-1]), b.reshape(-1, x.shape[-1])).reshape(-1).numpy()

    mean = kappa(x, problem.traffic_vectors.double()).mean(-1).numpy()
    coreset = kt.thin(x.numpy(), rounds, kernel, kernel, seed=problem.seed, meanK=mean, unique=True, store_K=True)
    return _arranged(problem, sample[torch.as_tensor(coreset.astype("int64"))].tolist())


def vote_k(problem: Problem, k: int, *, neighbours: int = 150, rho: float = 10.0) -> list[int]:
    """The graph-based half of vote-k (the other half asks the model): Su et al. (2023), arXiv 2209.01975.

    Args:
        problem: Pool; the traffic is not looked at.
        k: Demonstrations.
        neighbours: Out-degree of the graph.
        rho: A vote counts ρ to the minus number of chosen neighbours of the voter.
    """
    similarity = (problem.x @ problem.x.T).fill_diagonal_(-torch.inf)
    near = similarity.topk(min(neighbours, len(problem.x) - 1), dim=-1).indices
    discount = torch.zeros(len(problem.x), dtype=torch.float64)
    rows: list[int] = []
    for _ in range(min(k, len(problem.x))):
        weights = (rho**-discount).repeat_interleave(near.shape[1])
        votes = torch.zeros_like(discount).index_add(0, near.flatten(), weights)
        votes[rows] = -torch.inf
        rows.append(int(votes.argmax()))
        discount += (near == rows[-1]).any(-1).to(discount.dtype)
    return _arranged(problem, rows)


def _arranged(problem: Problem, rows: Sequence[int]) -> list[int]:
    chosen = torch.as_tensor(list(rows), dtype=torch.long)
    order: Tensor = (problem.x[chosen] @ problem.traffic_vectors.mean(0)).argsort()
    arranged: list[int] = chosen[order].tolist()
    return arranged


STATIC: dict[str, StaticBaseline] = {
    "random": random_draw,
    "kmeans-medoids": kmeans_medoids,
    "facility-location": facility_location,
    "herding": herding,
    "kernel-thinning": kernel_thinning,
    "vote-k": vote_k,
}
