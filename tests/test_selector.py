"""What a selector does for the people who call it: choosing, growing, refusing, and saying what it did."""

import asyncio
import copy
import gc
import json
import pickle
import weakref
from collections import Counter

import numpy as np
import pandas
import pytest
import torch
from pydantic import ValidationError

from kdprompt import (
    CallableEmbedder,
    Demonstration,
    DistillationSelector,
    EmbeddingError,
    MissingKeyError,
    Pool,
    PoolError,
    Query,
    QueryError,
    Quota,
    Schema,
    SearchSettings,
    Selection,
    SentenceTransformerEmbedder,
    Settings,
    StaticSettings,
)
from kdprompt.search.ordering import NearestLast
from kdprompt.search.position_profiles import Recency
from support import run_together

WIDTH = 6
CENTRES = {name: row for name, row in zip("abc", np.random.default_rng(0).normal(size=(3, WIDTH)), strict=True)}


class Clustered:
    """Texts like ``a 17`` lie near the centre that their first letter names; the rest is a hash of the text."""

    def __init__(self, width=WIDTH):
        self.width = width
        self.asked = []

    def vector(self, text):
        rng = np.random.default_rng(list(text.encode()))
        centre = CENTRES.get(text.strip()[:1].lower(), np.zeros(WIDTH))
        return (centre + 0.4 * rng.normal(size=WIDTH))[: self.width]

    def embed_documents(self, texts):
        self.asked += texts
        return np.array([self.vector(text) for text in texts])

    def embed_query(self, text):
        return self.embed_documents([text])[0]


OUTPUTS = {"a": "red", "b": "green", "c": "blue"}


def records(n=36, *, tasks=(None,)):
    made = [{"input": f"{'abc'[i % 3]} {i}", "output": OUTPUTS["abc"[i % 3]]} for i in range(n)]
    for i, record in enumerate(made):
        if (task := tasks[i // 3 % len(tasks)]) is not None:
            record["task"] = task
    return made


def selector(examples=None, settings=None, **more):
    return DistillationSelector.from_examples(
        records() if examples is None else examples, Clustered(), settings=settings or Settings(k=4), **more
    )


def inputs(selection):
    return [d.input for d in selection.demonstrations]


def outputs(selection):
    return Counter(d.output for d in selection.demonstrations)


# -- construction -------------------------------------------------------------------------------------------------


def test_k_demonstrations_of_the_querys_kind_are_chosen():
    found = selector().select("a query")
    assert len(found) == 4 and outputs(found)["red"] >= 3
    assert found.query == Query(text="a query")
    assert max(found.estimate, key=found.estimate.get) == "red"


def test_vectors_at_hand_are_taken_and_the_embedder_is_asked_for_queries_alone():
    embedder = Clustered()
    vectors = torch.tensor(np.array([embedder.vector(r["input"]) for r in records()]))
    given = DistillationSelector.from_examples(records(), embedder, settings=Settings(k=4), vectors=vectors)
    assert embedder.asked == []
    assert given.select("a query") == selector().select("a query")
    assert embedder.asked == ["a query"]


def test_vectors_of_one_query_and_of_a_sample_are_taken_and_nothing_is_embedded():
    made, queries = selector(), [f"{'abc'[i % 3]} query {i}" for i in range(9)]
    vectors = np.array([Clustered().vector(query) for query in queries])
    expected = made.select(queries[0]), made.select_static(queries)
    made.embedder.asked.clear()
    assert made.select(queries[0], vectors=vectors[:1]).ids == expected[0].ids
    assert (
        asyncio.run(made.aselect(queries[0], k=2, vectors=vectors[:1])).ids
        == made.select(queries[0], k=2, vectors=vectors[:1]).ids
    )
    assert made.select_static(queries, vectors=vectors).ids == expected[1].ids
    assert made.embedder.asked == []
    for wrong in (vectors[:2], vectors[0], vectors[:1] * np.nan):
        with pytest.raises(EmbeddingError, match="vectors"):
            made.select(queries[0], vectors=wrong)
    with pytest.raises(EmbeddingError, match="vectors"):
        made.select_static(queries, vectors=vectors[:3])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_pool_of_a_few_examples_with_traffic_is_calibrated(size):
    made = selector(records(size), Settings(k=1), queries=["a query", "b query"])
    assert len(made.select("a query")) == 1 and len(made.select_static()) == 1


def test_a_pool_is_kept_where_it_is_asked_for(device, tmp_path):
    made = selector(device=device)
    assert made._pool.tensors.x.device.type == device.type
    assert made.select("a query").ids == selector().select("a query").ids
    made.save(tmp_path / "pool.kd")
    loaded = DistillationSelector.load(tmp_path / "pool.kd", Clustered(), device=device)
    assert loaded._pool.tensors.x.device.type == device.type
    assert loaded.select("a query").ids == made.select("a query").ids


@pytest.mark.parametrize("wrong", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(wrong, tmp_path):
    with pytest.raises(ValueError, match=f"device '{wrong}' is .*; this machine has cpu"):
        selector(device=wrong)
    selector().save(tmp_path / "pool.kd")
    with pytest.raises(ValueError, match=f"device '{wrong}' is .*; this machine has cpu"):
        DistillationSelector.load(tmp_path / "pool.kd", Clustered(), device=wrong)


def test_vectors_of_queries_at_hand_are_taken():
    embedder = Clustered()
    chooser = DistillationSelector.from_examples(records(), embedder, settings=Settings(k=4))
    asked = len(embedder.asked)
    vectors = torch.tensor(np.array([embedder.vector("a query"), embedder.vector("b query")]))
    found = chooser.select_batch(["x", "y"], vectors=vectors)
    assert len(embedder.asked) == asked
    assert [s.ids for s in found] == [chooser.select("a query").ids, chooser.select("b query").ids]


def test_a_pool_brings_its_own_schema():
    pool = Pool.from_records([{"q": f"a {i}", "r": "red"} for i in range(6)], Schema(inputs=("q",), outputs=("r",)))
    chooser = selector(pool, Settings(k=2))
    assert chooser.pool is pool
    assert chooser.select({"q": "a query"}).ids == chooser.select("a query").ids
    with pytest.raises(MissingKeyError, match=r"the query has no input key 'q'; it has \['input'\]"):
        chooser.select({"input": "a query"})


def test_several_input_keys_render_query_and_pool_alike():
    schema = Schema(inputs=("who", "what"), outputs=("say",))
    pool = [{"who": f"a {i}", "what": i, "say": "yes"} for i in range(8)]
    embedder = Clustered()
    chooser = DistillationSelector.from_examples(pool, embedder, schema=schema, settings=Settings(k=2))
    chooser.select({"who": "a 1", "what": 5.5})
    assert embedder.asked[0] == "who: a 0\nwhat: 0" and embedder.asked[-1] == "who: a 1\nwhat: 5.5"


@pytest.mark.parametrize("value", [7, 2.5, True, ["a", 1], {"x": "y"}])
def test_query_values_need_not_be_strings(value):
    pool = [{"input": value, "output": "own"}, *records()]
    chooser = selector(pool)
    found = chooser.select({"input": value})
    assert len(found) == 4
    assert "own" not in outputs(found)  # it is the pool's first example, however it is rendered


def test_without_an_embedder_the_default_model_is_meant():
    vectors = torch.tensor(np.random.default_rng(0).normal(size=(36, WIDTH)))
    default = DistillationSelector.from_examples(records(), settings=Settings(k=4), vectors=vectors)
    assert isinstance(default.embedder, SentenceTransformerEmbedder)
    (found,) = default.select_batch(["a query"], vectors=vectors[:1])
    assert len(found) == 4


@pytest.mark.parametrize("k", [37, 1000])
def test_a_k_beyond_the_pool_is_refused_with_both_numbers(k):
    with pytest.raises(
        PoolError,
        match=rf"k must be at most the number of distinct examples in the pool \(36\), got {k}; add examples, lower k",
    ):
        selector(settings=Settings(k=k))


def test_duplicates_do_not_count_towards_k():
    with pytest.raises(PoolError, match=r"distinct examples in the pool \(6\), got 7"):
        selector(records(6) * 3, Settings(k=7))
    assert len(selector(records(6) * 3, Settings(k=6)).select("query")) == 6


@pytest.mark.parametrize("settings", [Settings(k=4), Settings(k="auto"), Settings(k=0)])
def test_an_empty_pool_is_refused(settings):
    with pytest.raises(PoolError, match="the pool is empty; give it at least one example"):
        selector([], settings)


@pytest.mark.parametrize(
    "settings",
    [{"k": -1}, {"k": "most"}, {"objective": {"output_share": 1.5}}, {"search": {"shortlist": 0}}, {"colour": 1}],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(settings):
    (name,) = settings
    with pytest.raises(ValidationError, match=name):
        Settings(**settings)


def test_one_example_is_a_pool():
    chooser = selector(records(1), Settings(k=1))
    assert inputs(chooser.select("a query")) == ["a 0"]
    assert inputs(chooser.select_static()) == ["a 0"]


# -- queries ------------------------------------------------------------------------------------------------------


def test_text_mapping_and_query_are_the_same_query():
    chooser = selector(records(tasks=("left", "right")))
    ways = ["b query", {"input": "b query"}, Query(text="b query")]
    assert len({chooser.select(way).ids for way in ways}) == 1
    ways = [{"input": "b query", "task": "left"}, Query(text="b query", task="left")]
    expected = chooser.select("b query", task="left")
    assert all(chooser.select(way) == expected for way in ways)
    assert expected.ids != chooser.select("b query").ids


@pytest.mark.parametrize("query", ["", "  \n", {"input": ""}, Query(text=" ")])
def test_an_empty_query_is_refused(query):
    with pytest.raises(QueryError, match="the query is empty; give it text"):
        selector().select(query)


def test_a_bad_query_in_a_batch_is_named_by_its_place():
    with pytest.raises(QueryError, match="query 2 is empty"):
        selector().select_batch(["a", "b", ""])
    with pytest.raises(MissingKeyError, match="query 1 has no input key 'input'"):
        selector().select_batch(["a", {"text": "b"}])
    with pytest.raises(QueryError, match="query 0 must be text, a mapping or a Query, got NoneType"):
        selector().select_batch([None, "b"])


@pytest.mark.parametrize("one", ["a query", {"input": "a query"}, Query(text="a query")])
def test_one_query_is_no_batch(one):
    with pytest.raises(QueryError, match="wrap it in a list"):
        selector().select_batch(one)
    with pytest.raises(QueryError, match="wrap it in a list"):
        selector().select_static(one)
    with pytest.raises(QueryError, match="wrap it in a list"):
        selector(queries=one)


def test_no_queries_get_no_selections():
    assert selector().select_batch([]) == []
    with pytest.raises(QueryError, match="queries must hold at least one query"):
        selector().select_static([])


def test_a_large_batch_is_its_queries_in_order_and_reports_progress():
    chooser, done = selector(), []
    queries = [f"{'abc'[i % 3]} query {i}" for i in range(300)]
    found = chooser.select_batch(queries, progress=done.append)
    assert [s.query.text for s in found] == queries
    assert sum(done) == 300 and len(done) > 1
    for i in (0, 127, 128, 129, 299):
        assert found[i].ids == chooser.select(queries[i]).ids


# -- tasks and outputs --------------------------------------------------------------------------------------------


def test_a_task_restricts_the_demonstrations():
    chooser = selector(records(tasks=("left", "right")))
    for found in (
        chooser.select("a query", task="left"),
        chooser.select({"input": "a query", "task": "left"}),
        chooser.select_static(["a query"], task="left"),
        chooser.select_static(task="left"),
        chooser.explain("a query", task="left").selection,
    ):
        assert {d.task for d in found.demonstrations} == {"left"} and len(found) == 4
        assert not any(chosen.other_task for chosen in found.chosen) and found.cross_task == 0


def test_an_unknown_task_is_named_with_those_that_are_known():
    chooser = selector(records(tasks=("left", "right")))
    for query, task in (("a query", "up"), ({"input": "a query", "task": "up"}, None)):
        with pytest.raises(QueryError, match=r"no task 'up' \(query 'a query'\); it has \['left', 'right'\]"):
            chooser.select(query, task=task)


def test_a_task_means_nothing_to_a_pool_without_tasks():
    assert selector().select("a query", task="any").ids == selector().select("a query").ids


def test_permitted_outputs_restrict_the_demonstrations():
    chooser = selector()
    for found in (
        chooser.select("a query", outputs=["green", "blue"]),
        chooser.select(Query(text="a query", outputs=frozenset({"green", "blue"}))),
        chooser.select_static(outputs=["green", "blue"]),
        chooser.select_static(["a query", "b query"], outputs=["green", "blue"]),
    ):
        assert set(outputs(found)) <= {"green", "blue"} and len(found) == 4


def test_outputs_that_the_pool_does_not_have_are_refused():
    with pytest.raises(QueryError, match=r"permitted outputs \['pink'\] .* it has \['blue', 'green', 'red'\]"):
        selector().select("a query", outputs=["pink"])
    assert set(outputs(selector().select("a query", outputs=["pink", "blue"]))) == {"blue"}


def test_permitted_outputs_hold_for_static_prompts_with_a_short_shortlist():
    """Queries of a task with few permitted examples never let in what no query permits."""
    pool = [{"id": f"x{i}", "input": f"a {i}", "output": "yes" if i < 2 else "no", "task": "left"} for i in range(40)]
    pool += [{"id": f"y{i}", "input": f"c {i}", "output": "yes", "task": "right"} for i in range(60)]
    chooser = selector(pool, Settings(k=8, static=StaticSettings(shortlist=50)))
    queries = [Query(text="a query", task="left"), Query(text="c query", task="right")]
    found = chooser.select_static(queries, outputs=["yes"])
    assert set(outputs(found)) == {"yes"}
    one = chooser.select_static(queries[:1], outputs=["yes"])
    assert set(inputs(one)) == {"a 0", "a 1"}


# -- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "holds"),
    [
        (Quota(most=1), lambda n: max(n.values()) == 1 and sum(n.values()) == 3),
        (Quota(most=2), lambda n: max(n.values()) <= 2 and sum(n.values()) == 6),
        (Quota(most={"red": 1}), lambda n: n["red"] <= 1 and sum(n.values()) == 6),
        (Quota(most={"red": 0}), lambda n: n["red"] == 0 and sum(n.values()) == 6),
        (Quota(least=2), lambda n: min(n[o] for o in OUTPUTS.values()) == 2),
        (Quota(least={"green": 4}), lambda n: n["green"] >= 4 and sum(n.values()) == 6),
        (Quota(most={"red": 1}, least={"blue": 3}), lambda n: n["red"] <= 1 and n["blue"] >= 3),
    ],
)
def test_quotas_are_kept(quota, holds):
    chooser = selector(settings=Settings(k=6, quota=quota))
    free = selector(settings=Settings(k=6))
    assert not holds(outputs(free.select("a query")))
    for found in [*chooser.select_batch(["a query", "b query", "c query"]), chooser.select_static()]:
        assert holds(outputs(found)), outputs(found)


def test_a_quota_reaches_beyond_the_shortlist():
    chooser = selector(settings=Settings(k=4, quota=Quota(least={"blue": 2}), search=SearchSettings(shortlist=6)))
    assert outputs(chooser.select("a query"))["blue"] >= 2


@pytest.mark.parametrize("quota", [Quota(most={"pink": 1}), Quota(least={"red": 1, "pink": 1})])
def test_a_quota_for_an_unknown_output_is_named(quota):
    with pytest.raises(ValueError, match=r"names the output 'pink', which the pool does not have; it has \['blue'"):
        selector(settings=Settings(k=4, quota=quota)).select("a query")


def test_a_negative_quota_is_refused():
    with pytest.raises(ValidationError, match="least must be at least 0"):
        Quota(least={"red": -1})


def test_a_quota_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match=r"quota.least must ask for at most k = 4 demonstrations together, got 6"):
        selector(settings=Settings(k=4, quota=Quota(least=2)))
    with pytest.raises(ValueError, match=r"least must be at most quota.most, got 2 and 1 for the output 'red'"):
        selector(settings=Settings(k=4, quota=Quota(most={"red": 1}, least={"red": 2})))


def test_a_budget_below_every_length_gives_no_demonstrations_and_a_note():
    chooser = selector(settings=Settings(k=4, budget=1))
    for found in (chooser.select("a query"), chooser.select_static(), chooser.explain("a query").selection):
        assert found.ids == () and found.tokens == 0 and found.examples == []
        assert found.terms == found.empty_terms
        assert any(note.startswith("0 of 4 demonstrations") for note in found.notes)


def test_a_budget_is_counted_by_the_given_counter_on_the_written_demonstration():
    written = []

    def count(text):
        written.append(text)
        return len(text)

    found = selector(settings=Settings(k=4, budget=70, count_tokens=count)).select("a query")
    shown = [f"Input: {d.input}\nOutput: {d.output}\n\n" for d in found.demonstrations]
    assert set(shown) <= set(written)
    assert sum(map(len, shown)) == found.tokens <= 70 and 0 < len(found) < 4


def test_what_does_not_fit_is_passed_over_for_what_does():
    pool = [*records(12), *({"input": f"a {'very ' * 50}{i}", "output": "red"} for i in range(8))]
    found = selector(pool, Settings(k=3, budget=60)).select("a query")
    assert len(found) == 3 and found.notes == ()


# -- embeddings that do not fit -----------------------------------------------------------------------------------


def test_a_querys_embedding_is_checked_and_named():
    chooser = selector()
    chooser.embedder.vector = lambda text: [float("nan")] * WIDTH
    with pytest.raises(EmbeddingError, match=r"the row of text 0 \('a query'\) has NaN"):
        chooser.select("a query")
    chooser.embedder.vector = lambda text: [0.0] * WIDTH
    with pytest.raises(EmbeddingError, match="zeros only"):
        chooser.select_static(["a query"])


def test_a_frame_is_added_and_unknown_ids_and_tasks_are_named():
    chooser = selector()
    assert len(chooser.add_examples(pandas.DataFrame({"input": ["a 500", "b 500"], "output": ["x", "y"]}))) == 2
    with pytest.raises(PoolError, match="no example with the id"):
        chooser.remove([1, "nobody"])
    tagged = selector(records(tasks=("one",)))
    with pytest.raises(QueryError, match=r"no example has the task 'nope'; the pool has \['one'\]"):
        tagged.select_static(task="nope")


def test_another_embedder_is_not_put_in_the_place_of_the_pools():
    """It was, and a selector saved after that refused the true one and took the other."""
    chooser = selector()
    shown = chooser.select("a query").ids
    for other, said in (
        (
            CallableEmbedder(lambda texts: [[float(len(text)), 1.0, *[0.0] * (WIDTH - 2)] for text in texts]),
            "otherwise",
        ),
        (Clustered(width=4), "returns 4 dimensions"),
        (CallableEmbedder(lambda texts: [[float("nan")] * WIDTH for _ in texts]), "cannot be compared"),
    ):
        with pytest.raises(EmbeddingError, match=said):
            chooser.embedder = other
        assert type(chooser.embedder) is Clustered and chooser.select("a query").ids == shown
    alike = Clustered()
    chooser.embedder = alike
    assert chooser.embedder is alike and chooser.select("a query").ids == shown


def test_another_width_for_queries_is_refused_with_both_numbers():
    chooser = selector()
    chooser.embedder.width = 4
    for call in (chooser.select, chooser.explain, lambda query: chooser.select_static([query])):
        with pytest.raises(EmbeddingError, match="must return 6 dimensions as for the pool, got 4"):
            call("a query")
    with pytest.raises(EmbeddingError, match="6 dimensions as for the pool, got 3"):
        chooser.select_batch(["a query"], vectors=torch.ones(1, 3))


@pytest.mark.parametrize("n", [36, 150], ids=["defaults", "calibrated"])
def test_another_width_for_the_traffic_is_refused_with_both_numbers(n):
    class Two(Clustered):
        def embed_query(self, text):
            return self.vector(text)[:4]

    with pytest.raises(EmbeddingError, match="must return 6 dimensions as for the pool, got 4"):
        DistillationSelector.from_examples(records(n), Two(), queries=["a query"], settings=Settings(k=4))


# -- the pool grows and shrinks -----------------------------------------------------------------------------------


def test_an_added_example_can_be_selected():
    chooser = selector()
    ident = chooser.add_example({"input": "a query!", "output": "red", "extra": [1]})
    assert ident == chooser.pool[len(chooser.pool) - 1].id and len(chooser.pool) == 37
    chooser.embedder.vector = lambda text: Clustered().vector("a query!")
    found = chooser.select("another text with the same vector")
    assert ident in found.ids
    assert {"input": "a query!", "output": "red", "extra": [1]} in found.examples


def test_added_examples_make_the_selector_that_had_them_from_the_start():
    grown = selector(records(30))
    idents = grown.add_examples(records(36)[30:])
    whole = selector(records(36))
    assert idents == [d.id for d in whole.pool][30:]
    whole.calibration = grown.calibration  # which stays until it is asked for again
    assert [s.ids for s in grown.select_batch(["a q", "b q", "c q"])] == [
        s.ids for s in whole.select_batch(["a q", "b q", "c q"])
    ]
    assert grown.add_examples([]) == []


def test_added_demonstrations_keep_their_ids():
    chooser = selector()
    assert chooser.add_example(Demonstration(id="mine", input="a new one", output="red")) == "mine"


def test_a_removed_example_is_never_selected_again():
    chooser = selector()
    first = chooser.select("a query")
    chooser.remove(first.ids[0])
    second = chooser.select("a query")
    assert first.ids[0] not in second.ids and len(chooser.pool) == 35
    chooser.remove(second.ids)
    assert not set(second.ids) & set(chooser.select("a query").ids) and len(chooser.pool) == 31
    chooser.remove(iter(chooser.pool[i].id for i in range(2)))
    assert len(chooser.pool) == 29


def snapshot(chooser):
    """What a failed change must leave as it was."""
    return [d.id for d in chooser.pool], chooser.select_batch(["a query", "b query"]), chooser.select_static()


class Failing(Clustered):
    """Fails, in one way or another, on texts that say so."""

    def embed_documents(self, texts):
        if any("raise" in text for text in texts):
            raise ConnectionError("the embedding service is down")
        rows = super().embed_documents(texts)
        for row, text in zip(rows, texts, strict=True):
            if "nan" in text:
                row[0] = float("nan")
        return rows[:, :4] if any("narrow" in text for text in texts) else rows


def count_or_raise(text):
    if "uncountable" in text:
        raise RuntimeError("no token for that")
    return len(text.split())


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ([{"input": "raise"}], ConnectionError),
        ([{"input": "nan"}], EmbeddingError),
        ([{"input": "narrow"}], EmbeddingError),
        ([{"output": "no input"}], MissingKeyError),
        ([{"input": " "}], PoolError),
        (["no mapping"], PoolError),
        ([{"input": "x", "id": "first"}], PoolError),
        ([{"input": "x", "id": "twice"}, {"input": "y", "id": "twice"}], PoolError),
        ([{"input": "uncountable", "output": "red"}], RuntimeError),
    ],
)
@pytest.mark.parametrize("mode", ["labels", "text"])
def test_a_failed_addition_changes_nothing(bad, error, mode):
    settings = Settings(k=4, budget=28, count_tokens=count_or_raise, outputs=mode)
    pool = [{**records()[0], "id": "first"}, *records()[1:]]
    chooser = DistillationSelector.from_examples(pool, Failing(), settings=settings)
    before = snapshot(chooser)
    with pytest.raises(error):
        chooser.add_examples([{"input": "a good one", "output": "red"}, *bad])
    assert snapshot(chooser) == before
    chooser.add_example({"input": "a good one", "output": "red"})
    assert len(chooser.pool) == 37 and all(s.tokens <= 28 for s in chooser.select_batch(["a query", "b query"]))


def test_an_output_that_cannot_be_embedded_changes_nothing():
    chooser = DistillationSelector.from_examples(records(), Failing(), settings=Settings(k=4, outputs="text"))
    before = snapshot(chooser)
    for output, error in (("raise", ConnectionError), ("nan", EmbeddingError)):
        with pytest.raises(error):
            chooser.add_example({"input": "a good one", "output": output})
        assert snapshot(chooser) == before


def test_a_failed_removal_changes_nothing():
    chooser = selector(records(6), Settings(k=4))
    before = snapshot(chooser)
    ids = [d.id for d in chooser.pool]
    with pytest.raises(PoolError, match="no example with the id 'nowhere'; nothing was removed"):
        chooser.remove([ids[0], "nowhere"])
    with pytest.raises(PoolError, match=r"distinct examples in the pool \(3\), got 4"):
        chooser.remove(ids[:3])
    with pytest.raises(PoolError, match="the pool is empty"):
        chooser.remove(ids)
    assert snapshot(chooser) == before


# -- static prompts -----------------------------------------------------------------------------------------------

FROM_POOL = "no queries were given: the pool's own inputs stand for the query distribution"


def test_a_static_prompt_serves_the_queries_it_is_given():
    chooser = selector(settings=Settings(k=6))
    one = chooser.select_static(["a query", "a second", "a third"])
    assert outputs(one)["red"] >= 5 and one.query is None and FROM_POOL not in one.notes
    mixed = outputs(chooser.select_static(["a query", "b query", "c query"]))
    assert set(mixed.values()) == {2}


def test_the_traffic_given_at_construction_is_what_a_static_prompt_is_for():
    traffic = ["b query", {"input": "b second"}, Query(text="b third")]
    with_traffic, without = selector(queries=traffic), selector()
    found = with_traffic.select_static()
    assert found == without.select_static(traffic)
    assert outputs(found)["green"] >= 3 and found.notes == ()
    assert outputs(with_traffic.select_static(["c query"]))["blue"] >= 3
    assert "R5" in {bound.result for bound in found.bounds}


def test_without_queries_the_pool_itself_is_the_distribution_and_a_note_says_so():
    found = selector(settings=Settings(k=6)).select_static()
    assert found.notes == (FROM_POOL,) and len(outputs(found)) == 3 and max(outputs(found).values()) <= 3
    assert "R5" not in {bound.result for bound in found.bounds}


def test_a_sample_of_many_queries_stands_for_all_and_a_note_says_so():
    queries = [f"{'abc'[i % 3]} query {i}" for i in range(60)]
    chooser = selector(settings=Settings(k=3, static=StaticSettings(queries=20)))
    found = chooser.select_static(queries)
    assert found.notes == ("a sample of 20 of the 60 queries stands for all (static_queries)",)
    assert found == chooser.select_static(queries)
    (bound,) = (bound for bound in found.bounds if bound.result == "R5")
    assert "20 queries" in bound.premise
    notes = selector(settings=Settings(k=3, static=StaticSettings(queries=20))).select_static().notes
    assert notes == (FROM_POOL, "a sample of 20 of the 36 queries stands for all (static_queries)")


def test_a_query_may_be_shown_in_a_static_prompt():
    """Its own text is left out of a query's prompt; a prompt for all may show any example."""
    chooser = selector(records(6), Settings(k=6))
    assert len(chooser.select_static(["a 0"])) == 6
    assert len(chooser.select("a 0")) == 5


def test_one_output_does_not_stand_at_the_end_of_a_static_prompt():
    """Late places weigh more: outputs that came in blocks would leave the last one's mark on every answer."""
    sides = [f"{side} {i}" for side in "ab" for i in range(40)]
    pool = [{"input": text, "output": text[0], "id": text} for text in sides]
    generator = torch.Generator().manual_seed(0)
    places = torch.eye(2).repeat_interleave(40, 0) + 0.3 * torch.randn(80, 2, generator=generator)
    known = dict(zip(sides, places, strict=True))
    chooser = DistillationSelector.from_examples(
        pool, CallableEmbedder(lambda texts: torch.stack([known[text] for text in texts])), settings=Settings(k=6)
    )
    found = chooser.select_static()
    outputs = [shown.output for shown in found.demonstrations]
    late = Recency().weights(6)
    share = sum(weight for weight, output in zip(late, outputs, strict=True) if output == "a")
    assert abs(share - 0.5) < 0.15, outputs
    assert [chosen.weight for chosen in found.chosen] == pytest.approx(late)
    pinned = DistillationSelector.from_examples(
        pool, chooser.embedder, settings=Settings(k=6, order=NearestLast())
    ).select_static()
    assert sorted(pinned.ids) == sorted(found.ids)
    assert pinned.chosen[0].weight == pytest.approx(1 / 6)


def test_a_repeated_query_may_see_its_own_example():
    """Where traffic repeats examples, theirs is the nearest one, and its output the estimate."""
    chooser = selector(records(6), Settings(k=6, search=SearchSettings(exclude_query_text=False)))
    found = chooser.select("A  0")
    assert len(found) == 6 and not found.notes
    assert found.demonstrations[-1].input == "a 0"
    assert chooser.explain("a 0").selection.ids == chooser.select("a 0").ids


# -- what a selection says ----------------------------------------------------------------------------------------


def test_shortfall_and_missing_support_are_noted():
    chooser = selector(records(6), Settings(k=6))
    (note,) = chooser.select("a 0").notes
    assert note.startswith("5 of 6 demonstrations")
    alone = selector([{"input": "a 0", "output": "red"}, {"input": "A  0", "output": "blue"}], Settings(k=1))
    found = alone.select("a 0")
    assert found.support == 0 and found.ids == ()
    assert "nothing in the pool supports an estimate of the output: no interference is charged" in found.notes


def test_a_selection_survives_json():
    chooser = selector(records(tasks=("left", "right")))
    for found in (chooser.select("a query", task="left", outputs=["red", "blue"]), chooser.select_static()):
        text = found.model_dump_json()
        assert Selection.model_validate_json(text) == found
        parsed = json.loads(text)
        assert [c["demonstration"]["id"] for c in parsed["chosen"]] == list(found.ids)
        assert parsed["terms"]["total"] == found.terms.total
        assert "NaN" not in text


def test_a_selection_of_none_survives_json():
    found = selector(settings=Settings(k=0)).select("a query")
    assert Selection.model_validate_json(found.model_dump_json()) == found


def test_a_selection_cannot_be_changed():
    found = selector().select("a query")
    with pytest.raises(ValidationError, match="frozen"):
        found.tokens = 3
    with pytest.raises(ValidationError, match="frozen"):
        found.chosen[0].weight = 3.0


def test_examples_are_deep_copies_of_the_originals():
    pool = [{**record, "meta": {"tags": [i]}} for i, record in enumerate(records())]
    chooser = selector(pool)
    found = chooser.select("a query")
    assert found.examples == [pool[pool.index(example)] for example in found.examples]
    for example in found.examples:
        example["meta"]["tags"].append("changed")
        example["input"] = "changed"
    assert chooser.select("a query").examples == found.examples
    assert all("changed" not in example["meta"]["tags"] for example in found.examples)


def test_demonstrations_ids_and_length_agree():
    found = selector().select("a query")
    assert found.ids == tuple(d.id for d in found.demonstrations) == tuple(c.demonstration.id for c in found.chosen)
    assert len(found) == len(found.ids) == len(found.examples) == 4


def test_an_explanation_holds_the_selection_and_the_nearest():
    chooser = selector()
    embedder = Clustered()
    found = chooser.explain("a query")
    assert found.selection == chooser.select("a query") and found.calibration is chooser.calibration
    q = embedder.vector("a query") / np.linalg.norm(embedder.vector("a query"))
    near = sorted(chooser.pool, key=lambda d: embedder.vector(d.input) @ q / np.linalg.norm(embedder.vector(d.input)))
    assert found.nearest_ids == tuple(d.id for d in near[-4:])
    assert found.selection.terms.total <= found.nearest.total + 1e-9
    assert str(found).startswith("query: a query\nsupport of the estimated output")


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"budget": 30}, {}),
        ({"quota": Quota(most=1)}, {}),
        ({}, {"task": "left"}),
        ({}, {"outputs": ["blue", "green"]}),
    ],
    ids=["budget", "quota", "task", "outputs"],
)
def test_the_nearest_of_an_explanation_stand_under_the_limits_of_the_selection(limits, asked):
    chooser = selector(records(tasks=("left", "right")), settings=Settings(k=4, **limits))
    free = selector(records(tasks=("left", "right")), settings=Settings(k=4)).explain("a query").nearest_ids
    nearest = chooser.explain("a query", **asked).nearest_ids
    shown = [chooser.pool[chooser.pool.index(ident)] for ident in nearest]
    assert shown and nearest != free
    assert chooser.settings.budget is None or sum(count_tokens(chooser, shown)) <= chooser.settings.budget
    assert "quota" not in limits or len({d.output for d in shown}) == len(shown)
    assert all(d.task == asked.get("task", d.task) and d.output in asked.get("outputs", [d.output]) for d in shown)


def count_tokens(chooser, shown):
    return [chooser.settings.count_tokens(chooser.settings.template.render(d)) for d in shown]


def test_a_prompt_behind_a_prefix_is_explained():
    chooser = selector()
    prefix = chooser.select_static(k=2)
    found = chooser.explain("a query", prefix=prefix)
    assert found.selection == chooser.select("a query", prefix=prefix) and found.selection.prefix_length == 2
    with pytest.raises(QueryError, match="a static prompt has no prefix"):
        chooser.explain(prefix=prefix)


def test_a_batch_may_have_another_k():
    chooser = selector()
    queries = ["a query", "b query"]
    assert chooser.select_batch(queries, k=2) == [chooser.select(query, k=2) for query in queries]
    with pytest.raises(PoolError, match="k must be at most"):
        chooser.select_batch(queries, k=1000)


def test_a_static_prompt_is_explained_too():
    chooser = selector(queries=["b query", "b second"])
    found = chooser.explain()
    assert found.selection == chooser.select_static()
    assert str(found).startswith("one prompt for the query distribution\n")
    assert "R5" in str(found) and "the rules for static prompts" in str(found)
    static = chooser.calibration.static_parameters
    assert f"settings: temperature {static.kernel.temperature:.3g}" in str(found)
    assert found.selection.weights == static.weights != chooser.calibration.parameters.weights
    assert "the rules for static prompts" not in str(chooser.explain("a query"))
    assert f"note: {FROM_POOL}" in str(selector().explain())


def test_what_is_shown_of_a_note_and_of_none_chosen():
    page = str(selector(settings=Settings(k=4, budget=0)).explain("a query"))
    assert "0 demonstrations, 0 tokens" in page and "note: 0 of 4 demonstrations" in page


# -- real data, real model ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trec(data, embedder):
    return DistillationSelector.from_examples(data("trec", "pool")[:400], embedder, settings=Settings(k=8))


@pytest.mark.data
def test_on_trec_the_majority_of_the_chosen_is_right_more_often_than_not(trec, data):
    queries = data("trec", "test")[:20]
    found = trec.select_batch([query["input"] for query in queries])
    majority = [outputs(selection).most_common(1)[0][0] for selection in found]
    right = sum(guess == query["output"] for guess, query in zip(majority, queries, strict=True))
    assert right > 10, f"{right} of 20"
    assert trec.calibration.chosen.error < 0.4


@pytest.mark.data
def test_on_trec_a_batch_is_its_queries_one_by_one(trec, data):
    queries = [query["input"] for query in data("trec", "test")[:12]]
    assert [s.ids for s in trec.select_batch(queries)] == [trec.select(query).ids for query in queries]


def test_permitted_outputs_given_as_one_text_are_refused():
    """A text is a sequence of letters: "10" must not permit the labels "1" and "0"."""
    examples = [{"input": f"text {i}", "output": str(i % 2)} for i in range(6)]
    vectors = torch.eye(6)
    embedder = CallableEmbedder(lambda texts: [[1.0] * 6 for _ in texts])
    selector = DistillationSelector.from_examples(examples, embedder, vectors=vectors, settings=Settings(k=2))
    with pytest.raises(QueryError, match="wrap it in a list"):
        selector.select("query", outputs="10")


# -- changes by several threads ------------------------------------------------------------------------------------


def test_no_change_of_several_threads_is_lost():
    """Eight threads add, update and remove at the same time; what they were told is what is there."""
    selector = make_selector_for_threads()
    kept, gone = [], []

    def work(name):
        for i in range(12):
            (first, second) = selector.add_examples(
                [{"input": f"{'abc'[i % 3]} {name} {i} {j}", "output": "new"} for j in range(2)]
            )
            selector.update(second, {"input": f"a {name} {i} changed", "output": "changed"})
            selector.remove(first)
            gone.append(first)
            kept.append((second, f"a {name} {i} changed"))
            assert first not in selector.select(f"{'abc'[i % 3]} {name} {i} 0").ids

    run_together(work, 8)
    assert len(selector.pool) == 20 + len(kept) and len(kept) == 96
    assert {ident: selector.pool[selector.pool.index(ident)].input for ident, _ in kept} == dict(kept)
    assert not any(ident in selector.pool for ident in gone)


def make_selector_for_threads():
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": "abc"[i % 3]} for i in range(20)]
    return DistillationSelector.from_examples(examples, Clustered(), settings=Settings(k=2))


def test_a_selector_that_is_pickled_or_copied_can_be_changed():
    selector = make_selector_for_threads()
    for again in (pickle.loads(pickle.dumps(selector)), copy.deepcopy(selector), copy.copy(selector)):
        again.remove(again.pool[0].id)
        assert len(again.pool) == 19 and len(selector.pool) == 20


# -- values that are missing, queries of every kind, text that cannot be written -------------------------------------


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), np.datetime64("NaT")])
def test_a_missing_output_is_no_output(missing):
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": missing if i % 2 else "refund"} for i in range(20)]
    selector = DistillationSelector.from_examples(examples, Clustered(), settings=Settings(k=4))
    assert {shown.output for shown in selector.pool} == {"refund", None}
    selection = selector.select("a 99")
    assert set(selection.estimate) <= {"refund"}
    without = sum(shown.output is None for shown in selection.demonstrations)
    assert any(f"no output in {without} of" in note for note in selection.notes) == (without > 0)


def test_a_missing_input_names_the_example_and_the_value():
    with pytest.raises(MissingKeyError, match="example 1 has no input: 'input' is nan"):
        Pool.from_records([{"input": "a"}, {"input": float("nan")}])
    text = Pool.from_records([{"p": "x", "q": None}], Schema(inputs=("p", "q")))[0].input
    assert text == "p: x"


def test_a_key_of_the_output_that_was_forgotten_is_said():
    examples = [{"input": f"{'abc'[i % 3]} {i}", "lable": "x"} for i in range(9)]
    selector = DistillationSelector.from_examples(examples, Clustered(), settings=Settings(k=3))
    assert any("no output in 3 of" in note for note in selector.select("a").notes)
    selector = DistillationSelector.from_examples(
        examples, Clustered(), settings=Settings(k=3), schema=Schema(outputs=())
    )
    assert not any("no output" in note for note in selector.select("a").notes)


@pytest.mark.parametrize("kind", [np.array, iter, tuple, lambda texts: (text for text in texts)])
def test_queries_come_as_arrays_and_generators_too(kind):
    texts = ["a 1", "b 2"]
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": "x"} for i in range(9)]
    selector = DistillationSelector.from_examples(examples, Clustered(), settings=Settings(k=2), queries=kind(texts))
    assert [s.ids for s in selector.select_batch(kind(texts))] == [s.ids for s in selector.select_batch(texts)]
    assert selector.select_static(kind(texts)).ids == selector.select_static(texts).ids


def test_half_a_character_is_refused_where_it_enters(tmp_path):
    with pytest.raises(PoolError, match=r"example 0 holds half of a character .*'\\ud83d'"):
        Pool.from_records([{"input": "cut \ud83d here", "output": "x"}])
    with pytest.raises(QueryError, match="lone surrogate"):
        make_selector_for_threads().select("cut \ud83d here")
    (tmp_path / "pool.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "c", "output": "\\ud83d"}\n')
    with pytest.raises(PoolError, match="line 2"):
        Pool.from_jsonl(tmp_path / "pool.jsonl")
    (tmp_path / "deep.jsonl").write_text('{"input": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(PoolError, match="line 1"):
        Pool.from_jsonl(tmp_path / "deep.jsonl")


def test_k_of_one_call_is_that_of_settings():
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": "xyz"[i % 3]} for i in range(12)]
    selector = DistillationSelector.from_examples(examples, Clustered(), settings=Settings(k=4))
    for k in (0, 2, 6, "auto"):
        settings = selector.settings.model_copy(update={"k": k})
        other = DistillationSelector.restored(selector.stored(), selector.embedder, settings)
        chosen = selector.select("a 20", k=k)
        assert chosen.ids == other.select("a 20").ids and (k == "auto" or len(chosen) == k)
        assert selector.explain("a 20", k=k).selection.ids == chosen.ids
    assert len(selector.select("a 20")) == 4 and selector.settings.k == 4
    with pytest.raises(PoolError, match=r"k must be at most .* got 13"):
        selector.select("a 20", k=13)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        selector.select("a 20", k=-1)


def test_a_selector_is_freed_as_soon_as_it_is_let_go_of():
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": "xyz"[i % 3]} for i in range(120)]
    selector = DistillationSelector.from_examples(examples, Clustered(), settings=Settings(k=4))
    selector.select("a 20")
    asyncio.run(selector.aselect("a 20"))
    held = [weakref.ref(one) for one in (selector, selector.pool, selector._pool.tensors)]
    gc.collect()
    gc.disable()
    try:
        del selector
        assert [one() for one in held] == [None] * 3
    finally:
        gc.enable()
