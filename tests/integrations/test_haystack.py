"""The Haystack adapter, against the real Haystack: the component's contract, pipelines, pipeline files, documents."""

import asyncio
import copy
import json
import os
import pickle
import re
import subprocess
import sys
import zlib
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

import numpy as np
import pytest

pytest.importorskip("haystack", reason="haystack-ai is not installed: pip install 'kdprompt[haystack]'")

from haystack import Document, Pipeline, component
from haystack.components.builders import ChatPromptBuilder, PromptBuilder
from haystack.components.embedders import MockTextEmbedder
from haystack.core.errors import DeserializationError, PipelineRuntimeError, SerializationError
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_kdprompt import DistillationExampleSelector, HaystackEmbedder
from kdprompt import (
    ByObjective,
    CallableEmbedder,
    DistillationSelector,
    EmbeddingError,
    Gaussian,
    MissingKeyError,
    ObjectiveSettings,
    PoolError,
    PromptTemplate,
    QueryError,
    Quota,
    Recency,
    Schema,
    SentenceTransformerEmbedder,
    Settings,
)
from kdprompt.resources import support_desk

README = Path(__file__).resolve().parents[2] / "integrations" / "haystack_kdprompt" / "README.md"
ALLOWED = ["haystack_kdprompt", __name__]


def embed(texts):
    """Counts of words and of their letters in threes, hashed to 64 places, so that no two texts are equally near."""
    return [bag(text) for text in texts]


def bag(text):
    """One text, as ``embed``."""
    vector = [0.01] * 64
    for word in re.findall(r"\w+", text.lower()):
        for part, weight in [(word, 1.0), *((word[i : i + 3], 0.13) for i in range(len(word)))]:
            vector[zlib.crc32(part.encode()) % 64] += weight
    return vector


class Words:
    """An embedder that remembers what it was asked; Haystack's rule for constructor arguments applies to it."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.documents, self.queries, self.passes = [], [], 0

    def embed_documents(self, texts):
        self.documents += texts
        return [[self.scale * each for each in vector] for vector in embed(texts)]

    def embed_query(self, text):
        return self.embed_queries([text])[0]

    def embed_queries(self, texts):
        self.queries += texts
        self.passes += 1
        return [[self.scale * each for each in vector] for vector in embed(texts)]


TOPICS = {
    "sums": ["add the two numbers", "add three numbers up", "what do the numbers sum to"],
    "weather": ["will it rain today", "is rain coming tomorrow", "how warm is it today"],
    "trains": ["when does the train leave", "is the train to town late", "which platform for the train"],
    "food": ["boil an egg please", "how long to boil rice", "what goes with boiled rice"],
}
EXAMPLES = [{"question": text, "answer": topic} for topic, texts in TOPICS.items() for text in texts]
DOCUMENTS = [Document(id=f"d{i}", content=e["question"], meta={"answer": e["answer"]}) for i, e in enumerate(EXAMPLES)]
EMBEDDED = [Document(id=d.id, content=d.content, meta=d.meta, embedding=bag(d.content)) for d in DOCUMENTS]
SCHEMA = {"inputs": ["question"], "outputs": ["answer"]}
QUICK = {"k": 3, "calibrate": False}
QUERY = "is the train late today"
QUERIES = [QUERY, "rain on the train", "boil some rice", "add up the numbers", "how warm is boiled egg"]
CHAT = """
{% message role="system" %}Name the topic.{% endmessage %}
{% for example in examples %}
{% message role="user" %}{{ example.question }}{% endmessage %}
{% message role="assistant" %}{{ example.answer }}{% endmessage %}
{% endfor %}
{% message role="user" %}{{ query }}{% endmessage %}
"""


def build(examples=EXAMPLES, embedder=None, **options):
    options = {"schema": SCHEMA, "settings": QUICK} | options
    return DistillationExampleSelector(examples, embedder or Words(), **options)


def core(**settings):
    schema = Schema(inputs=("question",), outputs=("answer",))
    return DistillationSelector.from_examples(EXAMPLES, Words(), schema=schema, settings=Settings(**(QUICK | settings)))


def found(selector, queries=QUERIES):
    return [selector.run(query=query)["examples"] for query in queries]


def piped(selector, template=CHAT, builder=ChatPromptBuilder):
    pipeline = Pipeline()
    pipeline.add_component("selector", selector)
    pipeline.add_component("prompt", builder(template=template))
    pipeline.connect("selector.examples", "prompt.examples")
    return pipeline


def asked(query):
    return {"selector": {"query": query}, "prompt": {"query": query}}


def reloaded(selector, allowed=ALLOWED):
    """The component after a pipeline was written to YAML and read again."""
    pipeline = Pipeline()
    pipeline.add_component("selector", selector)
    written = pipeline.dumps()
    pipeline.remove_component("selector")  # it may stand in one pipeline alone
    return Pipeline.loads(written, allowed_modules=allowed).get_component("selector")


# -- the component ------------------------------------------------------------------------------------------------


def test_it_only_says_what_kdprompt_says():
    expected = [core().select(query).examples for query in QUERIES]
    assert found(build()) == expected
    assert all(len(examples) == 3 for examples in expected) and expected[0] != expected[2]


def test_its_sockets_are_what_a_pipeline_connects():
    pipeline = piped(build())
    assert set(pipeline.inputs()["selector"]) == {"query", "task", "outputs"}
    assert pipeline.inputs()["selector"]["query"]["is_mandatory"]
    assert not pipeline.inputs()["selector"]["task"]["is_mandatory"]
    assert list(pipeline.outputs(include_components_with_connected_outputs=True)["selector"]) == ["examples"]


def test_the_constructor_embeds_and_reads_nothing(tmp_path):
    embedder = Words()
    selector = build(embedder=embedder)
    build(tmp_path / "nowhere.jsonl")
    assert selector.selector is None and embedder.documents == []
    selector.warm_up()
    warm = selector.selector
    selector.warm_up()
    selector.run(query=QUERY)
    assert selector.selector is warm
    assert embedder.documents == [example["question"] for example in EXAMPLES]


def test_run_warms_up_as_haystacks_components_do():
    embedder = Words()
    assert len(build(embedder=embedder).run(query=QUERY)["examples"]) == 3
    assert embedder.documents == [example["question"] for example in EXAMPLES]


def test_a_pipeline_warms_it_up():
    selector = build()
    piped(selector).warm_up()
    assert isinstance(selector.selector, DistillationSelector)
    selector = build()
    asyncio.run(piped(selector).warm_up_async())
    assert isinstance(selector.selector, DistillationSelector)


def test_concurrent_queries_warm_up_once_do_not_mix_and_share_passes():
    embedder = Words()
    selector = build(embedder=embedder)

    async def together():
        return await asyncio.gather(*(selector.run_async(query=query) for query in QUERIES * 4))

    assert [each["examples"] for each in asyncio.run(together())] == found(build()) * 4
    assert embedder.documents == [example["question"] for example in EXAMPLES]
    warm = embedder.passes
    assert [each["examples"] for each in asyncio.run(together())] == found(build()) * 4
    assert embedder.passes - warm < len(QUERIES)


def test_copies_are_returned_and_kept():
    examples = [{"question": f"word{i}", "answer": {"parts": [i]}} for i in range(6)]
    selector = build(examples)
    for example in examples:
        example["answer"]["parts"].append("changed")
    first = selector.run(query="word9")["examples"]
    before = copy.deepcopy(first)
    first[0]["answer"]["parts"].append("changed")
    assert selector.run(query="word9")["examples"] == before
    assert "changed" not in str(before)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))], ids=["copy", "pickle"]
)
def test_components_and_pipelines_can_be_copied_and_pickled(again, warm):
    selector = build()
    if warm:
        selector.warm_up()
    pipeline = Pipeline()
    pipeline.add_component("selector", selector)
    expected = build().run(query=QUERY)
    assert again(pipeline).run({"selector": {"query": QUERY}})["selector"] == expected
    other = again(build())
    assert other.run(query=QUERY) == expected and other.selector is not None


# -- queries ------------------------------------------------------------------------------------------------------


def test_a_query_is_text_or_a_dictionary():
    selector = build()
    assert selector.run(query={"question": QUERY, "user": 7}) == selector.run(query=QUERY)


def test_task_and_outputs_restrict():
    selector = build([{**each, "task": each["answer"]} for each in EXAMPLES])
    assert {each["task"] for each in selector.run(query=QUERY, task="food")["examples"]} == {"food"}
    assert {each["task"] for each in selector.run(query={"question": QUERY, "task": "food"})["examples"]} == {"food"}
    restricted = selector.run(query=QUERY, outputs=["food", "sums"])["examples"]
    assert {each["answer"] for each in restricted} <= {"food", "sums"}
    in_pipeline = piped(selector).run({"selector": {"query": QUERY, "task": "food"}, "prompt": {"query": QUERY}})
    assert [m.text for m in in_pipeline["prompt"]["prompt"] if m.role.value == "assistant"] == ["food"] * 3


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"query": "  "}, QueryError, "the query is empty"),
        ({"query": {"answer": "x"}}, MissingKeyError, "no input key 'question'; it has .*answer"),
        ({"query": 7}, QueryError, "must be text, a mapping or a Query, got int: 7"),
        ({"query": QUERY, "task": "poetry"}, QueryError, "'poetry'"),
        ({"query": QUERY, "outputs": "food"}, QueryError, "wrap it in a list"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_cannot_be_asked_is_refused(inputs, error, message, asynchronous):
    selector = build([{**each, "task": each["answer"]} for each in EXAMPLES])
    with pytest.raises(error, match=message):
        asyncio.run(selector.run_async(**inputs)) if asynchronous else selector.run(**inputs)


def test_a_pipeline_passes_the_error_on():
    with pytest.raises(PipelineRuntimeError, match="the query is empty"):
        piped(build()).run(asked(""))


# -- where examples come from -------------------------------------------------------------------------------------


def jsonl(path, examples=EXAMPLES):
    path.write_text("".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8")
    return path


@pytest.mark.parametrize("as_text", [False, True])
def test_examples_from_a_file(tmp_path, as_text):
    path = jsonl(tmp_path / "pool.jsonl")
    assert found(build(str(path) if as_text else path)) == found(build())


def test_a_file_is_named_in_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        build(tmp_path / "nowhere.jsonl").warm_up()
    path = jsonl(tmp_path / "pool.jsonl", [EXAMPLES[0], {"answer": "x"}])
    with pytest.raises(MissingKeyError, match=r"example 1 \(.*pool\.jsonl, line 2\) has no input key 'question'"):
        build(path).warm_up()


def test_documents_are_examples():
    shown = build(DOCUMENTS).run(query=QUERY)["examples"]
    assert [{key: each[key] for key in ("question", "answer")} for each in shown] == build().run(query=QUERY)[
        "examples"
    ]
    assert {each["id"] for each in shown} <= {document.id for document in DOCUMENTS}


def test_embeddings_of_documents_are_used_and_never_made_again():
    embedder = Words()
    assert found(build(EMBEDDED, embedder)) == found(build(DOCUMENTS))
    assert embedder.documents == []
    assert embedder.queries == QUERIES


def test_documents_from_a_store():
    store = InMemoryDocumentStore()
    selector = build(store)
    store.write_documents(EMBEDDED)
    assert found(selector) == found(build(EMBEDDED))
    assert found(reloaded(selector)) == found(selector)


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ([EMBEDDED[0], DOCUMENTS[1]], EmbeddingError, "document 1 .* has no embedding"),
        ([EMBEDDED[0], Document(content="a", embedding=[1.0])], EmbeddingError, r"\[1, 64\] dimensions"),
        ([Document(id="bare", meta={"answer": "x"})], PoolError, r"document 0 \(id 'bare'\) has no content"),
        ([Document(content="text")] * 3, PoolError, "example 1 has the id"),
    ],
)
def test_documents_that_cannot_be_used_are_named(documents, error, message):
    with pytest.raises(error, match=message):
        build(documents, settings={"k": 1, "calibrate": False}).warm_up()


def test_the_embedder_must_fit_the_documents():
    with pytest.raises(EmbeddingError, match="64 dimensions"):
        build(EMBEDDED, CallableEmbedder(lambda texts: [[1.0, 2.0] for _ in texts])).run(query=QUERY)


@pytest.mark.parametrize("kind", ["file", "dictionary"])
def test_a_saved_selector_is_read_and_nothing_embedded(tmp_path, kind):
    expected = core(calibrate=True)
    path = tmp_path / "saved"
    expected.save(path)
    embedder = Words()
    saved = path if kind == "file" else expected.to_dict()
    selector = reloaded(DistillationExampleSelector(embedder=embedder, saved=saved))
    assert found(selector) == [expected.select(query).examples for query in QUERIES]
    assert selector.embedder.documents == [EXAMPLES[0]["question"]]  # tells that it is the embedder of before
    assert selector.embedder.queries == QUERIES
    assert str(selector.selector.calibration) == str(expected.calibration)  # a loss may be no number


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"examples": None}, ValueError, "give either examples or saved, got neither"),
        ({"saved": "file"}, ValueError, "got both"),
        ({"examples": None, "saved": "file", "schema": SCHEMA}, ValueError, "schema must be left out"),
        ({"examples": None, "saved": "file", "schema": None, "queries": ["x"]}, ValueError, r"queries .* got \['x'\]"),
        ({"examples": ["text"]}, PoolError, "example 0 must be a mapping or a Haystack Document, got str: 'text'"),
        ({"examples": [EXAMPLES[0], DOCUMENTS[0]]}, PoolError, "example 1 is a Document and example 0 a dict"),
        ({"embedder": embed}, TypeError, "CallableEmbedder"),
        ({"embedder": Words}, TypeError, "embedder must be"),
        ({"settings": {"kk": 3}}, ValueError, "kk"),
        ({"schema": {"input": ["question"]}}, ValueError, "input"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"examples": []}, PoolError, "the pool is empty"),
        ({"settings": {"k": 13}}, PoolError, r"\(12\), got 13"),
        ({"queries": ["one", {"q": "two"}]}, MissingKeyError, "query 1 has no input key 'question'"),
        ({"examples": [*EXAMPLES, {"question": "x"}], "schema": {"inputs": ["answer"]}}, MissingKeyError, "example 12"),
    ],
)
def test_what_cannot_be_embedded_is_refused_when_it_warms_up(options, error, message):
    with pytest.raises(error, match=message):
        build(**options).warm_up()


# -- embedders ----------------------------------------------------------------------------------------------------


@component
class Bags:
    """A text embedder of Haystack's kind that must be warmed up first."""

    def __init__(self):
        self.warm = False

    def warm_up(self):
        self.warm = True

    @component.output_types(embedding=list[float])
    def run(self, text: str):
        assert self.warm
        return {"embedding": bag(text)}


def test_haystacks_text_embedders_are_embedders():
    assert found(build(embedder=Bags())) == found(build())
    mock = MockTextEmbedder(embedding_fn=bag)
    assert found(build(embedder=mock)) == found(build())
    np.testing.assert_allclose(np.stack(HaystackEmbedder(mock).embed_documents(["a", "b"])), embed(["a", "b"]))


@pytest.mark.parametrize(
    "embedder",
    [
        Words(scale=2.0),
        Bags(),
        MockTextEmbedder(embedding_fn=bag),
        CallableEmbedder(embed),
        HaystackEmbedder(MockTextEmbedder(dimension=16)),
    ],
    ids=lambda embedder: type(embedder).__name__,
)
def test_an_importable_embedder_is_in_the_pipeline_file(embedder):
    selector = build(embedder=embedder)
    again = reloaded(selector)
    assert again.embedder is not embedder
    assert found(again) == found(selector)
    if isinstance(embedder, Words):
        assert type(again.embedder) is Words and again.embedder.scale == 2.0


def test_kdprompts_own_embedder_is_in_the_pipeline_file():
    given = SentenceTransformerEmbedder("some/model", device="cpu", batch_size=7, prompt_names=("passage", "query"))
    again = reloaded(build(embedder=given), ["haystack_kdprompt"]).embedder
    assert isinstance(again, SentenceTransformerEmbedder)
    assert {**vars(again)} == {**vars(given)}
    assert reloaded(DistillationExampleSelector(EXAMPLES)).embedder is None


class Local:
    """Stands for a class that hides what it was made of."""

    def __init__(self, secret):
        self._secret = secret

    embed_documents = staticmethod(embed)
    embed_query = staticmethod(bag)


def hidden():
    class Inner(Words):
        pass

    return Inner()


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        (CallableEmbedder(lambda texts: embed(texts)), "lambdas"),
        (CallableEmbedder(Words().embed_documents), "instance methods"),
        (Local("x"), "'secret'"),
        (Local, None),
        (hidden(), "cannot be imported by that name"),
        (SentenceTransformerEmbedder(object()), "loaded by the caller"),
    ],
)
def test_an_embedder_that_cannot_be_written_is_an_error_that_says_what_to_do(embedder, message):
    if message is None:
        with pytest.raises(TypeError, match="embedder must be"):
            build(embedder=embedder)
        return
    with pytest.raises(SerializationError, match=message) as caught:
        build(embedder=embedder).to_dict()
    assert re.search("[Gg]ive ", str(caught.value))


def test_haystacks_allowlist_holds():
    pipeline = piped(build())
    with pytest.raises(DeserializationError, match="haystack_kdprompt"):
        Pipeline.loads(pipeline.dumps())
    with pytest.raises(DeserializationError, match=__name__):
        Pipeline.loads(pipeline.dumps(), allowed_modules=["haystack_kdprompt"])


# -- pipeline files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
def test_a_pipeline_file_gives_equal_prompts(warm):
    selector = build(queries=["late train", {"question": "boiled egg"}], settings={"k": 3})
    pipeline = piped(selector)
    if warm:
        selector.warm_up()
    written = pipeline.dumps()
    again = Pipeline.loads(written, allowed_modules=ALLOWED)
    assert again.dumps() == written
    assert again.get_component("selector").selector is None
    for query in QUERIES:
        assert again.run(asked(query)) == pipeline.run(asked(query))


def test_a_dictionary_is_not_changed_by_reading_it():
    data = build(EMBEDDED, MockTextEmbedder(dimension=64), queries=[{"question": "late"}]).to_dict()
    before = copy.deepcopy(data)
    first, second = (DistillationExampleSelector.from_dict(data) for _ in range(2))
    assert data == before
    assert found(first) == found(second)
    assert first.examples == EMBEDDED


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_stays_a_path(tmp_path, kind):
    path = jsonl(tmp_path / "pool.jsonl")
    selector = build(kind(path))
    assert selector.to_dict()["init_parameters"]["examples"] == str(path)
    assert found(reloaded(selector)) == found(build())


def test_values_come_back_from_a_pipeline_file_as_they_were():
    odd = {"z": 1, "x": 0.1, "none": None, "yes": True, "list": [1, {"a": ["é", "{{ x }}\n", "no: yes"]}], "text": "no"}
    examples = [{"question": f"word{i}", "answer": odd, "i": i} for i in range(6)]
    selector = build(examples)
    shown = reloaded(selector).run(query="word9")["examples"]
    assert shown == selector.run(query="word9")["examples"]
    assert all(example in examples for example in shown)
    assert isinstance(shown[0]["answer"]["yes"], bool)
    assert list(shown[0]["answer"]) == list(odd) and list(shown[0]) == ["question", "answer", "i"]


def test_a_pipeline_file_may_be_written_by_hand():
    written = f"""
components:
  selector:
    type: haystack_kdprompt.component.DistillationExampleSelector
    init_parameters:
      examples:
        - {{question: when does the train leave, answer: trains}}
        - {{question: boil an egg please, answer: food}}
      embedder: {{function: {__name__}.embed}}
      schema: {{inputs: [question], outputs: [answer]}}
      queries: [late train, {{question: boiled egg}}]
      settings: {{k: 1, calibrate: false}}
connections: []
"""
    selector = Pipeline.loads(written, allowed_modules=ALLOWED).get_component("selector")
    assert selector.run(query=QUERY) == {"examples": [{"question": "when does the train leave", "answer": "trains"}]}


@pytest.mark.parametrize("value", [object(), {1: "a"}, ("a", "b"), {"a"}, [{"x": (1,)}]], ids=range(5))
def test_a_value_that_yaml_would_change_is_named(value):
    selector = build([EXAMPLES[0], {"question": "late", "answer": value}], settings={"k": 1})
    with pytest.raises(SerializationError, match=r"example 1 .*its 'answer' is .*JSONL"):
        selector.to_dict()
    with pytest.raises(SerializationError, match=r"example 0 .*its 'answer'"):
        build([Document(content="late", meta={"answer": value})]).to_dict()
    with pytest.raises(SerializationError, match=r"query 0 .*its 'question'"):
        build(queries=[{"question": value}]).to_dict()


SETTINGS = [
    {"k": "auto", "k_max": 4},
    {"k": 2, "budget": 40, "quota": Quota(most=1), "outputs": "labels"},
    {"k": 2, "objective": ObjectiveSettings(output_share=0.25)},
    {"k": 2, "template": PromptTemplate(demonstration="{input} -> {output}", separator="\n"), "seed": 3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_settings_are_in_the_pipeline_file(settings):
    again = reloaded(build(settings=Settings(**settings)))
    assert again.settings == Settings(**settings)
    assert set(again.to_dict()["init_parameters"]["settings"]) == set(settings)


def count(text):
    return len(text)


class OwnOrder(ByObjective):
    """An order that kdprompt does not know."""


@pytest.mark.parametrize(("name", "value"), [("order", OwnOrder()), ("count_tokens", count)])
def test_a_setting_without_a_plain_value_is_named(name, value):
    selector = build(settings=Settings(k=2, **{name: value}))
    with pytest.raises(SerializationError, match=rf"the setting {name} .* saved=path"):
        selector.to_dict()


def test_an_order_and_a_kernel_are_in_the_pipeline_file_and_in_a_saved_selector(tmp_path):
    settings = Settings(k=2, order=ByObjective(Recency(0.5)), objective=ObjectiveSettings(kernel=2 * Gaussian(0.3)))
    selector = build(settings=settings)
    again = reloaded(selector)
    assert again.settings == settings and found(again) == found(selector)
    selector.warm_up()
    selector.selector.save(tmp_path / "saved")
    saved = reloaded(DistillationExampleSelector(embedder=Words(), saved=tmp_path / "saved"))
    assert found(saved) == found(selector) and saved.selector.settings == settings


# -- prompts ------------------------------------------------------------------------------------------------------


def test_in_a_chat_prompt():
    selector = build()
    expected = [ChatMessage.from_system("Name the topic.")]
    for each in selector.run(query=QUERY)["examples"]:
        expected += [ChatMessage.from_user(each["question"]), ChatMessage.from_assistant(each["answer"])]
    expected.append(ChatMessage.from_user(QUERY))
    pipeline = piped(selector)
    assert pipeline.run(asked(QUERY)) == {"prompt": {"prompt": expected}}
    assert asyncio.run(pipeline.run_async(asked(QUERY))) == {"prompt": {"prompt": expected}}


TEXT = "{% for e in examples %}Q: {{ e.question }}\nA: {{ e.answer }}\n{% endfor %}Q: {{ query }}\nA:"


def test_in_a_text_prompt():
    selector = build()
    shown = "".join(f"Q: {e['question']}\nA: {e['answer']}\n" for e in selector.run(query=QUERY)["examples"])
    assert piped(selector, TEXT, PromptBuilder).run(asked(QUERY))["prompt"]["prompt"] == f"{shown}Q: {QUERY}\nA:"


@pytest.mark.parametrize(
    "text", ['{"a": {x}}', "{{ x }}", "{% if %}", "{# c #}", "$\\frac{1}{2}$", "two\nlines", "<b>&"]
)
def test_values_survive_verbatim_in_every_builder(text):
    examples = [{"question": f"{text} {word}", "answer": f"{word} {text}"} for word in ("one", "two", "three", "four")]
    query = f"{text} five"
    shown = build(examples).run(query=query)["examples"]
    assert len(shown) > 1 and all(example in examples for example in shown)
    pairs = [value for each in shown for value in (each["question"], each["answer"])]
    messages = piped(build(examples)).run(asked(query))["prompt"]["prompt"]
    assert [message.text for message in messages[1:]] == [*pairs, query]
    in_list = piped(build(examples), [ChatMessage.from_user(TEXT)]).run(asked(query))["prompt"]["prompt"][0].text
    as_text = piped(build(examples), TEXT, PromptBuilder).run(asked(query))["prompt"]["prompt"]
    assert in_list == as_text
    assert all(f"Q: {each['question']}\nA: {each['answer']}\n" in as_text for each in shown)


# -- a real embedder, a real language model, a real README, an empty process -----------------------------------------


def test_the_default_embedder_round_trips(embedder):
    pool = [{"input": each.input, "output": each.output} for each in support_desk() if each.task == "support"]
    selector = DistillationExampleSelector(pool, settings={"k": 4})
    queries = ["wont let me log in, just says try later", "Why is there a second payment on my statement?"]
    expected = DistillationSelector.from_examples(pool, embedder, settings=Settings(k=4))
    assert found(selector, queries) == [expected.select(query).examples for query in queries]
    assert found(reloaded(selector, ["haystack_kdprompt"]), queries) == found(selector, queries)
    saved = DistillationExampleSelector(saved=expected.to_dict())
    assert found(reloaded(saved, ["haystack_kdprompt"]), queries) == found(selector, queries)


@component
class Generator:
    """A chat generator around a local language model: prompt to one line, greedily."""

    def __init__(self, model):
        self.model = model

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage]):
        names = {"user": "Input: ", "assistant": "Output: "}
        turns = [names[m.role.value] + m.text for m in messages if m.role.value in names]
        return {"replies": [ChatMessage.from_assistant(self.model.generate("\n".join([*turns, "Output:"])))]}


@pytest.mark.llm
def test_in_a_pipeline_with_a_real_language_model(embedder, small_lm):
    pool = [{"question": each.input, "answer": each.output} for each in support_desk() if each.task == "support"]
    pipeline = piped(DistillationExampleSelector(pool, embedder, schema=SCHEMA, settings={"k": 4}))
    pipeline.add_component("llm", Generator(small_lm))
    pipeline.connect("prompt.prompt", "llm.messages")
    expected = {
        "wont let me log in, just says try later": "login",
        "two cards vanished when i dragged them to another board": "bug report",
        "would be cool to have a widget for the home screen": "feature request",
    }
    replies = {query: pipeline.run(asked(query))["llm"]["replies"][0].text for query in expected}
    assert replies == expected
    query = next(iter(expected))
    assert asyncio.run(pipeline.run_async(asked(query)))["llm"]["replies"][0].text == expected[query]
    alone = {query: small_lm.generate(f"Input: {query}\nOutput:") for query in expected}
    assert not set(alone.values()) & set(expected.values())  # without examples it knows none of them


@pytest.mark.usefixtures("embedder")
def test_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    system, *lines = capsys.readouterr().out.splitlines()
    shown = names["selector"].run(query=names["query"])["examples"]
    assert system == "system: Name the team."
    assert lines[:6] == [line for e in shown for line in (f"user: {e['message']}", f"assistant: {e['team']}")]
    assert lines[6:8] == [f"user: {names['query']}", f"query: {names['query']}"]


def python(script):
    return subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)


def test_it_can_be_imported_alone():
    done = python(
        "import sys, haystack_kdprompt; print(haystack_kdprompt.__all__, "
        "[name for name in ('sentence_transformers', 'transformers', 'langchain_core') if name in sys.modules])"
    )
    assert (done.stdout.strip(), done.stderr) == ("['DistillationExampleSelector', 'HaystackEmbedder'] []", "")


def test_without_haystack_the_extra_is_named():
    done = python("import sys; sys.modules['haystack'] = None; import haystack_kdprompt")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: haystack_kdprompt needs Haystack: pip install 'kdprompt[haystack]'"
    )


def test_the_text_at_fault_is_known_by_its_own_run():
    """Components take one text a run: no other text is embedded twice to find it."""
    runs = []

    class Component:
        def run(self, text):
            runs.append(text)
            if text == "poison":
                raise ValueError("no")
            return {"embedding": [1.0, float(len(runs))]}

    examples = [{"input": f"text {i}" if i != 40 else "poison", "output": "x"} for i in range(64)]
    with pytest.raises(EmbeddingError, match="failed on the text 'poison': ValueError: no"):
        DistillationSelector.from_examples(examples, HaystackEmbedder(Component()))
    assert len(runs) == 41
