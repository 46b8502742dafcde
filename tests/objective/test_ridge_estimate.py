"""The ridge regression at queries: their own texts left out, and what they rule out; against plain fits by NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector
from kdprompt.objective import ridge_estimate
from kdprompt.objective.regression import RidgePart
from kdprompt.objective.ridge_estimate import predict_by_ridge
from kdprompt.objective.target import estimate_query_target
from kdprompt.pool.neighbours import find_neighbours
from support import fit_ridge_plainly, make_settings

PENALTY = 0.03
RIDGE = RidgePart(PENALTY, weight=0.6, exponent=0.5, fitted_to="text")
WIDTH = 24


def embed(texts):
    """Vectors that depend on every letter, and on its case: what is one text to a reader may be two to an embedder."""
    rows = [np.random.default_rng(list(text.encode())).normal(size=WIDTH) for text in texts]
    return torch.tensor(np.array(rows))


def make_selector(repeats=1, tasks=(None,), **settings):
    """Forty texts, the last of them ``repeats`` times in as many spellings, each with its own output."""
    texts = [f"text {i}" for i in range(39)] + [f"last{' ' * i} one" for i in range(repeats)]
    records = [{"input": text, "output": f"output {i}"} for i, text in enumerate(texts)]
    for i, record in enumerate(records):
        record |= {} if tasks == (None,) else {"task": tasks[i % len(tasks)]}
    settings = make_settings(k=4, outputs="text", lexical_share=0.0, **settings)
    return DistillationSelector.from_examples(records, CallableEmbedder(embed), settings=settings)


def fit_plainly(selector, left_out, q):
    """The ridge regression of all rows but some at one point."""
    tensors = selector._pool.tensors
    rows = [row for row in range(len(tensors)) if row not in left_out]
    x, v = tensors.x.double().numpy()[rows], tensors.v.double().numpy()[rows]
    return fit_ridge_plainly(x, v, PENALTY, q)


@pytest.mark.parametrize("many", [256, 10], ids=["by its rows", "solved anew"])
@pytest.mark.parametrize("repeats", [1, 2, 8, 9, 20])
def test_a_text_that_an_embedder_sees_otherwise_is_left_out_where_it_lies(repeats, many, monkeypatch):
    monkeypatch.setattr(ridge_estimate, "MANY", many)
    selector = make_selector(repeats)
    queries = ["TEXT 3", "text 5", "Last One", "LAST ONE", "another"]
    encoded = selector._pool.encode(selector.pool.queries(queries), selector.settings)
    found = predict_by_ridge(selector._pool.tensors, encoded, PENALTY).numpy()
    inputs = [selector._pool.demonstration(row).input for row in range(39 + repeats)]
    for b, query in enumerate(queries):
        own = [row for row, text in enumerate(inputs) if " ".join(text.lower().split()) == query.lower()]
        assert len(own) == (0, 1, 1, repeats, repeats)[(b + 1) % 5]
        q = encoded.q[b].double().numpy()
        np.testing.assert_allclose(found[b], fit_plainly(selector, own, q), atol=1e-9)
        assert np.linalg.norm(found[b]) < 3  # outputs have norm 1; it was 10⁴ where they were left out at the query


def estimates(selector, **asked):
    """v̂ and r with the ridge regression, and v̂ of the neighbours alone."""
    pool, settings = selector._pool, selector.settings
    queries = pool.parse_queries(["one", "two"], **asked)
    neighbours = find_neighbours(pool.tensors, pool.encode(queries, settings), 24)
    plain = replace(selector.calibration.regression, ridge=None)
    joined = estimate_query_target(pool.tensors, neighbours, replace(plain, ridge=RIDGE))
    return joined.v[:, 0], joined.expected[:, 0], estimate_query_target(pool.tensors, neighbours, plain).v[:, 0]


def test_a_task_that_a_query_states_keeps_its_place_in_the_estimate():
    selector = make_selector(tasks=("left", "right"))
    for task, place in (("left", [0.5**0.5, 0.0]), ("right", [0.0, 0.5**0.5])):
        value, expected, by_neighbours = estimates(selector, task=task)
        for found in (value, expected, by_neighbours):
            np.testing.assert_allclose(found[:, -2:], [place] * 2, atol=1e-6)
        np.testing.assert_allclose(value[:, :-2], 0.5 * by_neighbours[:, :-2] + 0.6 * expected[:, :-2], atol=1e-6)
    value, expected, by_neighbours = estimates(selector)
    np.testing.assert_allclose(value, 0.5 * by_neighbours + 0.6 * expected, atol=1e-6)


def test_where_outputs_are_restricted_the_neighbours_stand_alone():
    value, expected, by_neighbours = estimates(make_selector(), outputs=["output 3", "output 7"])
    assert torch.equal(value, by_neighbours)
    np.testing.assert_allclose(expected, by_neighbours, atol=1e-7)


@pytest.mark.parametrize("gone", ["outputs", "text"])
def test_a_pool_whose_outputs_enter_otherwise_by_now_is_estimated_by_its_neighbours(gone):
    """The calibration stays when examples come and go; what it knows of embedded outputs is of no use for others."""
    records = [{"input": f"text {i}", "output": f"output {i}" if i < 30 else None} for i in range(60)]
    settings = make_settings(k=4, outputs="auto" if gone == "text" else "text", calibrate=False)
    selector = DistillationSelector.from_examples(records, CallableEmbedder(embed), settings=settings)
    regression = replace(selector.calibration.regression, ridge=RIDGE)
    selector.calibration = replace(selector.calibration, regression=regression)
    selector.remove([shown.id for shown in selector.pool if shown.output])
    if gone == "text":
        selector.add_examples([{"input": f"more {i}", "output": ("yes", "no")[i % 2]} for i in range(40)])
    assert selector._pool.tensors.output_mode == ("labels" if gone == "text" else "none")
    selection = selector.select("a query")
    assert len(selection.ids) == 4 and np.isfinite(selection.terms.total)
