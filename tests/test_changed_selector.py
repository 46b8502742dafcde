"""A selector whose pool was changed against one built anew of the examples that are left: every public operation.

Removed examples leave gaps among the rows. Small pools, from which most have gone, are where a gap, or a row that may
not serve, would be taken for an example. Vectors are few, so that ties are common, and their inner products are exact
in floating point, so that nothing but the order of ids decides them.
"""

import re
import tempfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kdprompt import CallableEmbedder, DistillationSelector, Pool, Quota
from kdprompt.diagnose import diagnose_pool
from kdprompt.errors import KDPromptError
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.portrait import draw_portrait
from pool_changes import draw_changes, draw_records
from support import make_settings

QUERIES = ["a query", "word 1", "another query"]
IDS = re.compile(r"[0-9a-f]{12}(?:-\d+)?")
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


AXES = torch.cat([torch.eye(4), -torch.eye(4)])
CORNERS = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)
DIRECTIONS = torch.cat([AXES, CORNERS])  # the 24-cell: unit vectors, with inner products of 0, ±½ and ±1


def embed(texts):
    """One of 24 vectors for each text."""
    return DIRECTIONS[[zlib.crc32(text.encode()) % len(DIRECTIONS) for text in texts]]


EMBEDDER = CallableEmbedder(embed)

records = draw_records(40)
steps = draw_changes(records, place=999, most_removed=12, min_size=1, max_size=8)

BASE = [{"input": f"base {i}", "output": ["red", "blue", "green"][i % 3], "task": "ab"[i % 2]} for i in range(12)]
FIELDS = [
    {"k": 2},
    {"k": 4, "near_duplicate": 0.99},
    {"k": 3, "budget": 45},
    {"k": 3, "quota": Quota(least={"green": 1}, most=2)},
    {"k": "auto", "k_max": 4},
    {"k": 3, "shortlist": 4, "static_shortlist": 4},
    {"k": 3, "outputs": "text", "min_similarity": 0.0},
    {"k": 3, "order": "nearest-last", "static_queries": 5},
]
CALIBRATIONS = {}  # made once for each kind of settings: what is tested here does not depend on it


def make(examples, fields):
    chosen = make_settings(calibrate=False, **{"near_duplicate": 2.0, **fields})
    pool = EmbeddedPool.embed(Pool.from_records(examples), EMBEDDER, chosen)
    if str(fields) not in CALIBRATIONS:
        CALIBRATIONS[str(fields)] = DistillationSelector(pool, chosen).calibration
    return DistillationSelector(pool, chosen, None, CALIBRATIONS[str(fields)])


def change(selector, step, removed):
    """One change; refused ones leave the pool as it was."""
    ids = [shown.id for shown in selector.pool]
    gone = {ids[i % len(ids)] for i in step[1]} if step[0] == "remove" else set()
    try:
        if step[0] == "add":
            removed.difference_update(selector.add_examples(step[1]))
        elif step[0] == "update":
            selector.update(ids[step[1] % len(ids)], step[2])
        else:
            selector.remove(gone)
            removed |= gone
    except KDPromptError as error:
        assert re.search("distinct|empty|quota", str(error)), error


def say(operation):
    """What a public operation gives, or says where it refuses."""
    try:
        return operation()
    except KDPromptError as error:
        return f"{type(error).__name__}: {error}"


def selection(of):
    """A selection as it reads, to seven digits."""
    return [round_numbers(of.model_dump_json()), of.ids]


def portrait(of):
    """What a page draws: which demonstrations, and the nearest neighbours' prompt."""
    drawn = draw_portrait(of, of.origin)
    return [sorted(point.demonstration.id for point in drawn.points), drawn.shown_share, drawn.nearest.ids]


def strangers(of, pool):
    """Inputs that a page shows, and that are none of the pool's; its order of equals goes by rounding."""
    with tempfile.TemporaryDirectory() as folder:
        of.to_html(Path(folder) / "page.html")
        text = (Path(folder) / "page.html").read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:word|base) \d+", text))
    assert shown
    return shown - {demonstration.input for demonstration in pool} - {of.query.text}


def explained(of):
    return [selection(of.selection), of.nearest_ids, f"{of.nearest.total:.5f}", bool(str(of))]


def round_numbers(text):
    return NUMBER.sub(lambda number: f"{float(number[0]) + 0.0:.5f}", text)


def operations(selector):
    """Every public operation by a name, as what it shows."""
    first = [selector.pool[0].id]
    calls = {
        "batch": lambda: [selection(one) for one in selector.select_batch(QUERIES)],
        "batch of a task": lambda: [selection(one) for one in selector.select_batch(QUERIES, task="b")],
        "static": lambda: selection(selector.select_static()),
        "static for queries": lambda: selection(selector.select_static(QUERIES)),
        "static for a task": lambda: selection(selector.select_static(task="a", outputs=["red"], k=1)),
        "static portrait": lambda: portrait(selector.select_static()),
        "explain static": lambda: explained(selector.explain()),
        "explain": lambda: explained(selector.explain(QUERIES[0])),
        "explain a task": lambda: explained(selector.explain(QUERIES[0], task="b", k=2)),
        "diagnosis": lambda: diagnose_pool(selector.pool, selector._pool.vectors).model_dump_json(),
        "size": lambda: [len(selector.pool), selector.pool.distinct],
        "page": lambda: strangers(selector.select(QUERIES[1]), selector.pool),
    }
    for more in ({"task": "a"}, {"outputs": ["green"]}, {"k": 1}, {"k": "auto"}, {"prefix": first}):
        calls[f"select {more}"] = lambda more=more: selection(selector.select(QUERIES[1], **more))
        calls[f"portrait {more}"] = lambda more=more: portrait(selector.select(QUERIES[1], **more))
    return {name: say(call) for name, call in calls.items()}


def anew(selector):
    """A selector of the same examples in one go, under the same calibration."""
    pool, chosen = selector._pool, selector.settings
    fresh = EmbeddedPool.build(Pool(pool.pool), pool.vectors, EMBEDDER, chosen, None, pool.lexical_share)
    return DistillationSelector(fresh, chosen, None, selector.calibration)


def check(selector, removed):
    shown, expected = operations(selector), operations(anew(selector))
    for name, value in shown.items():
        assert value == expected[name], name
        assert removed.isdisjoint(IDS.findall(str(value))), name
    assert shown["page"] == set()


@pytest.mark.slow
@pytest.mark.parametrize("fields", FIELDS, ids=str)
@settings(max_examples=3, deadline=None, phases=(Phase.reuse, Phase.generate))  # shrinking takes minutes
@given(start=st.lists(records, min_size=2, max_size=90), first=steps, then=steps)
def test_every_operation_is_that_of_a_selector_built_anew(fields, start, first, then):
    selector, removed = make([*BASE, *start], fields), set()
    for changes in (first, then):
        for step in changes:
            change(selector, step, removed)
        check(selector, removed)
    with tempfile.TemporaryDirectory() as folder:
        selector.save(Path(folder) / "it")
        loaded = DistillationSelector.load(Path(folder) / "it", EMBEDDER)
    check(loaded, removed)


def plain(ident, text, output="red", task=None):
    return {"id": ident, "input": text, "output": output, "task": task}


def test_a_page_of_a_pool_with_gaps_draws_those_that_are_there():
    selector = make([plain(f"{i:02}", f"word {i}") for i in range(20)], {"k": 2})
    selector.remove([f"{i:02}" for i in range(12)])
    assert selector._pool.tensors.rows.gaps == 12
    drawn = portrait(selector.select("a query"))
    assert drawn[0] == [f"{i:02}" for i in range(12, 20)] and drawn[1] == 1.0


def test_a_static_prompt_for_an_output_that_the_task_does_not_have_is_empty_and_says_so():
    selector = make([plain(f"{i}", f"word {i}", *[("red", "a"), ("blue", "b")][i % 2]) for i in range(8)], {"k": 2})
    for fields in ({}, {"objective": selector.settings.objective.model_copy(update={"output_share": 0.2})}):
        chosen = selector.settings.model_copy(update={**fields, "budget": 100 if fields else None})
        other = DistillationSelector(selector._pool, chosen, None, selector.calibration)
        shown = other.select_static(task="a", outputs=["blue"])
        assert shown.ids == () and any(note.startswith("0 of 2 demonstrations") for note in shown.notes)
        assert portrait(shown)[2] == ()


def test_of_equally_near_examples_the_lowest_ids_are_the_nearest_wherever_their_rows_stand():
    """Newcomers stand behind the others and have the lowest ids."""
    quota = {"k": 2, "quota": Quota(least={"blue": 1}), "shortlist": 2}
    few = {"k": 1, "static_shortlist": 1}
    same = [text for text in (f"text {i}" for i in range(999)) if torch.equal(embed([text])[0], AXES[0])][:8]
    for fields in (quota, few):
        selector = make([plain(f"m{i}", text, ["red", "blue"][i % 2]) for i, text in enumerate(same[:6])], fields)
        selector.add_examples([plain("a", same[6], "blue"), plain("b", same[7], "red")])
        selector.remove("m3")
        assert selector._pool.tensors.rank is not None
        fresh = anew(selector)
        for query in QUERIES:
            assert selector.select(query).ids == fresh.select(query).ids
            explanation = selector.explain(query, k=1) if fields is few else selector.explain(query)
            assert set(explanation.nearest_ids) == set(["a", "b"][: len(explanation.selection)])
        assert selector.select_static(QUERIES).ids == fresh.select_static(QUERIES).ids
