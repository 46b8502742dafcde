"""Every baseline against a naive float64 version of its definition, on random embeddings and on real texts."""

import math

import numpy as np
import pytest
import torch

from kdprompt.evaluate import query_baselines as per_query
from kdprompt.evaluate import static_baselines as static
from kdprompt.evaluate.benchmark_pool import BenchmarkPool, QueryBatch
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Query
from kdprompt.resources import support_desk, support_desk_queries

N, M, D = 60, 7, 5


def unit(rows: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, D, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def embedded() -> BenchmarkPool:
    rows = [{"input": f"example {i}", "output": "abc"[i * i % 7 % 3]} for i in range(N)]
    queries = tuple(Query(text=f"query {i}") for i in range(20))
    return BenchmarkPool(Pool.from_records(rows), unit(N, 0), queries, unit(20, 2), embed=None)


@pytest.fixture(scope="module")
def batch() -> QueryBatch:
    return QueryBatch(tuple(Query(text=f"asked {i}") for i in range(M)), unit(M, 1))


def cosines(embedded: BenchmarkPool, batch: QueryBatch) -> np.ndarray:
    return (batch.q.double() @ embedded.x.double().T).numpy()


def nearest_last_of(rows: list[int], similarity: np.ndarray) -> list[int]:
    return sorted(rows, key=lambda i: similarity[i])


def test_nearest_neighbours(embedded, batch):
    expected = np.argsort(-cosines(embedded, batch), axis=1)[:, :4]
    assert per_query.nearest_first(embedded, batch, 4).tolist() == expected.tolist()
    assert per_query.nearest_last(embedded, batch, 4).tolist() == expected[:, ::-1].tolist()
    assert per_query.zero_shot(embedded, batch, 4).shape == (M, 0)


@pytest.mark.parametrize("trade_off", [0.1, 0.3, 0.7, 1.0])
def test_mmr(embedded, batch, trade_off):
    among = (embedded.x.double() @ embedded.x.double().T).numpy()
    found = per_query.mmr(embedded, batch, 5, trade_off=trade_off).tolist()
    for similarity, rows in zip(cosines(embedded, batch), found, strict=True):
        chosen: list[int] = []
        for _ in range(5):
            rest = [i for i in range(N) if i not in chosen]
            chosen.append(
                max(
                    rest,
                    key=lambda i: (
                        trade_off * similarity[i] - (1 - trade_off) * max((among[i, j] for j in chosen), default=0.0)
                    ),
                )
            )
        assert rows == chosen[::-1]
    if trade_off == 1.0:
        assert found == per_query.nearest_last(embedded, batch, 5).tolist()


def test_dpp_maximises_the_determinant_greedily(embedded, batch):
    x = embedded.x.double().numpy()
    found = per_query.dpp(embedded, batch, 4, relevance=0.2).tolist()
    for similarity, rows in zip(cosines(embedded, batch), found, strict=True):
        r = np.exp(similarity / 0.4)
        kernel = r[:, None] * (1 + x @ x.T) / 2 * r[None, :]
        chosen: list[int] = []
        for _ in range(4):
            rest = [i for i in range(N) if i not in chosen]
            chosen.append(max(rest, key=lambda i: np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])])[1]))
        assert rows == nearest_last_of(chosen, similarity)


def test_kite_conditions_a_gaussian_process(embedded, batch):
    x, t, noise, weight = embedded.x.double().numpy(), 0.5, 0.2, 0.3
    kernel = np.exp((x @ x.T - 1) / t)
    found = per_query.kite(embedded, batch, 4, temperature=t, noise=noise, diversity=weight).tolist()
    for similarity, rows in zip(cosines(embedded, batch), found, strict=True):
        cross = np.exp((similarity - 1) / t)
        chosen: list[int] = []
        for _ in range(4):
            inverse = np.linalg.inv(kernel[np.ix_(chosen, chosen)] + noise * np.eye(len(chosen)))

            def gain(i, chosen=chosen, inverse=inverse, cross=cross):
                k = kernel[i, chosen]
                variance, covariance = kernel[i, i] - k @ inverse @ k, cross[i] - k @ inverse @ cross[chosen]
                return covariance**2 / (variance + noise) + weight * math.log1p(variance / noise)

            chosen.append(max((i for i in range(N) if i not in chosen), key=gain))
        assert rows == nearest_last_of(chosen, similarity)


def test_label_balanced_takes_the_labels_in_turn(embedded, batch):
    labels = embedded.output_codes.tolist()
    for similarity, rows in zip(
        cosines(embedded, batch), per_query.label_balanced(embedded, batch, 7).tolist(), strict=True
    ):
        chosen: list[int] = []
        by_label = {
            code: sorted((i for i in range(N) if labels[i] == code), key=lambda i: -similarity[i])
            for code in set(labels)
        }
        for turn in range(3):
            chosen += sorted((rows[turn] for rows in by_label.values()), key=lambda i: -similarity[i])
        assert rows == nearest_last_of(chosen[:7], similarity)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_static_baselines_return_distinct_rows(embedded, k):
    for name, function in static.STATIC_BASELINES.items():
        rows = function(embedded, k)
        assert len(rows) == len(set(rows)) == k and all(0 <= row < N for row in rows), name


def test_facility_location_and_herding_are_greedy(embedded):
    traffic, x = embedded.traffic_vectors.double().numpy(), embedded.x.double().numpy()
    similarity, kernel = traffic @ x.T, np.exp((x @ x.T - 1) / static.TEMPERATURE)
    target = np.exp((similarity - 1) / static.TEMPERATURE).mean(0)
    located: list[int] = []
    herded: list[int] = []
    for step in range(5):
        located.append(
            max(
                (i for i in range(N) if i not in located),
                key=lambda i: np.max(similarity[:, [*located, i]], axis=1).sum(),
            )
        )
        sums = kernel[:, herded].sum(1) if herded else np.zeros(N)
        herded.append(max((i for i in range(N) if i not in herded), key=lambda i: target[i] - sums[i] / (step + 1)))
    mean = x @ traffic.mean(0)
    assert static.facility_location(embedded, 5) == nearest_last_of(located, mean)
    assert static.herding(embedded, 5) == nearest_last_of(herded, mean)


@pytest.mark.parametrize("few", [1, 3, 64])
@pytest.mark.parametrize("seed", range(6))
def test_facility_location_looks_at_few_rows_and_takes_what_greedy_takes(few, seed, monkeypatch):
    monkeypatch.setattr(static, "FEW", few)
    rng = np.random.default_rng(seed)
    similarity = rng.integers(-8, 9, size=(40, 12)) / 8  # ties abound, and rows that repeat one another
    similarity[20:] = similarity[rng.integers(20, size=20)]
    expected: list[int] = []
    for _ in range(40):  # beyond what adds anything
        added = [(np.max(similarity[[*expected, i]], axis=0).sum(), -i) for i in range(40) if i not in expected]
        expected.append(-max(added)[1])
    for k in (0, 1, 2, 7, 40):
        assert static.cover_lazily(torch.as_tensor(similarity), k) == expected[:k]


def test_vote_k_discounts_what_is_covered(embedded):
    x = embedded.x.double().numpy()
    near = np.argsort(-(x @ x.T), axis=1)[:, 1:6]
    chosen: list[int] = []
    for _ in range(4):
        weight = [2.0 ** -sum(j in near[i] for j in chosen) for i in range(N)]
        votes = [sum(weight[i] for i in range(N) if j in near[i]) for j in range(N)]
        chosen.append(max((j for j in range(N) if j not in chosen), key=lambda j: votes[j]))
    mean = x @ embedded.traffic_vectors.double().numpy().mean(0)
    assert static.vote_k(embedded, 4, neighbours=5, rho=2.0) == nearest_last_of(chosen, mean)


def test_kernel_thinning_is_nearer_to_the_traffic_than_random_draws(embedded):
    def mmd2(rows: list[int]) -> float:
        a, b = embedded.x[rows].double(), embedded.traffic_vectors.double()
        k = lambda u, v: float(((u @ v.T - 1) / static.TEMPERATURE).exp().mean())  # noqa: E731
        return k(a, a) - 2 * k(a, b) + k(b, b)

    from dataclasses import replace

    drawn = sorted(mmd2(static.random_draw(replace(embedded, seed=seed), 8)) for seed in range(50))
    assert mmd2(static.kernel_thinning(embedded, 8)) < drawn[5]


def test_kmeans_medoids_are_the_examples_nearest_to_the_centres(embedded):
    from sklearn.cluster import KMeans

    centres = KMeans(4, n_init=10, random_state=0).fit(embedded.traffic_vectors.numpy()).cluster_centers_
    expected = {int(np.argmax(embedded.x.numpy() @ centre)) for centre in centres}
    assert expected <= set(static.kmeans_medoids(embedded, 4))


@pytest.fixture(scope="module")
def desk(embedder) -> tuple[BenchmarkPool, QueryBatch]:
    pool = support_desk()
    queries = tuple(Query(text=row["input"]) for row in support_desk_queries()[:5])
    x, q = (torch.as_tensor(embedder.embed_documents(t)) for t in ([d.input for d in pool], [a.text for a in queries]))
    return BenchmarkPool(pool, x, queries, q, embed=None), QueryBatch(queries, q)


def test_bm25_ranks_by_its_formula(desk):
    embedded, batch = desk
    import bm25s

    documents = bm25s.tokenize([d.input for d in embedded.pool], show_progress=False, return_ids=False)
    average = sum(map(len, documents)) / len(documents)
    for query, rows in zip(batch.queries, per_query.bm25(embedded, batch, 5).tolist(), strict=True):
        words = set(bm25s.tokenize([query.text], show_progress=False, return_ids=False)[0])

        def score(document, words=words):
            total = 0.0
            for word in words:
                holds = sum(word in other for other in documents)
                idf = math.log(1 + (len(documents) - holds + 0.5) / (holds + 0.5))
                count = document.count(word)
                total += idf * count / (count + 1.5 * (0.25 + 0.75 * len(document) / average))
            return total

        scores = [score(document) for document in documents]
        assert sorted((scores[row] for row in rows), reverse=True) == pytest.approx(
            sorted(scores, reverse=True)[:5], rel=1e-4
        )
        assert [scores[row] for row in rows] == sorted(scores[row] for row in rows)


def test_set_bsr_covers_the_query_greedily(desk, embedder):
    embedded, batch = desk

    def tokens(text: str) -> np.ndarray:
        found = embedder.model.encode(text, output_value="token_embeddings", show_progress_bar=False)
        found = found.double().cpu().numpy()[1:-1]
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    shown = [tokens(d.input) for d in embedded.pool]
    for query, rows in zip(batch.queries, per_query.set_bsr(embedded, batch, 3).tolist(), strict=True):
        query_tokens = tokens(query.text)
        recall = np.stack([(query_tokens @ other.T).max(1) for other in shown])
        best, chosen = np.full(len(query_tokens), -1.0), []
        for _ in range(3):
            gains = [np.maximum(recall[i], best).sum() if i not in chosen else -np.inf for i in range(len(shown))]
            chosen.append(int(np.argmax(gains)))
            best = np.maximum(best, recall[chosen[-1]])
        assert sorted(rows) == sorted(chosen) and rows[-1] == max(chosen, key=lambda i: recall[i].sum())
