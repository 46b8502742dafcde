"""What a page draws equals a float64 brute force, and what a selection remembers is no part of its value."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

from kdprompt import CallableEmbedder, DistillationSelector, Gaussian, ObjectiveWeights, Query, Quota, Selection
from kdprompt.selection.portrait import MOST_POINTS, draw_portrait
from support import make_settings

OUTPUT_SHARE, TEMPERATURE = 0.4, 0.3
PINNED = {
    "kernel": Gaussian(TEMPERATURE),
    "output_share": OUTPUT_SHARE,
    "neighbourhood": 0.0,
    "weights": ObjectiveWeights(bias=1.0, interference=0.3),
    "tolerance": 0.0,
}


def vectors_of(texts):
    rows = [np.random.default_rng(int(text.split()[0])).normal(size=5) for text in texts]
    return np.stack(rows)


def unit(texts):
    x = vectors_of(texts)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def build(n=30, **settings):
    examples = [{"id": f"{i:03}", "input": f"{i} example", "output": "abc"[i % 3]} for i in range(n)]
    settings = make_settings(**{"k": 4, "near_duplicate": 2.0, **PINNED, **settings})
    return DistillationSelector.from_examples(examples, CallableEmbedder(vectors_of), settings=settings)


def portrait_of(selection):
    return draw_portrait(selection, selection.origin)


def test_the_witness_is_that_of_target_and_prompt():
    selection = build().select("900 query")
    drawn, target = portrait_of(selection), selection.origin.find_target().value
    q, estimated = target.x[0, 0].numpy(), target.v[0, 0].numpy()

    def kernel(x, v, y, w):
        return math.exp(-((x - y) ** 2).sum() / (2 * TEMPERATURE)) * (1 - OUTPUT_SHARE + OUTPUT_SHARE * (v @ w))

    def point(shown):
        return unit([shown.input])[0], np.eye(3)["abc".index(shown.output)]

    assert np.allclose(q, unit(["900 query"])[0]) and len(drawn.points) == 30
    for one in drawn.points:
        x, v = point(one.demonstration)
        prompt = sum(c.weight * kernel(x, v, *point(c.demonstration)) for c in selection.chosen)
        assert one.witness == pytest.approx(kernel(x, v, q, estimated) - prompt, abs=1e-6)
    prompt = sum(c.weight * kernel(q, estimated, *point(c.demonstration)) for c in selection.chosen)
    assert drawn.queries[0].witness == pytest.approx(kernel(q, estimated, q, estimated) - prompt, abs=1e-6)
    nearest = max(float(q @ point(shown)[0]) for shown in selection.demonstrations)
    assert drawn.queries[0].nearest == pytest.approx(nearest, abs=1e-6)


def test_chosen_demonstrations_are_numbered_in_reading_order():
    selection = build().select("901 query")
    places = {point.place: point.demonstration.id for point in portrait_of(selection).points if point.place}
    assert [places[number] for number in range(1, 5)] == list(selection.ids)


def test_the_map_is_the_principal_plane():
    drawn = portrait_of(build().select("902 query"))
    x = unit([point.demonstration.input for point in drawn.points])
    x = x - x.mean(0)
    values = np.linalg.svd(x, compute_uv=False) ** 2
    places = np.array([[point.x, point.y] for point in drawn.points])
    assert drawn.explained == pytest.approx(values[:2].sum() / values.sum(), abs=1e-6)
    assert (places**2).sum(0) == pytest.approx(values[:2], rel=1e-5)


def greedy_nearest(selector, query, k, *, budget=None, most=None, task_outputs=None):
    """The nearest examples one after the other, as long as they fit."""
    q = unit([query])[0]
    order = sorted(selector.pool, key=lambda d: -float(unit([d.input])[0] @ q))
    chosen = []
    for shown in order:
        fits = len(chosen) < k and (task_outputs is None or shown.output in task_outputs)
        if budget is not None:
            fits &= sum(len(d.input) for d in [*chosen, shown]) <= budget
        if most is not None:
            fits &= sum(d.output == shown.output for d in chosen) < most
        chosen += [shown] if fits else []
    return [d.id for d in reversed(chosen)]


@pytest.mark.parametrize("limits", [{}, {"budget": 28}, {"most": 1}, {"task_outputs": {"a", "b"}}])
def test_nearest_neighbours_stand_under_the_same_limits(limits):
    settings = {}
    if "budget" in limits:
        settings = {"budget": 28, "count_tokens": lambda text: len(text.split("\n")[0].removeprefix("Input: "))}
    if "most" in limits:
        settings = {"quota": Quota(most=1)}
    selector = build(**settings)
    selection = selector.select("903 query", outputs=limits.get("task_outputs"))
    nearest = portrait_of(selection).nearest
    assert list(nearest.ids) == greedy_nearest(selector, "903 query", len(selection), **limits)
    assert selection.terms.total <= nearest.terms.total + 1e-9 and nearest.tokens <= limits.get("budget", math.inf)


def test_what_is_uncovered_is_near_not_chosen_and_sorted():
    selection = build(n=100, k=1).select("904 query")
    uncovered = portrait_of(selection).uncovered_pool
    assert uncovered and not {point.demonstration.id for point in uncovered} & set(selection.ids)
    values = [point.witness for point in uncovered]
    assert values == sorted(values, reverse=True) and values[-1] > 0


def test_a_static_prompt_names_the_queries_that_it_serves_least():
    selection = build().select_static([f"{i} query" for i in range(500, 520)])
    drawn = portrait_of(selection)
    assert len(drawn.queries) == 20 and not drawn.uncovered_pool
    largest = sorted(drawn.queries, key=lambda query: -query.witness)[:5]
    assert list(drawn.uncovered_queries) == largest and all(text.text.endswith("query") for text in largest)


def test_a_large_pool_is_drawn_in_part_with_what_is_near():
    selection = build(n=500).select("905 query")
    drawn = portrait_of(selection)
    assert len(drawn.points) == MOST_POINTS and drawn.shown_share == MOST_POINTS / 500
    ids = {point.demonstration.id for point in drawn.points}
    assert {*selection.ids, *drawn.nearest.ids, *(p.demonstration.id for p in drawn.uncovered_pool)} <= ids
    assert portrait_of(selection) == drawn


def test_an_empty_prompt_has_a_portrait():
    drawn = portrait_of(build(k=0).select("906 query"))
    assert not drawn.nearest.chosen and drawn.queries[0].nearest == 0 and drawn.queries[0].witness > 0


# -- what it remembers is no part of its value ---------------------------------------------------------------------


def test_a_selection_is_equal_to_itself_stored_and_pickled():
    selector = build()
    selection = selector.select(Query(text="907 query"))
    stored = Selection.model_validate_json(selection.model_dump_json())
    pickled = pickle.loads(pickle.dumps(selection))
    for other in (stored, pickled):
        assert other == selection and selection == other and other.origin is None
    assert selector.select("907 query") == selection
    assert copy.deepcopy(selection).origin is selection.origin is selection.model_copy().origin is not None
    assert "origin" not in json.dumps(selection.model_dump(mode="json"))


def test_a_pickled_selection_does_not_carry_the_pool():
    small, large = (len(pickle.dumps(build(n=n, shortlist=10).select("908 query"))) for n in (30, 400))
    assert abs(large - small) < 500


def test_a_selection_out_of_a_batch_is_drawn_as_one_by_one():
    selector = build()
    batch = selector.select_batch(["909 query", "910 query"])
    assert portrait_of(batch[1]) == portrait_of(selector.select("910 query"))
