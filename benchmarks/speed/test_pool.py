"""Pools: built in one go, and changed by one example."""

import itertools

import pytest

from kdprompt import DistillationSelector

N, MORE = 100_000, 500


def make_records(w, first, last):
    return [{"input": f"example of something {i}", "output": f"label {w.labels[i]}"} for i in range(first, last)]


def test_from_examples_100000(world, take):
    w = world(N, MORE)
    records = make_records(w, 0, N)
    take(lambda: DistillationSelector.from_examples(records, w.embedder, vectors=w.x), target=2.0, rounds=3)


def test_load_100000(world, take, tmp_path):
    w = world(N, MORE)
    w.selector().save(tmp_path / "selector.kd")
    take(lambda: DistillationSelector.load(tmp_path / "selector.kd", w.embedder), target=0.2, rounds=3)


@pytest.mark.parametrize("kind", ["add", "update", "remove"])
def test_change_one_of_100000(world, take, kind):
    w = world(N, MORE)
    selector = w.selector()
    assert selector.select(w.queries[0])  # the sums of the ridge regression are there, and kept
    fresh, places = itertools.cycle(make_records(w, N, N + MORE)), itertools.count()

    def change():
        if kind == "add":
            selector.add_example(next(fresh))
        elif kind == "update":
            selector.update(selector.pool[next(places)].id, next(fresh))
        else:
            selector.remove(selector.pool[next(places)].id)

    take(change, target=0.05, rounds=40)


def test_select_after_a_change_of_100000(world, take):
    w = world(N, MORE)
    selector = w.selector()
    fresh, queries = itertools.cycle(make_records(w, N, N + MORE)), itertools.cycle(w.queries)
    selector.select(next(queries))

    def select_after_change():
        selector.add_example(next(fresh))
        selector.select(next(queries))

    take(select_after_change, target=0.05, rounds=20)
