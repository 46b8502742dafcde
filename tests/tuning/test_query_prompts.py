"""The calibration that asks a reader: which ways are tried, which one is taken, when its prefix serves a query."""

import json
import re
from math import log

import numpy as np
import pytest
import torch

from kdprompt import (
    Answer,
    CallableEmbedder,
    DistillationSelector,
    EvidenceLast,
    NearestFirst,
    PoolError,
    Settings,
    StaticSettings,
)
from kdprompt.checksums import checksum_json
from kdprompt.evaluate import LabelReader, TextReader

SIDES = {"n": "north", "s": "south"}


def vector(text):
    """Texts like ``n 17`` lie on the side that their first letter names."""
    side = {"n": 3.0, "s": -3.0}.get(text[:1], 0.0)
    return np.concatenate([[side], np.random.default_rng(list(text.encode())).normal(size=4)])


EMBEDDER = CallableEmbedder(lambda texts: np.array([vector(text) for text in texts]))
SETTINGS = Settings(k=4, static=StaticSettings(rounds=4))  # few rounds of changes: nothing here depends on how many


def records(n=240):
    return [{"input": f"{'ns'[i % 2]} {i}", "output": SIDES["ns"[i % 2]]} for i in range(n)]


def selector(pool=None, settings=None, **rest):
    return DistillationSelector.from_examples(
        records() if pool is None else pool, EMBEDDER, settings=settings or SETTINGS, **rest
    )


def shown(prompt):
    """Inputs and outputs of the demonstrations, and the query."""
    inputs, outputs = re.findall(r"Input: (.+)", prompt), re.findall(r"Output: (.+)", prompt)
    return inputs[:-1], outputs, inputs[-1]


class Habitual:
    """A reader that is right where it likes a prompt (a function of ``shown``), and notes what it is asked."""

    def __init__(self, likes, *, sure=True):
        self.name = "habitual"
        self.likes = likes
        self.sure = sure
        self.asked = []

    def answers(self, prompts, labels):
        for prompt in prompts:
            self.asked.append(prompt)
            truth = SIDES[shown(prompt)[2][0]]
            right = self.likes(*shown(prompt))
            wrong = next(label for label in labels if label != truth)
            share = {True: 0.9, False: 0.2}[right]
            log_probs = tuple(log(share if label == truth else 1 - share) for label in labels)
            yield Answer(truth if right else wrong, log_probs if self.sure else None)

    def count_tokens(self, text):
        return len(text.split())


def contrast(inputs, outputs, query):
    """Likes both outputs, and the query's own side last."""
    return len(set(outputs)) == 2 and outputs[-1] == SIDES[query[0]]


def cosine(a, b):
    return float(vector(a) @ vector(b) / np.linalg.norm(vector(a)) / np.linalg.norm(vector(b)))


QUERIES = [f"{side} query {i}" for i in range(8) for side in "ns"]


# -- what is chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sure", [True, False], ids=["probabilities", "text"])
def test_a_reader_that_needs_both_outputs_gets_a_prefix(sure):
    chooser = selector()
    before = chooser.select_batch(QUERIES)
    assert all(len({d.output for d in selection.demonstrations}) == 1 for selection in before)
    reader = Habitual(contrast, sure=sure)
    found = chooser.calibrate(reader)
    assert len(found.prefix) == 2 and found is chooser.calibration
    for query, selection in zip(QUERIES, chooser.select_batch(QUERIES), strict=True):
        assert selection.ids[:2] == found.prefix and selection.prefix_length == 2 and len(selection) == 4
        assert contrast(*shown(chooser.settings.template.text(selection.demonstrations, query))) or not sure
    assert "habitual" in found.source and "2 demonstrations of its static prompt first" in found.source
    assert re.search(r"; no prefix, evidence last: loss [^;]+, \d+% right; habitual: τ = ", found.source)
    assert found == selector().calibrate(Habitual(contrast, sure=sure))


@pytest.mark.parametrize("order", [EvidenceLast(), NearestFirst()], ids=lambda order: order.kind)
def test_the_order_that_the_reader_heeds_is_taken(order):
    def likes(inputs, outputs, query):
        first, last = cosine(inputs[0], query), cosine(inputs[-1], query)
        return outputs == [SIDES[query[0]]] * 4 and (last > first) == (order == EvidenceLast())

    chooser = selector()
    found = chooser.calibrate(Habitual(likes))
    assert found.order == order and found.prefix == ()
    for query, selection in zip(QUERIES, chooser.select_batch(QUERIES), strict=True):
        near = [cosine(d.input, query) for d in selection.demonstrations]
        assert near == sorted(near, reverse=order == NearestFirst())
    assert chooser.explain(QUERIES[0]).selection == chooser.select(QUERIES[0])
    assert found.source.count(order.kind.replace("_", " ")) == 1


def test_of_ways_that_a_reader_does_not_tell_apart_the_plain_one_is_taken():
    chooser = selector()
    before = chooser.select_batch(QUERIES)
    found = chooser.calibrate(Habitual(lambda *_: True))
    assert found.order == EvidenceLast() and found.prefix == ()
    assert [s.demonstrations for s in chooser.select_batch(QUERIES)] == [s.demonstrations for s in before]


def test_an_order_that_is_pinned_stays_and_is_not_tried_otherwise():
    reader = Habitual(contrast)
    chooser = selector(settings=Settings(k=4, order=NearestFirst()))
    found = chooser.calibrate(reader)
    assert found.order is None and "of 5 ways" in found.source
    assert chooser.calibration.query_context(chooser._pool, chooser.settings).settings.order == NearestFirst()


def test_calibrating_without_a_reader_forgets_what_it_chose():
    chooser = selector()
    before = chooser.calibration
    chooser.calibrate(Habitual(contrast))
    assert chooser.calibrate() == before != selector().calibrate(Habitual(contrast))


def test_what_is_examined_here_is_neither_shown_nor_examined_for_the_static_prompt():
    reader = Habitual(contrast)
    selector().calibrate(reader)
    last = 7 * 60  # seven ways, a quarter of 240 examples
    race, ways = [shown(prompt) for prompt in reader.asked[:-last]], [shown(prompt) for prompt in reader.asked[-last:]]
    held = {query for *_, query in ways}
    assert len(held) == 60 and all([query for *_, query in ways].count(query) == 7 for query in held)
    assert not held & {query for *_, query in race}
    assert not held & {each for inputs, *_ in race for each in inputs}
    assert all(query not in inputs for inputs, _, query in ways)


def test_pools_of_several_tasks_get_no_prefix():
    pool = [{**record, "task": "ab"[i % 4 // 2]} for i, record in enumerate(records())]
    reader = Habitual(contrast)
    found = selector(pool).calibrate(reader)
    assert found.prefix == () and len(reader.asked) == 2 * 60  # two orders; no static prompt was looked for
    tasks = {record["input"]: record["task"] for record in pool}
    assert all(tasks[each] == tasks[query] for p in reader.asked for inputs, _, query in [shown(p)] for each in inputs)


def test_one_demonstration_has_no_half():
    found = selector(settings=Settings(k=1)).calibrate(Habitual(lambda *_: True))
    assert "of 4 ways" in found.source and found.prefix == ()


def test_free_text_is_compared_by_its_embedding():
    pool = [{"input": r["input"], "output": f"{r['output'][0]} answer {i}"} for i, r in enumerate(records())]

    def parrot(prompt):
        """Says the first output."""
        return shown(prompt)[1][0]

    chooser = selector(pool, Settings(k=4, outputs="text"))
    found = chooser.calibrate(TextReader(parrot))
    losses = [float(number) for number in re.findall(r"squared distance of the outputs (\d\.\d{3})", found.source)]
    assert losses == sorted(losses) and found.prefix == ()


# -- whom the prefix serves -------------------------------------------------------------------------------------------


@pytest.fixture
def with_prefix():
    chooser = selector()
    chooser.calibrate(Habitual(contrast))
    assert len(chooser.calibration.prefix) == 2
    return chooser


def test_a_query_of_the_prefix_or_with_permitted_outputs_gets_none(with_prefix):
    prefix = with_prefix.calibration.prefix
    member = with_prefix.pool[with_prefix.pool.index(prefix[0])]
    mixed = [QUERIES[0], member.input, QUERIES[1]]
    steps = []
    found = with_prefix.select_batch(mixed, progress=steps.append)
    assert [selection.prefix_length for selection in found] == [2, 0, 2] and sum(steps) == 3
    assert [selection.query.text for selection in found] == mixed
    assert member.id not in found[1].ids
    assert [each.ids for each in found] == [with_prefix.select(query).ids for query in mixed]
    assert with_prefix.select(QUERIES[0], outputs=["north"]).prefix_length == 0
    assert with_prefix.select(QUERIES[0], outputs=["north", "south"]).prefix_length == 2


async def test_a_query_asked_for_asynchronously_gets_it_too(with_prefix):
    found = await with_prefix.aselect(QUERIES[0])
    assert found.prefix_length == 2 and found.ids == with_prefix.select(QUERIES[0]).ids


def test_another_prefix_or_none_may_be_given(with_prefix):
    other = with_prefix.select_static(k=1)
    assert with_prefix.select(QUERIES[0], prefix=other).ids[:1] == other.ids
    assert with_prefix.select(QUERIES[0], prefix=()).prefix_length == 0


def test_without_one_of_its_examples_or_the_room_for_it_there_is_none(with_prefix):
    smaller = DistillationSelector.from_dict(with_prefix.to_dict(), EMBEDDER, settings=Settings(k=1))
    assert smaller.calibration.prefix and smaller.select(QUERIES[0]).prefix_length == 0
    tight = DistillationSelector.from_dict(with_prefix.to_dict(), EMBEDDER, settings=Settings(k=4, budget=5))
    assert tight.select(QUERIES[0]).prefix_length == 0
    wide = DistillationSelector.from_dict(with_prefix.to_dict(), EMBEDDER, settings=Settings(k=4, budget=500))
    assert wide.select(QUERIES[0]).prefix_length == 2
    with_prefix.remove(with_prefix.calibration.prefix[1])
    assert with_prefix.select(QUERIES[0]).prefix_length == 0


def test_prefix_and_order_are_stored(with_prefix, tmp_path):
    with_prefix.save(tmp_path / "chooser")
    loaded = DistillationSelector.load(tmp_path / "chooser", EMBEDDER)
    assert loaded.calibration == with_prefix.calibration
    assert loaded.select_batch(QUERIES) == with_prefix.select_batch(QUERIES)
    assert DistillationSelector.from_dict(json.loads(json.dumps(with_prefix.to_dict())), EMBEDDER).calibration.prefix


def test_a_calibration_that_was_stored_without_them_is_read(with_prefix):
    stored = selector().to_dict()
    for name in ("order", "prefix"):
        del stored["calibration"][name]
    stored["checksums"]["calibration"] = checksum_json(stored["calibration"])
    assert DistillationSelector.from_dict(stored, EMBEDDER).calibration == selector().calibration


# -- errors and the real thing --------------------------------------------------------------------------------------


def test_what_cannot_be_calibrated_so_is_refused_and_leaves_the_calibration():
    chooser = selector(records(60))
    before = chooser.calibration
    with pytest.raises(PoolError, match=r"at least 96 of them, got 60.*leave the reader out"):
        chooser.calibrate(Habitual(contrast))
    with pytest.raises(TypeError, match=r"LabelReader\(model\).*got function"):
        selector().calibrate(lambda prompt: "north")
    assert chooser.calibration == before


@pytest.mark.llm
@pytest.mark.slow
def test_a_real_model_is_asked(data, embedder, small_lm):
    rows = [{"input": row["input"], "output": row["output"]} for row in data("trec", "pool")[:140]]
    queries = [row["input"] for row in data("trec", "dev")[:20]]
    settings = Settings(k=2, static=StaticSettings(rounds=2))  # each round is some 480 answers
    chooser = DistillationSelector.from_examples(rows, embedder, queries=queries, settings=settings)
    found = chooser.calibrate(LabelReader(small_lm))
    assert found.source.count("on 35 of them") in (1, 2) and small_lm.name in found.source
    assert {s.prefix_length for s in chooser.select_batch(queries)} == {len(found.prefix)}
    assert torch.isfinite(torch.tensor([s.terms.total for s in chooser.select_batch(queries)])).all()
