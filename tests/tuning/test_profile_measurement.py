"""A simulated reader with planted constants is measured through its answers to prompts, end to end."""

import json
import re

import numpy as np
import pytest
import torch

from kdprompt import (
    Answer,
    CallableEmbedder,
    DistillationSelector,
    ObjectiveSettings,
    PoolError,
    Query,
    QueryError,
    Settings,
    StaticSettings,
)
from kdprompt.objective.own_knowledge import OwnKnowledge
from kdprompt.objective.reader_profile import CAPABLE_READER
from kdprompt.pool.content_ids import make_content_id
from kdprompt.tuning.profile_measurement import fit_profile

FOLLOW, RECENCY, KNOWLEDGE, LEANING = 4.0, 1.2, 1.0, 0.6
SIDES = ("east", "north", "south")


def vector(text):
    return np.concatenate(
        [
            [3.0 * SIDES.index(side) for side in SIDES if text.startswith(side)][:1] or [1.0],
            np.random.default_rng(list(text.encode())).normal(size=5),
        ]
    )


EMBEDDER = CallableEmbedder(lambda texts: np.array([vector(text) for text in texts]))


def records(n=480):
    rng = np.random.default_rng(0)
    return [
        {"input": f"{SIDES[i % 3]} {i}", "output": SIDES[i % 3] if rng.random() < 0.7 else SIDES[rng.integers(3)]}
        for i in range(n)
    ]


def knows(text):
    """What the reader knows itself of an input, in nats."""
    return np.random.default_rng(list(f"known {text}".encode())).normal(size=3)


class Simulated:
    """Answers by R9 with planted constants."""

    name = "simulated"

    def __init__(self, *, sure=True):
        self.sure = sure
        self.asked = 0

    def answers(self, prompts, labels):
        for prompt in prompts:
            self.asked += 1
            inputs, outputs = re.findall(r"Input: (.+)", prompt), re.findall(r"Output: (.+)", prompt)
            shown = np.array([outputs.count(label) / max(len(outputs), 1) for label in labels])
            last = np.array([float(bool(outputs) and outputs[-1] == label) for label in labels])
            leaning = np.array([LEANING, 0.0, -LEANING])
            logits = torch.tensor(KNOWLEDGE * knows(inputs[-1]) + FOLLOW * shown + RECENCY * last + leaning)
            log_probs = tuple(logits.log_softmax(-1).tolist())
            yield Answer(labels[int(np.argmax(log_probs))], log_probs if self.sure else None)

    def count_tokens(self, text):
        return len(text.split())


def measured(reader, k=6, pool=None):
    selector = DistillationSelector.from_examples(pool or records(), EMBEDDER, settings=Settings(k=k))
    context = selector.calibration.query_context(selector._pool, selector.settings)
    rows = torch.arange(len(context.tensors))
    return fit_profile(context, reader, rows, k, torch.Generator().manual_seed(0)), selector


def test_planted_constants_are_found_through_the_answers():
    reader = Simulated()
    found, selector = measured(reader)
    assert reader.asked == found.answers == 360
    profile = found.profile
    assert profile.follow == pytest.approx(FOLLOW, rel=0.05) and profile.recency == pytest.approx(RECENCY, rel=0.1)
    assert profile.knowledge_weight == pytest.approx(KNOWLEDGE, rel=0.1) and found.explained > 0.98
    # ℓ₀ is read behind a neutral prompt, whose last output and the leaning are in it; b holds what is left.
    assert max(profile.label_bias.values()) - min(profile.label_bias.values()) < 1.5
    assert found.foretold > 0.9 and 0.4 < found.confidence <= 1
    assert profile.name == "simulated" and profile.source == f"measured by 360 answers, R² {found.explained:.2f}"
    assert type(profile).model_validate_json(profile.model_dump_json()) == profile
    assert found.own is not None and set(found.own.ids) <= {d.id for d in selector.pool}
    assert "τ = " in str(found) and "foretold" in str(found)
    unmoved = profile.model_copy(update={"follow": 0.0, "recency": 0.0, "knowledge_weight": 0.0})
    assert found.explained_by(profile) > 0.9 and found.explained_by(unmoved) < 0.1
    for name, planted in (("follow", FOLLOW), ("recency", RECENCY), ("knowledge_weight", KNOWLEDGE)):
        low, high = found.intervals[name]
        assert low <= getattr(profile, name) <= high and low - 0.15 < planted < high + 0.15 and high - low < 0.5


def test_answers_without_probabilities_measure_it_too():
    found, _ = measured(Simulated(sure=False))
    assert found.own is None and np.isnan(found.explained) and found.profile.follow > 2
    assert found.foretold > 0.7 and "R²" not in str(found) and "γ" not in str(found)
    assert found.profile.knowledge_weight == CAPABLE_READER.knowledge_weight, "of it nothing was seen"


def test_pools_without_labels_have_no_profile():
    pool = [{"input": f"east {i}", "output": f"text {i}"} for i in range(200)]
    with pytest.raises(PoolError, match="choice among labels"):
        measured(Simulated(), pool=pool)


class Changed(Simulated):
    """The same, its answers changed by a function."""

    def __init__(self, change, **more):
        super().__init__(**more)
        self.change = change

    def answers(self, prompts, labels):
        return map(self.change, super().answers(prompts, labels))


def test_impossible_labels_and_other_spellings_are_taken():
    def impossible(answer):
        return Answer(answer.text, (-np.inf, *answer.log_probs[1:]))

    found, _ = measured(Changed(impossible))
    assert found.profile.follow == pytest.approx(FOLLOW, rel=0.05) and found.own.log_probs[0][0] == -30
    shouting = Changed(lambda answer: Answer(f" {answer.text.upper()}"), sure=False)
    assert measured(shouting)[0].profile == measured(Simulated(sure=False))[0].profile


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: Answer("I do not know"), r"must answer with one of .*'east'.*, and 240 of 240 answers"),
        (lambda answer: Answer(answer.text, answer.log_probs[:2]), "for each of 3 labels, got .* for the input"),
        (lambda answer: Answer(answer.text, (float("nan"), 0.0, 0.0)), "for each of 3 labels, got .nan"),
    ],
)
def test_answers_that_say_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        measured(Changed(change))


def test_a_reader_that_seldom_says_a_label_is_calibrated_without_a_profile():
    selector = DistillationSelector.from_examples(records(), EMBEDDER, settings=Settings(k=6))
    found = selector.calibrate(Changed(lambda answer: Answer("I do not know"), sure=False), max_answers=1000)
    assert found.own is None and "its profile was not measured: the reader 'simulated' must answer" in found.source


def test_examples_without_an_output_are_not_shown_as_one():
    pool = records(300)
    for record in pool[::2]:
        del record["output"]
    found, _ = measured(Simulated(), pool=pool)
    assert found.profile.follow == pytest.approx(FOLLOW, rel=0.1) and found.explained > 0.95


def test_a_profile_is_of_one_task():
    pool = [{**record, "task": "ab"[i % 2]} for i, record in enumerate(records())]
    with pytest.raises(PoolError, match=r"measured on one task, and the pool has \['a', 'b'\]"):
        measured(Simulated(), pool=pool)


def test_a_failed_calibration_changes_nothing():
    pool = [{"input": f"east {i}", "output": f"text {i}"} for i in range(120)]
    selector = DistillationSelector.from_examples(pool, EMBEDDER, settings=Settings(k=4, outputs="text"))
    before = selector._pool, selector.calibration

    class Broken(Simulated):
        def answers(self, prompts, labels):
            raise ConnectionError("no answer")

    with pytest.raises(ConnectionError):
        selector.calibrate(Broken())
    assert (selector._pool, selector.calibration) == before


def test_calibration_works_with_the_profile_measurement_where_it_answers_better():
    selector = DistillationSelector.from_examples(records(), EMBEDDER, settings=Settings(k=6))
    reader, plan = Simulated(), selector.plan_answers(1500)
    assert plan.profile and plan.static_rounds is None and plan.answers <= 1500
    found = selector.calibrate(reader, max_answers=1500)
    assert reader.asked <= plan.answers and "simulated: τ = " in found.source and found.prefix == ()
    if found.own is not None:
        assert found.parameters.profile.name == "simulated" != CAPABLE_READER.name
    data = json.loads(json.dumps(selector.to_dict()))
    again = DistillationSelector.from_dict(data, EMBEDDER)
    assert again.calibration == found
    assert again.select("east of here") == selector.select("east of here")


@pytest.mark.parametrize(("most", "profile", "static"), [(None, True, 16), (240, False, None), (800, True, None)])
def test_the_plan_says_what_few_answers_leave_out(most, profile, static):
    selector = DistillationSelector.from_examples(records(), EMBEDDER, settings=Settings(k=6))
    plan = selector.plan_answers(most)
    assert (plan.profile, plan.static_rounds) == (profile, static)
    assert most is None or plan.answers <= most
    assert f"at most {plan.answers:,} answers" in str(plan) and ("not measured" in str(plan)) != profile


@pytest.mark.parametrize("most", [10, 800.5, "800", True, float("nan")])
def test_too_few_answers_are_refused(most):
    selector = DistillationSelector.from_examples(records(), EMBEDDER, settings=Settings(k=6))
    with pytest.raises(ValueError, match=r"max_answers must be (at least 240|a whole number)"):
        selector.calibrate(Simulated(), max_answers=most)


@pytest.mark.parametrize("n", [100, 300, 1000])
def test_a_reader_is_not_asked_more_often_than_planned(n):
    static = StaticSettings(rounds=1)
    selector = DistillationSelector.from_examples(records(n), EMBEDDER, settings=Settings(k=6, static=static))
    reader, plan = Simulated(), selector.plan_answers()
    selector.calibrate(reader)
    assert plan.answers / 2 < reader.asked <= plan.answers


def test_a_reader_that_is_pinned_is_not_measured():
    fixed = ObjectiveSettings(profile=CAPABLE_READER)
    selector = DistillationSelector.from_examples(records(), EMBEDDER, settings=Settings(k=6, objective=fixed))
    assert not selector.plan_answers().profile


# -- what the reader knows itself -----------------------------------------------------------------------------------


def test_own_knowledge_is_the_regression_of_the_others_answers():
    selector = DistillationSelector.from_examples(records(120), EMBEDDER, settings=Settings(k=4))
    pool, ids = selector._pool, tuple(d.id for d in list(selector.pool)[:30])
    answers = torch.tensor(np.array([knows(d.input) for d in list(selector.pool)[:30]])).log_softmax(-1)
    inputs = tuple(make_content_id(d.input) for d in list(selector.pool)[:30])
    known = OwnKnowledge(ids, inputs, SIDES, tuple(map(tuple, answers.tolist())), temperature=0.3, shrinkage=0.7)
    estimate = pool.estimate_own(known)
    x = pool.tensors.x.double()
    rows = [pool.find_row(ident) for ident in ids]
    centred = answers - answers.mean(-1, keepdim=True)
    for q in (x[rows[0]], x[-1]):
        kernel = torch.stack([torch.exp((x[row] @ q - 1) / 0.3) * float(x[row] @ q < 1 - 1e-5) for row in rows])
        expected = (kernel @ centred + 0.7 * centred.mean(0)) / (kernel.sum() + 0.7)
        torch.testing.assert_close(estimate(q[None])[0], expected)
    selector.remove(ids[:28])
    selector.update(ids[28], {"input": "north and another", "output": "north"})
    assert len(selector._pool.estimate_own(known).x) == 1, "an answer does not speak for another text"
    selector.add_example({"input": "west 1", "output": "west"})
    assert selector._pool.estimate_own(known)(x[:1])[0, -1] == 0, "of a new label nothing is known"
    selector.remove(ids[29])
    assert selector._pool.estimate_own(known) is None and pool.estimate_own(None) is None


def test_what_the_reader_knows_enters_the_aim_of_a_prompt():
    selector = DistillationSelector.from_examples(records(), EMBEDDER, settings=Settings(k=6))
    query, sure = "east of here", {"east": -9.0, "north": -9.0, "south": 0.0}
    plain, told = selector.select(query), selector.select(query, own=sure)
    by_output = {item.output: item for item in told.evidence}
    assert by_output["south"].own == pytest.approx(0) and by_output["east"].own == pytest.approx(-9)
    logits = {o: item.pool + item.own for o, item in by_output.items()}
    expected = np.exp(logits["south"]) / sum(np.exp(value) for value in logits.values())
    assert by_output["south"].target == pytest.approx(expected, abs=1e-9)
    assert {item.own for item in plain.evidence} == {0.0}
    tagged = [{**record, "task": "sky"} for record in records(60)] + [{"input": "x", "output": "other", "task": "sea"}]
    two_tasks = DistillationSelector.from_examples(tagged, EMBEDDER, settings=Settings(k=4))
    assert len(two_tasks.select(query, task="sky", own=sure)) == 4, "the outputs of the query's task suffice"
    batch = selector.select_batch([Query(text=query, own=sure), query])
    assert batch[0].evidence == told.evidence and batch[1].evidence == plain.evidence


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"east": 0.0}, "it lacks 'north'"),
        ({"east": 0.0, "north": 0.0, "south": 0.0, "west": 0.0}, "the pool has no output 'west'"),
        ({"east": 0.0, "north": float("nan"), "south": 0.0}, "in nats, of at most 10000 in size, got nan for 'north'"),
        ({"east": 0.0, "north": 1e39, "south": 0.0}, "got 1e\\+39 for 'north'"),
        ({"east": 0.0, "north": None, "south": 0.0}, "own.north of a query cannot be used"),
        ([0.0, 0.0, 0.0], "own of a query cannot be used"),
    ],
)
def test_own_knowledge_that_does_not_fit_is_refused(own, message):
    selector = DistillationSelector.from_examples(records(), EMBEDDER, settings=Settings(k=6))
    with pytest.raises(QueryError, match=message):
        selector.select("east of here", own=own)
