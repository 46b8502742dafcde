"""The DSPy adapter, against the real DSPy: programs, optimisers, adapters, async, threads, saved states, a real LM."""

import asyncio
import copy
import dataclasses
import os
import re
import subprocess
import sys
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pandas as pd
import pydantic
import pytest
import torch
from dspy.lm15 import Message, Response, TextPart, Usage
from dspy.utils import DummyLM

from dspy_kdprompt import DistilledFewShot, DistilledPredict, per_query
from kdprompt import (
    DistillationSelector,
    EmbeddingError,
    MissingKeyError,
    Pool,
    PoolError,
    QueryError,
    Schema,
    Settings,
)
from kdprompt.resources import support_desk

README = Path(__file__).resolve().parents[2] / "integrations" / "dspy_kdprompt" / "README.md"


class Words:
    """Counts of words, hashed to 64 places; remembers the texts it was given."""

    def __init__(self):
        self.documents = []
        self.queries = []

    def embed_documents(self, texts):
        self.documents += texts
        return torch.stack([self._embed(text) for text in texts])

    def embed_query(self, text):
        self.queries.append(text)
        return self._embed(text)

    def _embed(self, text):
        vector = torch.full([64], 0.01)
        for word in re.findall(r"\w+", text.lower()):
            vector[zlib.crc32(word.encode()) % 64] += 1.0
        return vector


class Refusing(dspy.BaseLM):
    """A language model that must not be asked."""

    def __init__(self):
        super().__init__("refusing")

    def forward(self, *args, **kwargs):
        raise AssertionError("a language model was called")


TOPICS = {
    "sums": ["add the two numbers", "add three numbers up", "what do the numbers sum to"],
    "weather": ["will it rain today", "is rain coming tomorrow", "how warm is it today"],
    "trains": ["when does the train leave", "is the train to town late", "which platform is it for the next train"],
    "food": ["boil an egg please", "how long to boil rice", "what goes with boiled rice"],
}
TRAINSET = [
    dspy.Example(question=text, answer=topic).with_inputs("question")
    for topic, texts in TOPICS.items()
    for text in texts
]
QUERIES = ["is the train late today", "boiled rice and an egg", "will it rain tomorrow", "sum three numbers"]
QUICK = Settings(k=3, calibrate=False)
ANSWERS = {text: {"answer": f"reply {i}"} for i, text in enumerate(QUERIES)}


def build(signature="question -> answer", trainset=TRAINSET, embeddings=None, **options):
    options = {"settings": QUICK} | options
    return DistilledPredict.from_examples(signature, trainset, embeddings or Words(), **options)


def compiled(student, trainset=TRAINSET, teacher=None, **options):
    options = {"settings": QUICK, "embeddings": Words()} | options
    return DistilledFewShot(**options).compile(student, trainset=trainset, teacher=teacher)


def core(settings=QUICK, trainset=TRAINSET):
    """What kdprompt itself would choose from."""
    schema = Schema(inputs=("question",), outputs=("answer",), id=None)
    return DistillationSelector.from_examples(
        [dict(e.items()) for e in trainset], Words(), schema=schema, settings=settings
    )


def shown(lm, entry=-1, field="question"):
    """The values of an input field in the user turns of a call, in order; the last is the question itself."""
    turns = [turn["content"] for turn in lm.history[entry]["messages"] if turn["role"] == "user"]
    return [re.search(rf"\[\[ ## {field} ## \]\]\n(.*)", turn).group(1) for turn in turns]


def chosen(selector, text):
    return [example["question"] for example in selector.select(text).examples]


class TwoSteps(dspy.Module):
    """question → plan → answer; the plan stands in no trainset."""

    def __init__(self):
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.answer = dspy.Predict("question, plan -> answer")

    def forward(self, question):
        return self.answer(question=question, plan=self.plan(question=question).plan)


# -- static demonstrations ----------------------------------------------------------------------------------------


def test_static_demonstrations_are_kdprompts_in_its_order():
    student = dspy.Predict("question -> answer")
    student.demos = [TRAINSET[0]]
    made = compiled(student)
    assert made.demos == [dspy.Example(base=example) for example in core().select_static().examples]
    assert len(made.demos) == 3
    assert all(demo.inputs().keys() == ["question"] and demo.labels().keys() == ["answer"] for demo in made.demos)
    assert type(made) is dspy.Predict and made is not student
    assert student.demos == [TRAINSET[0]]
    assert made._compiled and not student._compiled


def test_static_demonstrations_arrive_in_the_messages_in_order():
    made, lm = compiled(dspy.Predict("question -> answer")), DummyLM(ANSWERS)
    with dspy.context(lm=lm):
        assert made(question=QUERIES[0]).answer == "reply 0"
    assert shown(lm) == [*(demo.question for demo in made.demos), QUERIES[0]]


def test_the_traffic_decides_what_static_demonstrations_are():
    trains = [{"question": text} for text in ("is my train late", "late train to town", "platform of the late train")]
    made = compiled(dspy.Predict("question -> answer"), queries=trains)
    expected = DistillationSelector.from_examples(
        [dict(e.items()) for e in TRAINSET],
        Words(),
        queries=[each["question"] for each in trains],
        schema=Schema(inputs=("question",), outputs=("answer",), id=None),
        settings=QUICK,
    ).select_static()
    assert [demo.toDict() for demo in made.demos] == expected.examples
    assert made.demos != compiled(dspy.Predict("question -> answer")).demos


def test_examples_are_copied():
    trainset = [dspy.Example(question=f"word{i}", answer=["a", f"b{i}"]).with_inputs("question") for i in range(5)]
    before = copy.deepcopy(trainset)
    made, selecting = compiled(dspy.Predict("question -> answer"), trainset), build(trainset=trainset)
    for example in trainset:
        example.answer.append("changed")
    assert all(demo in before for demo in made.demos)
    made.demos[0].answer.append("changed")
    lm = DummyLM([{"answer": "x"}] * 2)
    with dspy.context(lm=lm):
        selecting(question="word9")
    assert "changed" not in str(lm.history)


def test_no_language_model_is_called_to_compile():
    with dspy.context(lm=Refusing()):
        compiled(dspy.ChainOfThought("question -> answer"))
        compiled(dspy.ChainOfThought("question -> answer"), per_query=True)
        compiled(dspy.Predict("question -> answer"), teacher=dspy.Predict("question -> answer"))  # nothing to fill in


def test_a_chain_of_thought_takes_examples_without_reasoning():
    made = compiled(dspy.ChainOfThought("question -> answer"))
    assert [demo.toDict() for demo in made.predict.demos] == core().select_static().examples
    lm = DummyLM([{"reasoning": "so", "answer": "trains"}])
    with dspy.context(lm=lm):
        made(question=QUERIES[0])
    assert shown(lm) == [*(demo.question for demo in made.predict.demos), QUERIES[0]]


@pytest.mark.parametrize(("k", "expected"), [(None, 8), (2, 2), (0, 0), (500, 12)])
def test_k_is_at_most_all_distinct_examples(k, expected):
    settings = None if k is None else Settings(calibrate=False)
    assert len(compiled(dspy.Predict("question -> answer"), TRAINSET * 2, k=k, settings=settings).demos) == expected


# -- programs of several predictors -----------------------------------------------------------------------------------


def test_a_predictor_takes_the_examples_that_fit_it():
    class Both(dspy.Module):
        def __init__(self):
            super().__init__()
            self.topic = dspy.Predict("question -> answer")
            self.steps = [dspy.Predict("text -> summary"), dspy.Predict("question, hint -> answer")]

    summaries = [dspy.Example(text=f"text {i}", summary=f"t{i}").with_inputs("text") for i in range(4)]
    with pytest.warns(UserWarning, match=r"'steps\[1\]' \(question, hint -> answer\).*teacher") as caught:
        made = compiled(Both(), TRAINSET + summaries)
    assert len(caught) == 1
    assert [demo.toDict() for demo in made.topic.demos] == core().select_static().examples
    assert len(made.steps[0].demos) == 3 and all(demo in summaries for demo in made.steps[0].demos)
    assert made.steps[1].demos == []


def test_queries_go_to_the_predictors_whose_inputs_they_have():
    class Both(dspy.Module):
        def __init__(self):
            super().__init__()
            self.topic = dspy.Predict("question -> answer")
            self.wide = dspy.Predict("question, hint -> answer")

    trainset = [
        dspy.Example(hint=f"hint {i}", **e.toDict()).with_inputs("question", "hint") for i, e in enumerate(TRAINSET)
    ]
    words = Words()
    compiled(Both(), trainset, embeddings=words, queries=["late train", {"question": "rain", "hint": "wet"}])
    assert words.queries == ["late train", "rain", "question: rain\nhint: wet"]


def test_examples_for_nobody_need_a_teacher():
    program = TwoSteps()
    with pytest.raises(MissingKeyError, match=r"example 0 fits no predictor.*'plan'.*teacher="):
        compiled(program)
    lm = DummyLM([answer for e in TRAINSET for answer in ({"plan": f"look at {e.question}"}, {"answer": e.answer})])
    with dspy.context(lm=lm):
        made = compiled(program, teacher=program)
    assert len(lm.history) == 24
    assert [len(predictor.demos) for predictor in made.predictors()] == [3, 3]
    for demo in made.answer.demos:
        assert demo.plan == f"look at {demo.question}"
        assert {"question": demo.question, "answer": demo.answer} in [e.toDict() for e in TRAINSET]
        assert sorted(demo.inputs().keys()) == ["plan", "question"]
    assert program.plan.demos == []


def test_a_teacher_is_followed_where_the_metric_is_met():
    program = dspy.ChainOfThought("question -> answer")
    replies = [{"reasoning": f"because {i}", "answer": e.answer if i % 2 else "wrong"} for i, e in enumerate(TRAINSET)]
    with dspy.context(lm=DummyLM(replies)):
        made = compiled(
            program, teacher=program, metric=lambda example, found, trace=None: example.answer == found.answer
        )
    right = {e.question: f"because {i}" for i, e in enumerate(TRAINSET) if i % 2}
    assert len(made.predict.demos) == 3
    assert all(right[demo.question] == demo.reasoning for demo in made.predict.demos)


def test_a_predictor_that_the_trainset_covers_keeps_it_whatever_a_teacher_says():
    class Aside(TwoSteps):
        def __init__(self):
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question):
            self.plan(question=question)
            return self.answer(question=question)

    program = Aside()
    with dspy.context(lm=DummyLM([{"plan": "p"}, {"answer": "the teacher's"}] * 12)):
        made = compiled(program, teacher=program)
    assert [demo.toDict() for demo in made.answer.demos] == core().select_static().examples
    assert [demo.plan for demo in made.plan.demos] == ["p"] * 3


def test_a_teacher_without_success_is_an_error():
    program = TwoSteps()
    lm = DummyLM([{"plan": "p"}, {"answer": "a"}] * 12)
    with dspy.context(lm=lm), pytest.raises(PoolError, match="no run of the teacher on 12 examples"):
        compiled(program, teacher=program, metric=lambda *_: False)
    with pytest.raises(PoolError, match="trainset is empty"):
        compiled(program, [], teacher=program)
    with dspy.context(lm=Refusing()), pytest.raises(QueryError, match="query 0"):
        compiled(program, teacher=program, queries=[7])
    with pytest.raises(PoolError, match=r"example 1 must be a dspy\.Example with inputs marked"):
        compiled(program, [TRAINSET[0], dspy.Example(question="q", answer="a")], teacher=program)


# -- demonstrations for each call -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_call_gets_its_own_demonstrations_in_the_chosen_order(asynchronous):
    predict, lm, selector = build(), DummyLM(ANSWERS), core()
    with dspy.context(lm=lm):
        for i, text in enumerate(QUERIES):
            found = asyncio.run(predict.acall(question=text)) if asynchronous else predict(question=text)
            assert found.answer == f"reply {i}"
            assert shown(lm) == [*chosen(selector, text), text]
    assert len({tuple(shown(lm, i)) for i in range(4)}) == 4


def test_order_follows_the_settings():
    from kdprompt import NearestFirst

    lm, text = DummyLM(ANSWERS), QUERIES[0]
    with dspy.context(lm=lm):
        build()(question=text)
        build(settings=QUICK.model_copy(update={"order": NearestFirst()}))(question=text)
    assert shown(lm, 1)[:-1] == shown(lm, 0)[:-1][::-1]


def test_concurrent_calls_do_not_mix_and_are_embedded_together():
    class Batched(Words):
        def embed_queries(self, texts):
            passes.append(list(texts))
            return self.embed_documents(texts)

    passes = []
    predict, lm, selector = build(embeddings=Batched()), DummyLM(ANSWERS), core()

    async def together():
        return await asyncio.gather(*(predict.acall(question=text) for text in QUERIES))

    with dspy.context(lm=lm):
        found = asyncio.run(together())
    assert [each.answer for each in found] == [f"reply {i}" for i in range(4)]
    assert sorted(shown(lm, i) for i in range(4)) == sorted([*chosen(selector, text), text] for text in QUERIES)
    assert len(passes) < 4 and sorted(text for texts in passes for text in texts) == sorted(QUERIES)


def test_threads_do_not_mix():
    predict, lm, selector = build(), DummyLM(ANSWERS), core()
    pairs = [(predict, dspy.Example(question=text).with_inputs("question")) for text in QUERIES * 5]
    with dspy.context(lm=lm):
        found = dspy.Parallel(num_threads=4, disable_progress_bar=True)(pairs)
    assert [each.answer for each in found] == [f"reply {i}" for i in range(4)] * 5
    expected = sorted([*chosen(selector, text), text] for text in QUERIES * 5)
    assert sorted(shown(lm, i) for i in range(20)) == expected


def test_it_is_a_predictor():
    predict = build(temperature=0.5)
    assert isinstance(predict, dspy.Predict) and predict.config == {"temperature": 0.5}
    assert [name for name, _ in predict.named_predictors()] == ["self"]
    thought = dspy.ChainOfThought("question -> answer")
    thought.predict = build(thought.predict.signature)
    assert thought.named_predictors() == [("predict", thought.predict)]
    lm = DummyLM([{"reasoning": "so", "answer": "trains"}] * 2)
    with dspy.context(lm=lm):
        assert thought(question=QUERIES[0]).answer == asyncio.run(thought.acall(question=QUERIES[0])).answer == "trains"
    assert shown(lm, 0) == shown(lm, 1) == [*chosen(core(), QUERIES[0]), QUERIES[0]]


def test_compiling_per_query_turns_every_predictor():
    class Ensemble(dspy.Module):
        def __init__(self):
            super().__init__()
            self.pair = (dspy.Predict("question -> answer"), dspy.ChainOfThought("question -> answer"))
            self.again = self.pair[0]
            self.plan = dspy.Predict("question -> plan", temperature=0.3)

        def forward(self, question):
            self.plan(question=question)
            return self.again(question=question)

    student = Ensemble()
    with pytest.warns(UserWarning, match="'plan'"):
        made = compiled(student, per_query=True)
    assert [name for name, _ in made.named_predictors()] == [name for name, _ in student.named_predictors()]
    assert all(type(each) is DistilledPredict for each in made.predictors())
    assert all(type(each) is dspy.Predict for each in student.predictors())
    assert made.again is made.pair[0] and not made._compiled
    assert made.plan.selector is None and made.plan.config == {"temperature": 0.3}
    lm = DummyLM([{"plan": "p"}, {"answer": "a"}])
    with dspy.context(lm=lm):
        made(question=QUERIES[0])
    assert shown(lm, 0) == [QUERIES[0]]
    assert shown(lm, 1) == [*chosen(core(), QUERIES[0]), QUERIES[0]]


def test_a_predictor_of_another_class_is_not_turned():
    class Own(dspy.Predict):
        pass

    with pytest.raises(TypeError, match=r"'self' must be a dspy\.Predict, got the subclass Own"):
        compiled(Own("question -> answer"), per_query=True)
    assert len(compiled(Own("question -> answer")).demos) == 3


def test_demonstrations_of_a_call_are_shown_as_they_are():
    predict, lm = build(), DummyLM(ANSWERS)
    with dspy.context(lm=lm):
        predict(question=QUERIES[0], demos=[TRAINSET[5]])
        predict(question=QUERIES[0], demos=[])
        asyncio.run(predict.acall(question=QUERIES[0], demos=[TRAINSET[5]]))
    assert [shown(lm, i)[:-1] for i in range(3)] == [[TRAINSET[5].question], [], [TRAINSET[5].question]]


def test_demonstrations_of_optimisers_stand_before_the_selected_ones_and_none_twice():
    predict, lm = build(), DummyLM(ANSWERS)
    selected = chosen(core(), QUERIES[0])
    other = next(e for e in TRAINSET if e.question not in selected)
    predict.demos = [other, dspy.Example(question=selected[1], answer="x"), {"question": "a dict", "answer": "y"}]
    with dspy.context(lm=lm):
        predict(question=QUERIES[0])
    assert shown(lm) == [other.question, "a dict", *selected, QUERIES[0]]


def test_a_selector_at_hand_can_be_wrapped():
    lm = DummyLM(ANSWERS)
    with dspy.context(lm=lm):
        DistilledPredict("question -> answer", core())(question=QUERIES[1])
        DistilledPredict("question -> answer")(question=QUERIES[1])  # no pool: a dspy.Predict
    assert shown(lm, 0) == [*chosen(core(), QUERIES[1]), QUERIES[1]]
    assert shown(lm, 1) == [QUERIES[1]]
    with pytest.raises(PoolError, match="'question' must be an input field"):
        DistilledPredict("text -> answer", core())


def test_the_pool_can_change():
    predict, lm = build(), DummyLM(ANSWERS)
    fresh = {"question": "is the train late today or tomorrow", "answer": "trains"}
    ident = predict.selector.add_example(fresh)
    with dspy.context(lm=lm):
        predict(question=QUERIES[0])
        predict.selector.remove(ident)
        predict(question=QUERIES[0])
    assert fresh["question"] in shown(lm, 0) and fresh["question"] not in shown(lm, 1)


def test_explain():
    predict = build()
    explanation = predict.explain(question=QUERIES[0])
    assert [e["question"] for e in explanation.selection.examples] == chosen(core(), QUERIES[0])
    assert f"query: {QUERIES[0]}" in str(explanation)
    with pytest.raises(PoolError, match="no pool"):
        DistilledPredict("question -> answer").explain(question="x")


# -- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_task_restricts_and_is_not_shown(asynchronous, caplog):
    trainset = [dspy.Example(kind=e.answer, **e.toDict()).with_inputs("question") for e in TRAINSET]
    predict, lm = build(trainset=trainset, task_key="kind"), DummyLM(ANSWERS)
    with dspy.context(lm=lm):
        inputs = {"question": QUERIES[0], "kind": "food"}
        asyncio.run(predict.acall(**inputs)) if asynchronous else predict(**inputs)
        with pytest.raises(QueryError, match="no task 'poetry'"):
            predict(question=QUERIES[0], kind="poetry")
    assert set(shown(lm)[:-1]) == set(TOPICS["food"])
    assert "not in signature" not in caplog.text


def test_a_task_may_be_an_input():
    trainset = [dspy.Example(kind=e.answer, **e.toDict()).with_inputs("question", "kind") for e in TRAINSET]
    predict, lm = build("kind, question -> answer", trainset, task_key="kind"), DummyLM(ANSWERS)
    with dspy.context(lm=lm):
        predict(question=QUERIES[0], kind="food")
    assert shown(lm, field="kind") == ["food"] * 4


# -- values -----------------------------------------------------------------------------------------------------------


class Place(pydantic.BaseModel):
    city: str
    near: list[str] = []


class Route(dspy.Signature):
    """Say how far it is."""

    start: Place = dspy.InputField()
    stops: list[int] = dspy.InputField()
    by: str = dspy.InputField(default="train")
    note: str | None = dspy.InputField()
    distance: float = dspy.OutputField()
    kind: list[Place] = dspy.OutputField()


def routes(n=6):
    return [
        dspy.Example(
            start=Place(city=f"city{i}", near=["x"]),
            stops=[i, 2],
            note=None,
            distance=i / 2,
            kind=[Place(city="y")],
            extra={"i": i},
        ).with_inputs("start", "stops", "by", "note")
        for i in range(n)
    ]


def test_values_need_not_be_strings(tmp_path):
    words = Words()
    predict = build(Route, routes(), words)
    assert words.documents[0] == 'start: {"city": "city0", "near": ["x"]}\nstops: [0, 2]\nby: train'
    query = {"start": Place(city="city4", near=["x"]), "stops": [5, 2]}
    lm = DummyLM([{"distance": "2.5", "kind": '[{"city": "y"}]'}] * 4)
    with dspy.context(lm=lm):
        assert predict(**query).distance == 2.5
        predict(**query, by="bus")
    assert words.queries[0] == 'start: {"city": "city4", "near": ["x"]}\nstops: [5, 2]\nby: train'
    assert "by: bus" in words.queries[1]
    demos = predict.selector.select(words.queries[0]).examples
    assert all(example in [dict(e.items()) for e in routes()] for example in demos)

    predict.save(tmp_path / "route.json")
    again = DistilledPredict(Route, embeddings=words)
    again.load(tmp_path / "route.json")
    assert again.selector.select(words.queries[0]).examples == demos
    assert isinstance(demos[0]["start"], Place) and isinstance(demos[0]["kind"][0], Place)
    with dspy.context(lm=lm):
        again(**query)
    assert lm.history[-1]["messages"] == lm.history[0]["messages"]


class Anything(dspy.Signature):
    """Say what it is."""

    value: Any = dspy.InputField()
    label: Any = dspy.OutputField()


def anything(values, labels="xyxy"):
    return [dspy.Example(value=value, label=label) for value, label in zip(values, labels, strict=True)]


class Tagged(pydantic.BaseModel):
    on: date
    tags: set[str]


@dataclasses.dataclass
class Boxed:
    tags: frozenset[str]


TAGS = ["cab", "a", "b", "zz", "yy"]


@pytest.mark.parametrize(
    ("value", "handed"),
    [
        (set(TAGS), set(TAGS)),
        ({"tags": set(TAGS)}, {"tags": set(TAGS)}),
        (Tagged(on=date(2020, 1, 2), tags=TAGS), {"on": "2020-01-02", "tags": set(TAGS)}),
        ([Boxed(frozenset(TAGS))], [{"tags": frozenset(TAGS)}]),
        (np.int64(7), 7),
        (np.array([1, 2]), [1, 2]),
        (date(2020, 1, 2), "2020-01-02"),
        ({date(2020, 1, 2): b"a"}, {"2020-01-02": "YQ=="}),
    ],
    ids=["set", "set inside", "model", "dataclass", "number", "array", "date", "key"],
)
def test_values_have_the_texts_and_ids_that_kdprompt_gives_them(value, handed):
    pool = build(Anything, anything([value, "2", "3", "4"]), k=1).selector.pool
    plain = Pool.from_records([{"input": handed, "output": "x"}])[0]
    assert (pool[0].input, pool[0].id) == (plain.input, plain.id)
    assert type(pool[0].fields["value"]) is type(value)


def test_the_id_of_a_set_is_that_of_every_process():
    script = (
        "import dspy; from dspy_kdprompt.translation import build_pool\n"
        "examples = [{'value': {'cab', 'a', 'b', 'zz', 'yy'}, 'label': 'x'}]\n"
        "print(build_pool(dict(enumerate(examples)), dspy.Signature('value: set[str] -> label'), None)[0].id)"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0] == answers[1] and len(answers[0].strip()) == 12


def test_different_arrays_are_different_examples():
    long = np.arange(3000)
    pool = build(Anything, anything([np.where(long == 1500, -i, long) for i in range(4)], "xxxx"), k=1).selector.pool
    assert pool.distinct == 4


@pytest.mark.parametrize("gap", [None, float("nan"), pd.NA, pd.NaT], ids=str)
def test_an_output_that_is_missing_is_no_output_whoever_says_so(gap):
    with pytest.raises(
        MissingKeyError, match=r"example 1 fits no predictor: .* it has no 'label' \(it is (None|nan|<NA>|NaT)"
    ):
        build(Anything, anything("1234", ["x", gap, "x", "y"]))
    both = "value -> why, label"
    trainset = [dspy.Example(value=str(i), label="x", why=gap if i == 2 else "so") for i in range(4)]
    with pytest.raises(MissingKeyError, match=r"example 2 has no 'why' \(it is (None|nan|<NA>|NaT)"):
        build(both, trainset)
    assert build(both, [{**each, "why": gap} for each in trainset]).selector.pool[0].output == "x"


def test_an_object_without_a_text_is_named():
    with pytest.raises(
        MissingKeyError, match=r"example 1 has no text under 'value': <object object at 0x.* is a object"
    ):
        build(Anything, anything(["1", object(), "3", "4"]))


def test_sets_are_saved_in_order_and_come_back_as_sets(tmp_path):
    class Sets(dspy.Signature):
        """Say what it is."""

        value: set[str] = dspy.InputField()
        label: str = dspy.OutputField()

    words = Words()
    build(Sets, anything([{*TAGS, str(i)} for i in range(4)]), words).save(tmp_path / "sets.json")
    again = DistilledPredict(Sets, embeddings=words)
    again.load(tmp_path / "sets.json")
    assert [shown.fields["value"] for shown in again.selector.pool] == [{*TAGS, str(i)} for i in range(4)]


def test_a_value_that_json_would_change_is_named_when_saving(tmp_path):
    trainset = [dspy.Example(question=f"word{i}", answer=(i, i)).with_inputs("question") for i in range(4)]
    predict = build(trainset=trainset)
    with pytest.raises(PoolError, match=r"example 0 .*'answer' is \(0, 0\)"):
        predict.save(tmp_path / "program.json")


def test_mappings_are_examples_too():
    assert (
        build(trainset=[e.toDict() for e in TRAINSET]).explain(question=QUERIES[0]).selection.examples
        == core().select(QUERIES[0]).examples
    )


# -- copies, states and optimisers ------------------------------------------------------------------------------------


def selections(program, texts=QUERIES):
    """What a program's calls show, by a model of its own."""
    lm = DummyLM(ANSWERS)
    with dspy.context(lm=lm):
        for text in texts:
            program(question=text)
    return [shown(lm, i) for i in range(len(texts))]


@pytest.mark.parametrize("how", ["deepcopy", "reset_copy", "copy.deepcopy"])
def test_copies_have_pools_of_their_own_and_share_the_embedder(how):
    predict = build()
    predict.demos = [TRAINSET[0]]
    made = copy.deepcopy(predict) if how == "copy.deepcopy" else getattr(predict, how)()
    assert made.demos == ([] if how == "reset_copy" else [TRAINSET[0]])
    made.demos = predict.demos = []
    assert selections(made) == selections(predict)
    assert made.selector.embedder is predict.selector.embedder
    fresh = {"question": "is the train late today or tomorrow", "answer": "trains"}
    made.selector.add_example(fresh)
    assert len(made.selector.pool) == 13 and len(predict.selector.pool) == 12
    lm = DummyLM(ANSWERS)
    with dspy.context(lm=lm):
        asyncio.run(made.acall(question=QUERIES[0]))
        asyncio.run(predict.acall(question=QUERIES[0]))
    assert fresh["question"] in shown(lm, 0) and fresh["question"] not in shown(lm, 1)


@pytest.mark.parametrize("suffix", ["json", "pkl"])
def test_a_saved_program_selects_the_same_without_embedding_again(tmp_path, suffix):
    words, path = Words(), tmp_path / f"program.{suffix}"
    trainset = [{"question": each.input, "answer": each.output} for each in support_desk()]
    options = {"embeddings": words, "per_query": True, "settings": Settings(k=3), "queries": QUERIES}
    made = compiled(dspy.ChainOfThought("question -> answer"), trainset, **options)
    made.predict.demos = [TRAINSET[0]]
    made.save(path)
    fresh = Words()
    again = per_query(dspy.ChainOfThought("question -> answer"), fresh)
    again.load(path, allow_pickle=suffix == "pkl")
    one_text = [trainset[0]["question"]]  # tells that it is the embedder of before
    assert fresh.documents == one_text and fresh.queries == []
    assert made.predict.selector.calibration.pseudo_queries > 0
    assert again.predict.selector.calibration == made.predict.selector.calibration
    assert again.predict.selector.settings == made.predict.selector.settings
    before = [made.predict.selector.select(text) for text in QUERIES]
    assert [again.predict.selector.select(text) for text in QUERIES] == before
    assert fresh.documents == one_text and fresh.queries == QUERIES
    lm = DummyLM([{"reasoning": "r", "answer": "a"}] * 2)
    with dspy.context(lm=lm):
        made(question=QUERIES[0])
        again(question=QUERIES[0])
    assert lm.history[0]["messages"] == lm.history[1]["messages"]
    assert [turn["role"] for turn in lm.history[1]["messages"]].count("assistant") == 4


def test_a_whole_program_is_saved_and_loaded(tmp_path):
    made = compiled(
        TwoSteps(), [dspy.Example(plan="p", **e.toDict()) for e in TRAINSET], per_query=True, embeddings=None
    )
    made.save(tmp_path / "program", save_program=True)
    again = dspy.load(tmp_path / "program", allow_pickle=True)
    assert [type(each) for each in again.predictors()] == [DistilledPredict] * 2
    for here, there in zip(made.predictors(), again.predictors(), strict=True):
        query = {"question": QUERIES[0], "plan": "p"}
        assert here.explain(**query).selection == there.explain(**query).selection


def test_static_demonstrations_are_saved_as_dspy_saves_any(tmp_path):
    made = compiled(dspy.Predict("question -> answer"))
    made.save(tmp_path / "program.json")
    again = dspy.Predict("question -> answer")
    again.load(tmp_path / "program.json")
    assert selections(again) == selections(made)
    selecting = build()
    selecting.load(tmp_path / "program.json")  # the state of a plain predictor leaves the pool
    assert len(selecting.selector.pool) == 12 and [demo["question"] for demo in selecting.demos] == [
        demo.question for demo in made.demos
    ]


def test_a_pool_of_an_own_embedder_needs_it_to_load(tmp_path):
    predict = build()
    predict.save(tmp_path / "program.json")
    with pytest.raises(EmbeddingError, match="embeddings="):
        DistilledPredict("question -> answer").load(tmp_path / "program.json")
    other = build(trainset=TRAINSET[:3])
    other.load(tmp_path / "program.json")  # has an embedder
    assert selections(other) == selections(predict)


def test_settings_that_cannot_be_stored_are_those_of_the_predictor(tmp_path):
    settings = Settings(k=2, budget=14, count_tokens=lambda text: len(text.split()), calibrate=False)
    made = build(settings=settings)
    made.save(tmp_path / "program.json")
    with pytest.raises(PoolError, match="settings="):
        DistilledPredict("question -> answer", embeddings=Words()).load(tmp_path / "program.json")
    given = DistilledPredict("question -> answer", embeddings=Words(), settings=settings)
    for again in (given, build(trainset=TRAINSET[:4], settings=settings)):
        again.load(tmp_path / "program.json")
        assert again.selector.settings == settings
        assert selections(again) == selections(made)
    build().save(tmp_path / "program.json")
    given.load(tmp_path / "program.json")
    assert given.selector.settings == QUICK  # what is stored goes first


def test_an_empty_predictor_is_saved_as_empty(tmp_path):
    DistilledPredict("question -> answer").save(tmp_path / "program.json")
    predict = build()
    predict.load(tmp_path / "program.json")
    assert predict.selector is None


def test_bootstrapping_a_per_query_program():
    program = dspy.ChainOfThought("question -> answer")
    program.predict = build(program.predict.signature)
    lm = DummyLM([{"reasoning": f"r{i}", "answer": e.answer} for i, e in enumerate(TRAINSET)])
    bootstrap = dspy.BootstrapFewShot(metric=lambda *_: True, max_bootstrapped_demos=2, max_labeled_demos=0)
    with dspy.context(lm=lm):
        made = bootstrap.compile(program, trainset=TRAINSET)
    assert all(e.question not in shown(lm, i)[:-1] for i, e in enumerate(TRAINSET[:2]))  # none sees its own answer
    assert type(made.predict) is DistilledPredict and [demo.reasoning for demo in made.predict.demos] == ["r0", "r1"]
    lm = DummyLM([{"reasoning": "r", "answer": "a"}])
    with dspy.context(lm=lm):
        made(question=QUERIES[0])
    assert sorted(shown(lm)[:-1]) == sorted([*chosen(core(), QUERIES[0]), *(e.question for e in TRAINSET[:2])])


def test_other_optimisers_and_wrappers_take_it():
    program = build()
    assert len(dspy.LabeledFewShot(k=2).compile(program, trainset=TRAINSET).demos) == 2
    lm = DummyLM(ANSWERS)
    devset = [
        dspy.Example(question=text, answer=f"reply {i}").with_inputs("question") for i, text in enumerate(QUERIES)
    ]
    with dspy.context(lm=lm):
        metric = dspy.evaluate.answer_exact_match
        assert dspy.Evaluate(devset=devset, metric=metric, num_threads=2)(program).score == 100
        best = dspy.BestOfN(module=program, N=2, reward_fn=lambda *_: 0.0, threshold=1.0)
        assert best(question=QUERIES[2]).answer == "reply 2"
    assert sorted(shown(lm, i) for i in range(4)) == sorted([*chosen(core(), text), text] for text in QUERIES)
    assert shown(best) == [*chosen(core(), QUERIES[2]), QUERIES[2]]


# -- what cannot be meant is refused ----------------------------------------------------------------------------------

HOLE = dspy.Example(question="no label").with_inputs("question")


@pytest.mark.parametrize(
    "construct", [build, lambda **options: compiled(dspy.Predict("question -> answer"), **options)]
)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"trainset": []}, PoolError, "trainset is empty"),
        ({"trainset": ["text"]}, PoolError, "example 0 must be a dspy.Example or a mapping, got str: 'text'"),
        ({"trainset": [*TRAINSET, HOLE]}, MissingKeyError, r"example 12 .*has no 'answer'; it has \['question'\]"),
        ({"trainset": [{"answer": "x", "q": "y"}]}, MissingKeyError, "example 0 .*has no 'question'"),
        ({"trainset": [{"question": "x", "answer": None}]}, MissingKeyError, r"'answer' \(it is None\)"),
        ({"trainset": [TRAINSET[0], {"question": " ", "answer": "x"}]}, PoolError, "example 1 has an empty input"),
        ({"queries": "one text"}, QueryError, "wrap it in a list"),
        ({"queries": ["one", {"q": "two"}]}, MissingKeyError, r"query 1 must have the input fields \['question'\]"),
        ({"queries": [7]}, QueryError, "query 0 must be text, a mapping or a dspy.Example, got int: 7"),
        ({"task_key": "topic"}, MissingKeyError, "task_key names the field 'topic', which no example has"),
        ({"k": -1}, ValueError, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(construct, options, error, message):
    words = Words()
    with pytest.raises(error, match=message):
        construct(embeddings=words, **options)
    assert words.documents == []


def test_outputs_that_only_some_examples_have_are_refused():
    trainset = [e.toDict() | ({"reasoning": "r"} if i != 4 else {}) for i, e in enumerate(TRAINSET)]
    with pytest.raises(MissingKeyError, match=r"example 4 has no 'reasoning', which other examples have.*DSPy shows"):
        compiled(dspy.ChainOfThought("question -> answer"), trainset)


def test_a_student_without_predictors_is_refused():
    with pytest.raises(ValueError, match="student must have predictors, got Module"):
        compiled(dspy.Module())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_missing_input_is_named(asynchronous):
    predict = build()
    with dspy.context(lm=Refusing()), pytest.raises(MissingKeyError, match=r"no input field 'question'.*\['query'\]"):
        asyncio.run(predict.acall(query="x")) if asynchronous else predict(query="x")
    with dspy.context(lm=Refusing()), pytest.raises(QueryError, match="empty"):
        predict(question="")


# -- a real language model, a real README, an empty process -------------------------------------------------------


class Local:
    """A causal LM of transformers as an engine of ``dspy.LM``: greedy, and it keeps the prompts that it read."""

    def __init__(self, model):
        self.model = model
        self.prompts = []

    def complete(self, request):
        turns = [("system", request.system)] if request.system else []
        turns += [(message.role, message.text) for message in request.messages]
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
        inputs = self.model.tokenizer(text + "<|im_start|>assistant\n", return_tensors="pt")
        with torch.inference_mode():
            found = self.model.model.generate(**inputs, max_new_tokens=24, do_sample=False)
        self.prompts.append(text)
        answer = self.model.tokenizer.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        message = Message.assistant([TextPart(answer)])
        usage = Usage(input_tokens=0, output_tokens=0, total_tokens=0)
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)

    def close(self):
        pass


class AsyncLocal:
    """The same for asynchronous calls."""

    def __init__(self, engine):
        self.engine = engine

    async def complete(self, request):
        return self.engine.complete(request)

    async def aclose(self):
        pass


@pytest.mark.llm
def test_a_program_with_a_real_language_model_and_real_embeddings(embedder, small_lm):
    engine = Local(small_lm)
    lm = dspy.LM("local/smollm2", engine=engine, async_engine=AsyncLocal(engine), cache=False)
    selecting = compiled(dspy.Predict("question -> answer"), embeddings=embedder, per_query=True)
    static = compiled(dspy.Predict("question -> answer"), embeddings=embedder)
    rain, egg = "will there be rain on sunday", "how do i boil an egg"
    demos = [dspy.Example(base=example) for example in selecting.explain(question=rain).selection.examples]
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        assert selecting(question=rain).answer == "weather"
        assert asyncio.run(selecting.acall(question=egg)).answer == "food"
        assert dspy.Predict("question -> answer")(question=rain, demos=demos).answer == "weather"
        assert static(question=rain).answer
    assert engine.prompts[0] == engine.prompts[2]
    assert read(engine.prompts[0]) == [*(demo.question for demo in demos), rain]
    assert read(engine.prompts[1])[-2:] == ["boil an egg please", egg]  # the nearest stands last
    assert read(engine.prompts[3]) == [*(demo.question for demo in static.demos), rain]
    assert len(demos) == len(static.demos) == 3


def read(prompt):
    """The questions in the text that the model was given, in order."""
    return re.findall(r"<\|im_start\|>user\n\[\[ ## question ## \]\]\n(.*?)(?:\n|<)", prompt)


@pytest.mark.usefixtures("embedder")
def test_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    static, selecting, turns, *page = capsys.readouterr().out.splitlines()
    assert static == selecting == "billing"
    examples = names["selecting"].explain(message=names["message"]).selection.examples
    assert len(examples) == 4 and len(names["static"].demos) == 4
    places = [turns.index(example["message"][:20]) for example in examples]
    assert places == sorted(places)
    assert page[0] == "query: Why is there a second payment on my statement?"
    exec(compile(blocks[1], str(README), "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["['route', 'reply.predict']", "We look into it."]


def run(script):
    return subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)


def test_it_can_be_imported_alone():
    script = (
        "import sys, dspy_kdprompt; print(dspy_kdprompt.__all__, "
        "[name for name in ('langchain_core', 'sentence_transformers', 'transformers') if name in sys.modules])"
    )
    done = run(script)
    assert (done.stdout.strip(), done.stderr) == ("['DistilledFewShot', 'DistilledPredict', 'per_query'] []", "")


def test_without_dspy_the_import_says_what_to_install():
    done = run("import sys; sys.modules['dspy'] = None; import dspy_kdprompt")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "ImportError: dspy_kdprompt needs DSPy 3 or later: pip install 'kdprompt[dspy]'"
    )
