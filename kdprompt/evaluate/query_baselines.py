"""Published selectors of demonstrations for each query, as small functions on the same embeddings.

Each takes a ``BenchmarkPool``, a ``QueryBatch`` and k, and returns rows of the pool in prompt order ``[m, k]``. The
best demonstration stands last, next to the query, unless the name says otherwise: most models do better so.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kdprompt.evaluate.benchmark_pool import BenchmarkPool, QueryBatch
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder
from kdprompt.theory.kernels import Gaussian

__all__ = [
    "QUERY_BASELINES",
    "QueryBaseline",
    "bm25",
    "dpp",
    "kite",
    "label_balanced",
    "mmr",
    "nearest_first",
    "nearest_last",
    "set_bsr",
    "zero_shot",
]

QueryBaseline = Callable[[BenchmarkPool, QueryBatch, int], Tensor]
SHORTLIST = 100


def zero_shot(benchmark: BenchmarkPool, batch: QueryBatch, k: int) -> Tensor:
    """No demonstrations, whatever k."""
    return torch.zeros(len(batch.queries), 0, dtype=torch.long)


def nearest_first(benchmark: BenchmarkPool, batch: QueryBatch, k: int) -> Tensor:
    """The k nearest neighbours, nearest first, as most libraries return them."""
    return (batch.q @ benchmark.x.T).topk(min(k, len(benchmark.x)), dim=-1).indices


def nearest_last(benchmark: BenchmarkPool, batch: QueryBatch, k: int) -> Tensor:
    """The k nearest neighbours, nearest last: Liu et al. (2022), arXiv 2101.06804 (KATE)."""
    return nearest_first(benchmark, batch, k).flip(-1)


def bm25(benchmark: BenchmarkPool, batch: QueryBatch, k: int) -> Tensor:
    """The k best by BM25: Robertson & Zaragoza (2009), by the library ``bm25s`` (arXiv 2407.03618)."""
    library, index = _bm25_index(tuple(d.input for d in benchmark.pool))
    tokens = library.tokenize([query.text for query in batch.queries], show_progress=False, return_ids=False)
    rows, _ = index.retrieve(tokens, k=min(k, len(benchmark.x)), show_progress=False)
    return torch.as_tensor(rows.astype("int64")).flip(-1)


@lru_cache(maxsize=2)
def _bm25_index(texts: tuple[str, ...]) -> tuple[Any, Any]:
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("the BM25 baseline needs bm25s: pip install 'kdprompt[bench]'") from error
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts), show_progress=False), show_progress=False)
    return bm25s, index


def mmr(benchmark: BenchmarkPool, batch: QueryBatch, k: int, *, trade_off: float = 0.7) -> Tensor:
    """Maximal marginal relevance: Carbonell & Goldstein (1998); for demonstrations Ye et al. (2023), arXiv 2211.13892.

    Args:
        benchmark: Embedded pool of n demonstrations.
        batch: m queries.
        k: Demonstrations a prompt.
        trade_off: λ in [0, 1]; 1 is nearest neighbours.

    Returns:
        ``[m, k]``; the demonstration chosen first stands last.
    """
    index, nearness, among = _shortlist(benchmark, batch)
    redundancy = torch.zeros_like(nearness)
    taken = torch.zeros_like(nearness, dtype=torch.bool)
    order: list[Tensor] = []
    for _ in range(min(k, nearness.shape[-1])):
        score = trade_off * nearness - (1 - trade_off) * redundancy
        pick = score.masked_fill(taken, -torch.inf).argmax(-1, keepdim=True)
        taken.scatter_(-1, pick, True)
        closeness = _gather_row(among, pick)
        redundancy = torch.maximum(redundancy, closeness) if order else closeness
        order.append(pick)
    return index.gather(-1, torch.cat(order, -1)).flip(-1)


def dpp(benchmark: BenchmarkPool, batch: QueryBatch, k: int, *, relevance: float = 0.1) -> Tensor:
    """Greedy MAP of a k-DPP: Chen et al. (2018), arXiv 1709.05135; Ye et al. (2023), arXiv 2302.05698.

    The kernel is r_i (1 + ⟨x_i, x_j⟩)/2 r_j with relevance r_i = exp(⟨q, x_i⟩ / (2 · ``relevance``)); nothing is
    trained.

    Args:
        benchmark: Embedded pool of n demonstrations.
        batch: m queries.
        k: Demonstrations a prompt.
        relevance: Smaller weighs nearness more.

    Returns:
        ``[m, k]``, nearest last.
    """
    index, nearness, among = _shortlist(benchmark, batch)
    scale = ((nearness - nearness.amax(-1, keepdim=True)) / (2 * relevance)).double().exp()
    kernel = scale[:, :, None] * (1 + among.double()) / 2 * scale[:, None, :]
    picks = _choose_by_posterior(kernel, torch.zeros_like(scale), k, noise=0.0, gain=lambda variance, _: variance)
    return _arrange_nearest_last(index, nearness, picks)


def kite(
    benchmark: BenchmarkPool,
    batch: QueryBatch,
    k: int,
    *,
    temperature: float = 0.25,
    noise: float = 0.1,
    diversity: float = 0.1,
) -> Tensor:
    """Kernelised submodular selection in the manner of KITE, arXiv 2509.15676.

    Greedy on the variance of a kernel regression at the query that a demonstration removes, plus a D-optimal
    design regulariser: k_S(q, x)² / (k_S(x, x) + noise) + diversity · log(1 + k_S(x, x) / noise), where k_S is the
    Gaussian kernel conditioned on what is chosen.

    Args:
        benchmark: Embedded pool of n demonstrations.
        batch: m queries.
        k: Demonstrations a prompt.
        temperature: Temperature of the kernel.
        noise: Ridge of the regression.
        diversity: Weight of the regulariser.

    Returns:
        ``[m, k]``, nearest last.
    """
    index, nearness, _ = _shortlist(benchmark, batch)
    kappa = Gaussian(temperature)
    x = benchmark.x[index].double()
    kernel, cross = kappa(x, x), kappa(x, batch.q.double()[:, None, :]).squeeze(-1)

    def gain(variance: Tensor, covariance: Tensor) -> Tensor:
        return covariance.square() / (variance + noise) + diversity * (variance / noise).log1p()

    return _arrange_nearest_last(index, nearness, _choose_by_posterior(kernel, cross, k, noise=noise, gain=gain))


def _choose_by_posterior(
    kernel: Tensor, cross: Tensor, k: int, *, noise: float, gain: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Greedy choice by the posterior of a Gaussian process that is conditioned on the choice so far.

    Args:
        kernel: Prior covariance of the candidates ``[m, L, L]``.
        cross: Their prior covariance with the query ``[m, L]``.
        k: Number of candidates to choose.
        noise: Added to the variance of each chosen candidate.
        gain: From posterior variance and posterior covariance with the query ``[m, L]`` to the gain ``[m, L]``.

    Returns:
        Positions ``[m, min(k, L)]`` in order of choice, by an incremental Cholesky factorisation.
    """
    variance = kernel.diagonal(dim1=-2, dim2=-1).clone()
    covariance = cross.to(kernel).clone()
    taken = torch.zeros_like(variance, dtype=torch.bool)
    factors = kernel.new_zeros(*kernel.shape[:2], 0)
    order: list[Tensor] = []
    for _ in range(min(k, kernel.shape[-1])):
        score = gain(variance.clamp_min(0), covariance)
        pick = score.masked_fill(taken, -torch.inf).argmax(-1, keepdim=True)
        pick_factor = factors.gather(1, pick[..., None].expand(-1, -1, factors.shape[-1]))
        root = (variance.gather(-1, pick) + noise).clamp_min(1e-12).sqrt()
        column = (_gather_row(kernel, pick) - (factors * pick_factor).sum(-1)) / root
        covariance = covariance - column * (covariance.gather(-1, pick) / root)
        variance = variance - column.square()
        factors = torch.cat([factors, column[..., None]], -1)
        taken.scatter_(-1, pick, True)
        order.append(pick)
    return torch.cat(order, -1)


def label_balanced(benchmark: BenchmarkPool, batch: QueryBatch, k: int) -> Tensor:
    """The nearest of each output, then the second nearest of each, and so on; nearer outputs first; nearest last."""
    similarity = batch.q @ benchmark.x.T
    order = similarity.argsort(dim=-1, descending=True)
    codes = benchmark.output_codes[order]
    turn = torch.zeros_like(codes)  # how many demonstrations of the same output are nearer
    for code in codes.unique():
        same = codes == code
        turn[same] = (same.cumsum(-1) - 1)[same]
    first = turn.argsort(dim=-1, stable=True)[:, : min(k, len(benchmark.x))]
    rows = order.gather(-1, first)
    return rows.gather(-1, similarity.gather(-1, rows).argsort(-1))


def set_bsr(benchmark: BenchmarkPool, batch: QueryBatch, k: int) -> Tensor:
    """Set-BSR: Gupta et al. (2023), arXiv 2305.14907, with MiniLM's token embeddings.

    Greedy coverage of the query's tokens: the sum over them of the largest similarity with a token of a chosen
    example (BERTScore recall of a set, without idf weights).

    Args:
        benchmark: Embedded pool of n demonstrations.
        batch: m queries.
        k: Demonstrations a prompt.

    Returns:
        ``[m, k]``; the largest recall on its own stands last.
    """
    token_vectors, owner = _token_vectors(tuple(d.input for d in benchmark.pool))
    rows = []
    for query in batch.queries:
        query_tokens = _encode_tokens([query.text])[0]
        recall = torch.full((len(benchmark.pool), len(query_tokens)), -1.0)  # each example's best match of each token
        recall.scatter_reduce_(0, owner[:, None].expand(-1, len(query_tokens)), token_vectors @ query_tokens.T, "amax")
        covered = torch.full((len(query_tokens),), -1.0)
        order: list[int] = []
        for _ in range(min(k, len(benchmark.pool))):
            gain = torch.maximum(recall, covered).sum(-1)
            gain[order] = -torch.inf
            order.append(int(gain.argmax()))
            covered = torch.maximum(covered, recall[order[-1]])
        alone = recall[order].sum(-1).argsort(stable=True)
        rows.append(torch.tensor(order)[alone])
    return torch.stack(rows)


@lru_cache(maxsize=1)
def _token_vectors(texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Unit-norm token embeddings of all texts ``[w, d]``, and the index of each token's text ``[w]``."""
    by_text = _encode_tokens(list(texts))
    lengths = torch.tensor([len(vectors) for vectors in by_text])
    return torch.cat(by_text), torch.repeat_interleave(torch.arange(len(by_text)), lengths)


@lru_cache(maxsize=1)
def _token_model() -> Any:
    return SentenceTransformerEmbedder(device="cpu").model


def _encode_tokens(texts: Sequence[str]) -> list[Tensor]:
    """Unit-norm embeddings of each text's tokens, the special ones at both ends left out."""
    encoded = _token_model().encode(list(texts), output_value="token_embeddings", show_progress_bar=False)
    by_text = [torch.as_tensor(vectors).float().cpu() for vectors in encoded]
    return [torch.nn.functional.normalize(v[1:-1] if len(v) > 2 else v, dim=-1) for v in by_text]


def _shortlist(benchmark: BenchmarkPool, batch: QueryBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest rows ``[m, L]``, their similarity to the query ``[m, L]`` and among themselves ``[m, L, L]``."""
    near = (batch.q @ benchmark.x.T).topk(min(SHORTLIST, len(benchmark.x)), dim=-1)
    x = benchmark.x[near.indices]
    return near.indices, near.values, x @ x.transpose(-1, -2)


def _gather_row(matrix: Tensor, pick: Tensor) -> Tensor:
    """Row ``pick: [m, 1]`` of each matrix ``[m, L, L]``, as ``[m, L]``."""
    return matrix.gather(1, pick[..., None].expand(-1, -1, matrix.shape[-1])).squeeze(1)


def _arrange_nearest_last(index: Tensor, nearness: Tensor, picks: Tensor) -> Tensor:
    by_nearness = nearness.gather(-1, picks).argsort(-1)
    return index.gather(-1, picks.gather(-1, by_nearness))


QUERY_BASELINES: dict[str, QueryBaseline] = {
    "zero-shot": zero_shot,
    "bm25": bm25,
    "nearest-last": nearest_last,
    "nearest-first": nearest_first,
    "mmr": mmr,
    "dpp": dpp,
    "label-balanced": label_balanced,
    "set-bsr": set_bsr,
    "kite": kite,
}
