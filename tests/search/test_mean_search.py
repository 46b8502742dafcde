"""Sets of least MMD over all rows, against greedy search and swaps written plainly in NumPy."""

import numpy as np
import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector, ObjectiveSettings, ObjectiveWeights, Settings
from kdprompt.search import mean_search
from kdprompt.search.mean_search import MeanProblem, search_by_means
from kdprompt.selection import static
from kdprompt.theory.kernels import Gaussian, Polynomial

SHARE = 0.4
KERNELS = {
    "gaussian": (Gaussian(0.3), lambda x, y: np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / 0.6)),
    "polynomial": (Polynomial(2, 0.7), lambda x, y: (x @ y.T + 0.7) ** 2),  # κ(x, x) differs from row to row
}


def gram(textbook, x, v, other_x, other_v):
    return textbook(x, other_x) * ((1 - SHARE) + SHARE * v @ other_v.T)


def search_plainly(kernel, mean, compatible, allowed, k):
    """Greedy search for the least MMD², then the best swap as long as one lowers it."""

    def score(rows):
        return kernel[np.ix_(rows, rows)].sum() / len(rows) ** 2 - 2 * mean[rows].sum() / len(rows)

    def fits(row, rows):
        return allowed[row] and all(compatible[row, other] for other in rows)

    rows = []
    for _ in range(k):
        free = [i for i in range(len(mean)) if fits(i, rows)]
        if not free:
            break
        rows.append(min(free, key=lambda i: score([*rows, i])))
    while True:
        swaps = [
            [*rows[:slot], i, *rows[slot + 1 :]]
            for slot in range(len(rows))
            for i in range(len(mean))
            if fits(i, rows[:slot] + rows[slot + 1 :])
        ]
        best = min(swaps, key=score, default=rows)
        if not swaps or score(best) >= score(rows) - 1e-9:
            return rows
        rows = best


@pytest.mark.parametrize("k", [1, 5, 30])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kernel", "textbook"), KERNELS.values(), ids=KERNELS)
def test_it_is_greedy_search_with_swaps(kernel, textbook, k, seed, device, monkeypatch):
    monkeypatch.setattr(mean_search, "TILE", 7)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 5))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    v, text = np.eye(3)[rng.integers(3, size=40)], rng.integers(25, size=40)
    if kernel == KERNELS["polynomial"][0]:
        x, v = x * rng.uniform(0.5, 1.2, size=(40, 1)), rng.dirichlet(np.ones(3), size=40)
    q = rng.normal(size=(9, 5))
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    qv, weights = rng.dirichlet(np.ones(3), size=9), rng.dirichlet(np.ones(9))
    allowed = rng.random(40) < 0.8
    tensors = {"x": x, "v": v, "text": text, "allowed": allowed, "place": np.arange(40)}
    problem = MeanProblem(
        kernel=kernel,
        output_share=SHARE,
        near_duplicate=0.9,
        **{name: torch.as_tensor(value, device=device) for name, value in tensors.items()},
    )
    mean = problem.evaluate_mean(*(torch.as_tensor(value, device=device) for value in (q, qv, weights)))
    expected_mean = gram(textbook, x, v, q, qv) @ weights
    np.testing.assert_allclose(mean.cpu(), expected_mean, atol=1e-12)
    compatible = (text[:, None] != text[None]) & (x @ x.T < 0.9)
    expected = search_plainly(gram(textbook, x, v, x, v), expected_mean, compatible, allowed, k)
    assert search_by_means(problem, mean, k) == expected


def test_of_equal_rows_the_first_in_the_order_of_ids_is_taken():
    x = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), dim=-1)
    one = torch.ones(4, 1)
    problem = MeanProblem(
        x, one, Gaussian(1.0), 0.0, torch.arange(4), 2.0, torch.ones(4, dtype=torch.bool), torch.tensor([2, 0, 1, 3])
    )
    mean = problem.evaluate_mean(x[:1], one[:1], torch.ones(1))
    assert search_by_means(problem, mean, 1) == [2]


@pytest.mark.parametrize("task", [None, "a"])
def test_a_static_prompt_is_the_same_with_and_without_gram_matrices(task, monkeypatch):
    vectors = torch.randn(203, 8, generator=torch.Generator().manual_seed(1))
    examples = [
        {"input": f"text {i}", "output": ["red", "blue", "green"][i % 3], "task": "ab"[i % 2]} for i in range(200)
    ]
    embedder = CallableEmbedder(lambda texts: vectors[[int(text.split()[-1]) for text in texts]])
    chosen = Settings(k=6, calibrate=False, objective=ObjectiveSettings(weights=ObjectiveWeights()))
    selector = DistillationSelector.from_examples(examples, embedder, settings=chosen)
    queries = [f"query {i}" for i in range(200, 203)]
    found = selector.select_static(queries, task=task)
    monkeypatch.setattr(static, "_weighs_means_alone", lambda _: False)
    assert found.ids == selector.select_static(queries, task=task).ids
    assert task is None or {shown.task for shown in found.demonstrations} == {task}


def test_a_static_prompt_of_a_changed_pool_is_that_of_the_pool_in_one_go():
    vectors = torch.randn(60, 8, generator=torch.Generator().manual_seed(2))
    examples = [{"input": f"text {i}", "output": ["red", "blue"][i % 2]} for i in range(60)]
    embedder = CallableEmbedder(lambda texts: vectors[[int(text.split()[-1]) for text in texts]])
    chosen = Settings(
        k=6, calibrate=False, objective=ObjectiveSettings(kernel=Gaussian(0.5), weights=ObjectiveWeights())
    )
    selector = DistillationSelector.from_examples(examples[:40], embedder, settings=chosen)
    first = selector.select_static([f"q {i}" for i in range(9)])
    selector.add_examples(examples[40:])
    selector.remove(first.ids[:2])
    fresh = DistillationSelector.from_examples(list(selector.pool), embedder, settings=chosen)
    fresh.calibration = selector.calibration
    queries = [f"q {i}" for i in range(30)]
    found = selector.select_static(queries)
    assert found.ids == fresh.select_static(queries).ids and not set(found.ids) & set(first.ids[:2])


@pytest.mark.parametrize("order", [None, "agreement-last", "likeliest-last"])
def test_outputs_of_queries_are_estimated_when_somebody_looks_at_them(order, monkeypatch):
    vectors = torch.randn(83, 8, generator=torch.Generator().manual_seed(3))
    examples = [{"input": f"text {i}", "output": ["red", "blue", "green"][i % 3]} for i in range(60)]
    embedder = CallableEmbedder(lambda texts: vectors[[int(text.split()[-1]) for text in texts]])
    pinned = ObjectiveSettings(kernel=Gaussian(0.5), output_share=0.0, weights=ObjectiveWeights())
    chosen = Settings(k=6, calibrate=False, objective=pinned, order=order)
    selector = DistillationSelector.from_examples(examples, embedder, settings=chosen)
    queries = [f"query {i}" for i in range(60, 83)]
    estimated, calls = static.estimate_sample_target, []
    monkeypatch.setattr(static, "estimate_sample_target", lambda *given: calls.append(1) or estimated(*given))
    found = selector.select_static(queries)
    assert len(found.ids) == 6 and len(calls) == (order == "likeliest-last")  # it alone looks at estimates, not J
    monkeypatch.setattr(static, "assume_sample_target", None)
    monkeypatch.setattr(static, "_weighs_means_alone", lambda _: False)
    other = selector.select_static(queries)
    assert found == other and found.support > 0 and found.estimate


@pytest.mark.parametrize("share", [0.0, SHARE])
@pytest.mark.parametrize(("kernel", "textbook"), KERNELS.values(), ids=KERNELS)
def test_points_that_are_the_rows_in_any_order_are_known_again(kernel, textbook, share, device, monkeypatch):
    monkeypatch.setattr(mean_search, "TILE", 7)
    rng = np.random.default_rng(5)
    x, v = rng.normal(size=(30, 4)), rng.dirichlet(np.ones(3), size=30)
    x[:20, 0] = 0.5  # the first coordinate does not tell them apart
    x[8] = x[3]
    other, mixed = rng.dirichlet(np.ones(3), size=30), rng.permutation(30)
    weights = rng.dirichlet(np.ones(30))
    held = {"x": x, "v": v, "text": np.arange(30), "allowed": np.ones(30, dtype=bool), "place": np.arange(30)}
    tensors = {name: torch.as_tensor(value, device=device) for name, value in held.items()}
    problem = MeanProblem(kernel=kernel, output_share=share, near_duplicate=2.0, **tensors)
    points = [torch.as_tensor(value[mixed], device=device) for value in (x, other, weights)]
    found = problem.find_points(points[0])
    np.testing.assert_array_equal(points[0][found].cpu(), x)
    expected = (textbook(x, x) * ((1 - share) + share * v @ other.T)) @ weights
    for own in (None, found):
        np.testing.assert_allclose(problem.evaluate_mean(*points, own).cpu(), expected, atol=1e-12)
    for strange in (points[0] + 1, points[0][:29]):
        assert problem.find_points(strange) is None
