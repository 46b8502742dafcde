"""The pipeline for single queries: what it keeps, and how it splits its work."""

import copy
import pickle

import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector, ObjectiveSettings, ObjectiveWeights, Pool, Settings
from kdprompt.calibration.calibration import Calibration
from kdprompt.selection import per_query

VECTORS = torch.randn(70, 6, generator=torch.Generator().manual_seed(1))


def embed(texts):
    return VECTORS[[int(text.split()[1]) for text in texts]]


def make_selector():
    texts, embedder = [f"text {i}" for i in range(70)], CallableEmbedder(embed)
    records = [{"input": text, "output": "abc"[i % 3]} for i, text in enumerate(texts[:60])]
    return DistillationSelector.from_examples(Pool.from_records(records), embedder, settings=Settings(k=4)), texts[60:]


@pytest.mark.parametrize("cells", [1, 3 * 60**2, 1 << 30], ids=["one by one", "three at a time", "all together"])
def test_passes_of_any_size_choose_the_same(cells, monkeypatch):
    selector, queries = make_selector()
    expected = [selector.select(query).ids for query in queries]
    sizes, solve = [], per_query.solve_queries

    def count(context, encoded, *rest):
        sizes.append(len(encoded))
        return solve(context, encoded, *rest)

    monkeypatch.setattr(per_query, "CELLS", cells)
    monkeypatch.setattr(per_query, "solve_queries", count)
    assert [selection.ids for selection in selector.select_batch(queries)] == expected
    assert sum(sizes) == len(queries) and max(sizes) == {1: 1, 3 * 60**2: 3}.get(cells, len(queries))


def test_what_a_selector_keeps_is_not_bound_by_the_mode_in_which_it_computes():
    selector, queries = make_selector()
    plain = DistillationSelector(selector._pool, selector.settings, None, selector.calibration)
    selector._pool.tensors._ridges.clear()  # as in a selector that was loaded
    assert plain.select(queries[0]).terms.total > 0
    fits = selector._pool.tensors._ridges
    assert fits and not any(t.is_inference() for fit in fits.values() for t in (fit.weights, fit.mean, fit.inverse))
    for again in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        again.add_example({"input": queries[1], "output": "a"})
        assert again.select(queries[0]).ids and isinstance(again.calibration, Calibration)
    with torch.enable_grad():
        weight = torch.ones(6, dtype=torch.float64, requires_grad=True)
        next(iter(fits.values())).predict(weight[None]).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("outputs", "objective", "order"),
    [
        ("labels", ObjectiveSettings(), "evidence-last"),
        ("labels", ObjectiveSettings(weights=ObjectiveWeights(interference=0.25)), "likeliest-last"),
        ("text", ObjectiveSettings(), "agreement-last"),
        ("text", ObjectiveSettings(weights=ObjectiveWeights(reader=1.0)), "agreement-last"),
    ],
)
def test_what_the_outputs_are_decides_the_order_where_nobody_does(outputs, objective, order):
    selector, queries = make_selector()
    records = [{"input": f"text {i}", "output": f"text {60 + i % 3}"} for i in range(60)]

    def choose(**changes):
        settings = Settings(k=4, outputs=outputs, objective=objective, **changes)
        built = DistillationSelector.from_examples(records, selector.embedder, settings=settings)
        return [selection.ids for selection in built.select_batch(queries)]

    names = ("evidence-last", "agreement-last", "likeliest-last", "nearest-last")
    found, prompts = choose(), {name: choose(order=name) for name in names}
    assert found == prompts[order]
    assert sum(prompt == found for prompt in prompts.values()) == 1, "the orders differ here"
