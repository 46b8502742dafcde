"""The LlamaIndex adapter, against the real LlamaIndex: every prompt class, deep copies, engines, embeddings, async."""

import asyncio
import copy
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed: pip install 'kdprompt[llamaindex]'")

from llama_index.core import ChatPromptTemplate, PromptTemplate, get_response_synthesizer
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.prompts import RichPromptTemplate
from llama_index.core.prompts.base import SelectorPromptTemplate
from llama_index.core.prompts.prompt_utils import get_empty_prompt_txt
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import PrivateAttr

from kdprompt import (
    CallableEmbedder,
    DistillationSelector,
    MissingKeyError,
    PoolError,
    QueryError,
    Schema,
    Settings,
)
from kdprompt import PromptTemplate as Written
from kdprompt.resources import support_desk
from llamaindex_kdprompt import DistillationExamples, LlamaIndexEmbedder

README = Path(__file__).resolve().parents[2] / "integrations" / "llamaindex_kdprompt" / "README.md"


def embed(texts):
    """Counts of words and of their letters in threes, hashed to 64 places, so that no two texts are equally near."""
    vectors = []
    for text in texts:
        vector = [0.01] * 64
        for word in re.findall(r"\w+", text.lower()):
            for part, weight in [(word, 1.0), *((word[i : i + 3], 0.13) for i in range(len(word)))]:
                vector[zlib.crc32(part.encode()) % 64] += weight
        vectors.append(vector)
    return vectors


class Words(BaseEmbedding):
    """A LlamaIndex embedding model that remembers what it was asked."""

    _documents: list = PrivateAttr(default_factory=list)
    _queries: list = PrivateAttr(default_factory=list)

    def _get_text_embedding(self, text):
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts):
        self._documents.append(list(texts))
        return embed(texts)

    def _get_query_embedding(self, query):
        self._queries.append(query)
        return embed([query])[0]

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


class Passes(CallableEmbedder):
    """A kdprompt embedder that counts the passes in which queries were embedded."""

    def __init__(self):
        super().__init__(embed)
        self.passes = 0

    def embed_queries(self, texts):
        self.passes += 1
        return embed(texts)


TOPICS = {
    "sums": ["add the two numbers", "add three numbers up", "what do the numbers sum to"],
    "weather": ["will it rain today", "is rain coming tomorrow", "how warm is it today"],
    "trains": ["when does the train leave", "is the train to town late", "which platform for the train"],
    "food": ["boil an egg please", "how long to boil rice", "what goes with boiled rice"],
}
EXAMPLES = [{"question": text, "answer": topic} for topic, texts in TOPICS.items() for text in texts]
SCHEMA = Schema(inputs=("question",), outputs=("answer",))
QUICK = Settings(k=3, calibrate=False)
QUERY = "is the train late today"
QUERIES = [QUERY, "rain on the train", "boil some rice", "add up the numbers", "how warm is boiled egg"]
CHAT = """{% for example in examples %}
{% chat role="user" %}{{ example.question }}{% endchat %}
{% chat role="assistant" %}{{ example.answer }}{% endchat %}
{% endfor %}
{% chat role="user" %}{{ question }}{% endchat %}"""


def build(examples=EXAMPLES, embeddings=None, **options):
    options = {"schema": SCHEMA, "settings": QUICK} | options
    return DistillationExamples.from_examples(examples, embeddings or CallableEmbedder(embed), **options)


def core(settings=QUICK):
    return DistillationSelector.from_examples(EXAMPLES, CallableEmbedder(embed), schema=SCHEMA, settings=settings)


def written(examples, separator="\n\n"):
    return separator.join(f"Input: {each['question']}\nOutput: {each['answer']}" for each in examples)


def prompts(examples, question="question"):
    """Every prompt class with the same text, its last message a query."""
    mappings = {"function_mappings": {"examples": examples}}
    text, rich = f"{{examples}}\n\nQ: {{{question}}}", f"{{{{ examples }}}}\n\nQ: {{{{ {question} }}}}"
    return {
        "PromptTemplate": PromptTemplate(text, **mappings),
        "RichPromptTemplate": RichPromptTemplate(rich, **mappings),
        "RichPromptTemplate, chat": RichPromptTemplate(f'{{% chat role="user" %}}{rich}{{% endchat %}}', **mappings),
        "ChatPromptTemplate": ChatPromptTemplate.from_messages([("user", text)], **mappings),
        "SelectorPromptTemplate": SelectorPromptTemplate(PromptTemplate(text, **mappings)),
    }


KINDS = list(prompts(len))

# -- what it says -------------------------------------------------------------------------------------------------


def test_it_only_says_what_kdprompt_says():
    examples = build()
    for query in QUERIES:
        expected = core().select(query)
        assert examples.select(question=query).ids == expected.ids
        assert examples.records(question=query) == expected.examples
        assert examples(question=query) == written(expected.examples)
    assert examples(question=QUERIES[0]) != examples(question=QUERIES[2])


def test_the_settings_template_writes_and_the_budget_counts_it():
    template = Written(demonstration="<{input}|{output}>", separator=" ")
    settings = Settings(k=3, budget=45, count_tokens=len, template=template, calibrate=False)
    text = build(settings=settings)(question=QUERY)
    assert re.fullmatch(r"<[^|]+\|[a-z]+>", text)  # the budget has room for one alone
    assert build(settings=Settings(**{**dict(settings), "budget": 400}))(question=QUERY).count("> <") == 2


def test_a_selector_at_hand_can_be_wrapped():
    selector = core()
    examples = DistillationExamples(selector, query_var="query_str")
    assert examples.selector is selector
    assert examples(query_str=QUERY) == build()(question=QUERY)


def test_copies_are_returned():
    examples = build([{"question": f"word{i}", "answer": {"parts": [i]}} for i in range(6)])
    first = examples.records(question="word9")
    before = copy.deepcopy(first)
    first[0]["answer"]["parts"].append("changed")
    assert examples.records(question="word9") == before


def test_outputs_that_are_no_strings_are_written_as_json():
    examples = build([{"question": f"word{i}", "answer": {"a": [i, None, True]}} for i in range(6)])
    values = [each["answer"]["a"][0] for each in examples.records(question="word9")]
    assert len(values) == 3
    assert all(f'Output: {{"a": [{i}, null, true]}}' in examples(question="word9") for i in values)


# -- in prompts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_in_every_prompt_class(kind):
    examples = build()
    prompt = prompts(examples)[kind]
    expected = f"{examples(question=QUERY)}\n\nQ: {QUERY}"
    [message] = prompt.format_messages(question=QUERY)
    assert (message.role.value, message.content) == ("user", expected)
    assert expected in prompt.format(question=QUERY)
    assert expected in prompt.partial_format(question=QUERY).format()
    assert prompt.partial_format(question=QUERIES[2]).format_messages(question=QUERY)[0].content == expected


@pytest.mark.parametrize("kind", KINDS)
def test_query_var_names_the_variable(kind):
    examples = build(query_var="query_str")
    prompt = prompts(examples, "query_str")[kind]
    assert build()(question=QUERY) in prompt.format(query_str=QUERY, question="not this one")


def test_in_a_chat_of_messages():
    examples = build()
    prompt = RichPromptTemplate(CHAT, function_mappings={"examples": examples.records})
    expected = [
        (role, text)
        for each in examples.records(question=QUERY)
        for role, text in (("user", each["question"]), ("assistant", each["answer"]))
    ]
    for messages in (prompt.format_messages(question=QUERY), prompt.partial_format(question=QUERY).format_messages()):
        assert [(m.role.value, m.content) for m in messages] == [*expected, ("user", QUERY)]


ODD = [
    '{"a": {question}}',
    "{examples}",
    "{{ question }}",
    "{% if %}",
    "{# c #}",
    "$\\frac{1}{2}$",
    "a\nb",
    "<b>&",
    "\\1",
]


@pytest.mark.parametrize("text", ODD)
def test_values_survive_verbatim_in_every_prompt_class(text):
    pool = [{"question": f"{text} {word}", "answer": f"{word} {text}"} for word in ("one", "two", "three", "four")]
    examples, query = build(pool), f"{text} five"
    shown = examples.records(question=query)
    assert len(shown) > 1 and all(each in pool for each in shown)
    for kind, prompt in prompts(examples).items():
        content = prompt.format_messages(question=query)[0].content
        assert content == f"{written(shown)}\n\nQ: {query}", kind
    chat = RichPromptTemplate(CHAT, function_mappings={"examples": examples.records})
    pairs = [value for each in shown for value in (each["question"], each["answer"])]
    assert [message.content for message in chat.format_messages(question=query)] == [*pairs, query]


# -- copies -------------------------------------------------------------------------------------------------------


class Uncopyable(CallableEmbedder):
    """Stands for a model or a client: cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")

    __copy__ = __reduce_ex__ = None


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_a_prompt_share_pool_and_embedder(kind):
    examples = build(embeddings=Uncopyable(embed))
    prompt = prompts(examples)[kind]
    for other in (copy.deepcopy(prompt), prompt.partial_format(question=QUERY), prompt.model_copy(deep=True)):
        inner = getattr(other, "default_template", other)
        assert inner is not getattr(prompt, "default_template", prompt)
        assert inner.function_mappings["examples"] is examples
    bound = RichPromptTemplate(CHAT, function_mappings={"examples": examples.records}).partial_format(x="y")
    assert bound.function_mappings["examples"].__self__ is examples
    assert copy.copy(examples) is examples


def test_a_copy_sees_what_is_added():
    examples = build()
    prompt = PromptTemplate("{examples}", function_mappings={"examples": examples}).partial_format(question=QUERY)
    assert "new" not in prompt.format()
    examples.selector.add_example({"question": "is the train late today or tomorrow", "answer": "new"})
    assert "Output: new" in prompt.format()


def test_a_prompt_with_it_can_be_dumped():
    dumped = PromptTemplate("{examples}", function_mappings={"examples": build()}).model_dump()
    assert dumped["function_mappings"] == {"examples": "llamaindex_kdprompt.examples.DistillationExamples"}


# -- queries ------------------------------------------------------------------------------------------------------


def test_several_input_keys_are_several_variables():
    pool = [{"foo": f"word{i}", "bar": f"other{i}", "answer": str(i)} for i in range(6)]
    examples = build(pool, schema=Schema(inputs=("foo", "bar"), outputs=("answer",)))
    prompt = PromptTemplate("{examples}\n{foo} {bar} {unused}", function_mappings={"examples": examples})
    assert "foo: word2\nbar: other2" in prompt.format(foo="word2", bar="other9", unused="x", llm=object())


def test_the_task_variable_restricts_where_examples_have_tasks():
    tagged = [*({**each, "task": each["answer"]} for each in EXAMPLES), {"question": "untagged", "answer": "none"}]
    for examples in (build(tagged), build(tagged, query_var="question")):
        assert {each["answer"] for each in examples.records(question=QUERY, task="food")} == {"food"}
        for missing in ("", None, float("nan"), pd.NA):
            assert examples.records(question=QUERY, task=missing) == examples.records(question=QUERY)
        with pytest.raises(QueryError, match="'poetry'"):
            examples(question=QUERY, task="poetry")
    assert build()(question=QUERY, task="Answer in verse.") == build()(question=QUERY)


@pytest.mark.parametrize("query_var", [None, "question"])
@pytest.mark.parametrize(
    ("variables", "error", "message"),
    [
        ({"question": ""}, QueryError, "the query is empty; give it text"),
        ({"question": " \n"}, QueryError, "the query is empty; give it text"),
        ({"query_str": QUERY}, MissingKeyError, r"'question'.*it has \['query_str'\]"),
        ({}, MissingKeyError, r"'question'.*it has \[\]"),
    ],
)
def test_what_cannot_be_asked_is_refused(query_var, variables, error, message):
    examples = build(query_var=query_var)
    with pytest.raises(error, match=message):
        PromptTemplate("{examples}", function_mappings={"examples": examples}).format(**variables)
    with pytest.raises(error, match=message):
        asyncio.run(examples.aselect(**variables))


def test_a_query_of_another_type_is_named():
    with pytest.raises(QueryError, match="got int: 7"):
        build(query_var="n")(n=7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"embeddings": embed}, TypeError, r"LlamaIndex embedding model.*kdprompt\.CallableEmbedder"),
        ({"embeddings": Words}, TypeError, "embeddings must be"),
        ({"examples": []}, PoolError, "empty"),
        ({"examples": ["text"]}, PoolError, "example 0 must be a mapping, got str"),
        ({"examples": [EXAMPLES[0], {"answer": "x"}]}, MissingKeyError, "example 1 has no input key 'question'"),
        ({"settings": Settings(k=13)}, PoolError, r"\(12\), got 13"),
        ({"queries": ["one", {"q": "two"}]}, MissingKeyError, "query 1 has no input key 'question'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


# -- embeddings ---------------------------------------------------------------------------------------------------


def test_llamaindex_embeddings_are_used_in_batches_and_by_their_query_side():
    model = Words(embed_batch_size=5)
    examples = build(embeddings=model)
    assert [examples(question=query) for query in QUERIES] == [build()(question=query) for query in QUERIES]
    assert [len(batch) for batch in model._documents] == [5, 5, 2]
    assert model._queries == QUERIES
    assert isinstance(examples.selector.embedder, LlamaIndexEmbedder) and examples.selector.embedder.model is model


# -- async --------------------------------------------------------------------------------------------------------


def test_concurrent_selections_share_passes_and_do_not_mix():
    embedder = Passes()
    examples = build(embeddings=embedder)
    prompt = PromptTemplate("{examples}\n\nQ: {question}")

    async def one(query):
        return prompt.format(examples=examples.render(await examples.aselect(question=query)), question=query)

    async def together():
        return await asyncio.gather(*(one(query) for query in QUERIES * 4))

    found = asyncio.run(together())
    assert embedder.passes < len(QUERIES)
    assert found == [prompts(build())["PromptTemplate"].format(question=query) for query in QUERIES * 4]


# -- language models ----------------------------------------------------------------------------------------------


class Local(CustomLLM):
    """A language model of LlamaIndex around a function from prompt to text; remembers its prompts."""

    _answer: object = PrivateAttr()
    _prompts: list = PrivateAttr(default_factory=list)

    def __init__(self, answer):
        super().__init__()
        self._answer = answer

    @property
    def metadata(self):
        return LLMMetadata(context_window=2048, num_output=16, model_name="local")

    def complete(self, prompt, formatted=False, **kwargs):
        self._prompts.append(prompt)
        return CompletionResponse(text=self._answer(prompt))

    def stream_complete(self, prompt, formatted=False, **kwargs):
        yield self.complete(prompt)


@pytest.mark.parametrize("kind", ["PromptTemplate", "RichPromptTemplate", "SelectorPromptTemplate"])
def test_a_model_is_given_the_examples(kind):
    examples = build()
    llm = Local(lambda prompt: prompt[-5:])
    prompt = prompts(examples)[kind]
    assert llm.predict(prompt, question=QUERY) == "today"
    assert asyncio.run(llm.apredict(prompt, question=QUERY)) == "today"
    assert llm._prompts == [f"{examples(question=QUERY)}\n\nQ: {QUERY}"] * 2


@pytest.mark.parametrize("mode", ["compact", "refine", "simple_summarize", "tree_summarize", "accumulate"])
def test_in_an_engines_response_synthesizer(mode):
    examples = build(query_var="query_str")
    template = "{examples}\n\n{context_str}\nInput: {query_str}\nOutput:"
    prompt = PromptTemplate(template, function_mappings={"examples": examples})
    llm = Local(lambda prompt: "trains")
    synthesizer = get_response_synthesizer(
        llm=llm, response_mode=mode, text_qa_template=prompt, summary_template=prompt
    )
    answer = synthesizer.synthesize(QUERY, nodes=[NodeWithScore(node=TextNode(text="It left at noon."), score=1.0)])
    assert "trains" in str(answer)
    [given] = llm._prompts
    assert given.startswith(f"{examples(query_str=QUERY)}\n\n") and given.endswith(f"\nInput: {QUERY}\nOutput:")
    assert "It left at noon." in given


@pytest.mark.parametrize("query_var", [None, "question"])
@pytest.mark.parametrize(
    ("settings", "longest"),
    [
        (Settings(k=2, calibrate=False), ["which platform for the train", "when does the train leave"]),
        (Settings(k="auto", k_max=1, calibrate=False), ["which platform for the train"]),
        (Settings(k=4, budget=1, calibrate=False), ["which platform for the train"]),
        (Settings(k=0, calibrate=False), []),
    ],
)
def test_a_prompt_that_is_measured_holds_examples_as_long_as_any(query_var, settings, longest):
    examples = build(settings=settings, query_var=query_var)
    by_question = {each["question"]: each for each in EXAMPLES}
    for prompt in prompts(examples).values():
        measured = get_empty_prompt_txt(prompt)
        assert measured.count("Input: ") == len(longest)
        assert written(by_question[question] for question in longest) in measured
        assert examples(question=QUERY) in get_empty_prompt_txt(prompt.partial_format(question=QUERY))
    assert all(len(examples(question=query)) <= len(examples(question="", examples="")) for query in QUERIES)
    assert examples.records(question="", examples="") == [by_question[question] for question in longest]


@pytest.mark.llm
def test_with_a_real_language_model(embedder, small_lm):
    pool = [{"question": each.input, "answer": each.output} for each in support_desk() if each.task == "support"]
    examples = build(pool, embedder, settings=Settings(k=4))
    function = {"function_mappings": {"examples": examples}}
    prompt = PromptTemplate("{examples}\n\nInput: {question}\nOutput:", **function)
    rich = RichPromptTemplate("{{ examples }}\n\nInput: {{ question }}\nOutput:", **function)
    llm = Local(small_lm.generate)
    expected = {
        "wont let me log in, just says try later": "login",
        "two cards vanished when i dragged them to another board": "bug report",
        "would be cool to have a widget for the home screen": "feature request",
    }
    assert {query: llm.predict(prompt, question=query) for query in expected} == expected
    query = next(iter(expected))
    assert llm.predict(rich.partial_format(question=query)) == expected[query]
    assert asyncio.run(llm.apredict(rich, question=query)) == expected[query]
    alone = {llm.predict(PromptTemplate("Input: {question}\nOutput:"), question=query) for query in expected}
    assert not alone & set(expected.values())  # without examples it knows none of them


# -- a real README, an empty process ------------------------------------------------------------------------------


@pytest.mark.usefixtures("embedder")
def test_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    shown, message = names["examples"].records(message=names["message"]), names["message"]
    text = [line for e in shown for line in (f"Message: {e['message']}", f"Team: {e['team']}", "")]
    assert lines[:11] == [*text, f"Message: {message}", "Team:"]
    chat = [line for e in shown for line in (f"user: {e['message']}", f"assistant: {e['team']}")]
    assert lines[11:19] == [*chat, f"user: {message}", f"query: {message}"]


def python(script):
    return subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)


def test_it_can_be_imported_alone():
    done = python(
        "import sys, llamaindex_kdprompt; print(llamaindex_kdprompt.__all__, "
        "[name for name in ('sentence_transformers', 'transformers', 'langchain_core') if name in sys.modules])"
    )
    assert (done.stdout.strip(), done.stderr) == ("['DistillationExamples', 'LlamaIndexEmbedder'] []", "")


@pytest.mark.parametrize("missing", ["llama_index", "llama_index.core"])
def test_without_llamaindex_the_extra_is_named(missing):
    done = python(f"import sys; sys.modules[{missing!r}] = None; import llamaindex_kdprompt")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: llamaindex_kdprompt needs LlamaIndex: pip install 'kdprompt[llamaindex]'"
    )
