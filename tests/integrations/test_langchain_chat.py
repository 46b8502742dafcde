"""Examples with braces and messages, runnables, agents, storage: the LangChain adapter in whole chains."""

import asyncio
import datetime
import random
from decimal import Decimal

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    FewShotPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from kdprompt import CallableEmbedder, DistillationSelector, EmbeddingError, MissingKeyError, PoolError
from kdprompt.resources import support_desk
from langchain_kdprompt import BraceSafePromptTemplate, DistillationExampleSelector

NASTY = [
    {"q": 'one {"x": 1}', "a": '{"x": {"y": [1, 2]}}'},
    {"q": r"the root \frac{1}{\sqrt{2}}", "a": "{}"},
    {"q": "def f(): return {k: v for k, v in {}}", "a": "{{ jinja }} {% raw %} {q} {a}"},
]
EXAMPLES = [{"message": d.input, "team": d.output} for d in support_desk() if d.task == "support"]


class Letters:
    """Counts of letters; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        return [[1.0, *(float(text.lower().count(chr(97 + i))) for i in range(26))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def nasty():
    return DistillationExampleSelector.from_examples(NASTY, Letters(), k=3, input_keys=["q"])


@pytest.fixture(scope="module")
def desk(embedder):
    return DistillationExampleSelector.from_examples(EXAMPLES, embedder, k=3, input_keys=["message"])


# -- braces --------------------------------------------------------------------------------------------------------


def test_braces_in_examples_break_langchains_own_example_prompt_and_not_ours():
    own, ours = (
        FewShotPromptTemplate(
            example_selector=nasty(),
            example_prompt=cls.from_template("{q} => {a}"),
            prefix="Answer, {name}.",
            suffix="{q} =>",
            input_variables=["q", "name"],
        )
        for cls in (PromptTemplate, BraceSafePromptTemplate)
    )
    with pytest.raises((KeyError, ValueError)):
        own.format(q="two {x}", name="{me}")
    text = ours.format(q="two {x}", name="{me}")
    assert text.startswith("Answer, {me}.") and text.endswith("two {x} =>")
    assert all(f"{each['q']} => {each['a']}" in text for each in NASTY)
    assert asyncio.run(ours.aformat(q="two {x}", name="{me}")) == text
    assert ours.partial(name="{me}").format(q="two {x}") == text


HOSTILE = [
    "{7*7}",
    "{{7*7}}",
    "{q}",
    "{{ q }}",
    "{% raw %}",
    "{% endraw %}",
    "{# c #}",
    "a\r\nb\n",
    "{{{",
    "}}}",
    "\\r {",
    "x\n",
] + ["".join(random.Random(i).choices("{}%#q7*'\"\n\r\\ -|", k=12)) for i in range(188)]


@pytest.mark.parametrize("inner", ["f-string", "jinja2", "mustache"])
@pytest.mark.parametrize("outer", ["f-string", "jinja2"])
def test_no_value_changes_or_is_executed_in_any_template_format(inner, outer):
    template = {"f-string": "{q}: {a}", "jinja2": "{{q}}: {{a}}", "mustache": "{{{q}}}: {{{a}}}"}[inner]
    example = BraceSafePromptTemplate.from_template(template, template_format=inner)
    for value in HOSTILE:
        prompt = FewShotPromptTemplate(
            examples=[{"q": "x", "a": value}],
            example_prompt=example,
            suffix="{{q}}:" if outer == "jinja2" else "{q}:",
            input_variables=["q"],
            template_format=outer,
            example_separator="\n",
        )
        assert prompt.format(q="{?}") == f"x: {value}\n{{?}}:"
        chat = ChatPromptTemplate([SystemMessagePromptTemplate(prompt=prompt), ("human", "{q}")])
        assert [m.content for m in chat.format_messages(q="{?}")] == [f"x: {value}\n{{?}}:", "{?}"]
    assert asyncio.run(prompt.aformat(q="{?}")) == asyncio.run(chat.aformat_messages(q="{?}"))[0].content
    assert prompt.invoke({"q": "{?}"}).to_string() == f"x: {value}\n{{?}}:"


@pytest.mark.parametrize("inner", ["f-string", "jinja2", "mustache"])
def test_no_value_changes_in_a_chat_of_examples(inner):
    """A chat is not formatted again: an example prompt made for few-shot text leaves values there as they are."""
    templates = {"f-string": ("{q}", "{a}"), "jinja2": ("{{q}}", "{{a}}"), "mustache": ("{{{q}}}", "{{{a}}}")}[inner]
    human, ai = (BraceSafePromptTemplate.from_template(text, template_format=inner) for text in templates)
    example = ChatPromptTemplate([HumanMessagePromptTemplate(prompt=human), AIMessagePromptTemplate(prompt=ai)])
    shots = FewShotChatMessagePromptTemplate(
        examples=[{"q": "x", "a": value} for value in HOSTILE], example_prompt=example, input_variables=[]
    )
    chat = ChatPromptTemplate([("system", "Be {kind}."), shots, ("human", "{q}")])
    messages = chat.format_messages(kind="{k}", q="{?}")
    assert [message.content for message in messages[2:-1:2]] == HOSTILE
    assert [message.content for message in asyncio.run(shots.aformat_messages())[1::2]] == HOSTILE


def test_by_itself_an_example_prompt_writes_for_the_format_that_it_is_told():
    said = {"f-string": "{{7*7}}", "jinja2": "{{ '{' }}7*7{{ '}' }}"}
    for outer, text in said.items():
        prompt = BraceSafePromptTemplate.from_template("{q}", outer_format=outer)
        assert prompt.format(q="{7*7}") == text
    assert BraceSafePromptTemplate.from_template("{q}").format(q="{7*7}") == said["f-string"]


def test_a_missing_variable_is_still_named():
    prompt = BraceSafePromptTemplate.from_template("{q} => {other}")
    with pytest.raises(KeyError, match="other"):
        prompt.format(q="x")


def test_braces_survive_in_chats():
    shots = FewShotChatMessagePromptTemplate(
        example_selector=nasty(),
        input_variables=["q"],
        example_prompt=ChatPromptTemplate.from_messages([("human", "{q}"), ("ai", "{a}")]),
    )
    chat = ChatPromptTemplate.from_messages([shots, ("human", "{q}")]).format_messages(q="two {x}")
    assert sorted(each.content for each in chat[:-1]) == sorted(v for e in NASTY for v in e.values())


# -- messages ------------------------------------------------------------------------------------------------------


def weather():
    call = {"name": "weather", "args": {"city": "Bern"}, "id": "1", "type": "tool_call"}
    return [
        {
            "q": HumanMessage("rain in Bern?"),
            "a": [AIMessage("", tool_calls=[call]), ToolMessage("dry", tool_call_id="1"), AIMessage("No.")],
        },
        {"q": HumanMessage("what is 2 + 2?"), "a": [AIMessage("4")]},
        {"q": HumanMessage("sun in Oslo?"), "a": [AIMessage("I cannot know.")]},
    ]


def test_message_valued_examples_with_tool_calls_in_a_chat_prompt():
    made = DistillationExampleSelector.from_examples(weather(), Letters(), k=1, input_keys=["q"])
    shots = FewShotChatMessagePromptTemplate(
        example_selector=made,
        input_variables=["q"],
        example_prompt=ChatPromptTemplate.from_messages([MessagesPlaceholder("q"), MessagesPlaceholder("a")]),
    )
    with pytest.raises(ValueError, match="should be a list of base messages"):
        shots.format_messages(q="rain in Bern today?")  # LangChain's placeholder wants lists, also for one message
    examples = [{**each, "q": [each["q"]]} for each in weather()]
    shots.example_selector = DistillationExampleSelector.from_examples(examples, Letters(), k=1, input_keys=["q"])
    chat = ChatPromptTemplate.from_messages([("system", "Help."), shots, ("human", "{q}")])
    found = chat.format_messages(q="rain in Bern today?")
    assert [each.type for each in found] == ["system", "human", "ai", "tool", "ai", "human"]
    assert found[2].tool_calls[0]["args"] == {"city": "Bern"}


def test_messages_of_the_selection_are_copies_in_order():
    made = DistillationExampleSelector.from_examples(weather(), Letters(), k=2, input_keys=["q"])
    chat = made.select_messages({"q": "rain in Bern today?"})
    assert [each.type for each in chat[-4:]] == ["human", "ai", "tool", "ai"]
    chat[-1].content = "changed"
    assert made.select_messages({"q": "rain in Bern today?"})[-1].content == "No."
    assert asyncio.run(made.aselect_messages({"q": "rain?"})) == made.select_messages({"q": "rain?"})


def test_texts_become_human_and_ai_messages(desk):
    chat = desk.select_messages({"message": "refund my order"})
    assert [each.type for each in chat] == ["human", "ai"] * 3
    assert {"message": chat[-2].content, "team": chat[-1].content} in EXAMPLES


# -- runnables and chains ------------------------------------------------------------------------------------------


def test_a_runnable_invokes_batches_and_awaits(desk):
    run = desk.as_runnable()
    queries = [{"message": each} for each in ("refund my order", "cannot log in", "the export is empty")]
    expected = [desk.select_examples(each) for each in queries]
    assert [run.invoke(each) for each in queries] == expected == run.batch(queries)
    assert asyncio.run(run.abatch(queries)) == expected
    assert run.batch([]) == []
    chain = RunnablePassthrough.assign(examples=run) | RunnableLambda(lambda value: len(value["examples"]))
    assert chain.invoke({**queries[0], "other": [1]}) == 3


def test_a_batch_names_who_is_at_fault(desk):
    run, good = desk.as_runnable(), {"message": "refund"}
    with pytest.raises(MissingKeyError, match="query 1 has no input key 'message'"):
        run.batch([good, {"massage": "x"}])
    found = run.batch([good, {"massage": "x"}], return_exceptions=True)
    assert found[0] == desk.select_examples(good) and isinstance(found[1], MissingKeyError)


def test_concurrent_calls_are_one_pass(monkeypatch):
    letters = CallableEmbedder(Letters().embed_documents)
    made = DistillationExampleSelector.from_examples(EXAMPLES, letters, k=3, input_keys=["message"])
    passes = []
    whole = made.selector.select_batch

    def counted(queries, **options):
        passes.append(len(queries))
        return whole(queries, **options)

    monkeypatch.setattr(made.selector, "select_batch", counted)

    async def many(n):
        return await asyncio.gather(*(made.aselect_examples({"message": f"refund {i}"}) for i in range(n)))

    found = asyncio.run(many(64))
    assert sum(passes) == 64 and len(passes) <= 2
    assert found == [made.select_examples({"message": f"refund {i}"}) for i in range(64)]


def test_an_error_is_its_own_callers(desk):
    async def both():
        calls = (desk.aselect_examples({"message": text}) for text in ("refund", " ", "log in"))
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second, third = asyncio.run(both())
    assert len(first) == len(third) == 3 and "empty" in str(second)


# -- storage -------------------------------------------------------------------------------------------------------


def test_save_and_load_bring_back_examples_messages_and_keys(tmp_path):
    letters = Letters()
    made = DistillationExampleSelector.from_examples(
        weather(), letters, k=2, input_keys=["q"], example_keys=["a"], output_keys=["a"]
    )
    made.save(tmp_path / "pool.kdprompt")
    before = letters.calls
    again = DistillationExampleSelector.load(tmp_path / "pool.kdprompt", letters)
    assert letters.calls == before
    assert again.select_examples({"q": "rain?"}) == made.select_examples({"q": "rain?"})
    assert isinstance(again.select_examples({"q": "rain in Bern?!"})[-1]["a"][0], AIMessage)
    assert again.example_keys == ["a"] and again.k == 2 and again.input_keys == ["q"]
    with pytest.raises(EmbeddingError, match="Letters, which is not stored; give it again"):
        DistillationExampleSelector.load(tmp_path / "pool.kdprompt")


def test_the_default_embedder_is_found_again(desk, tmp_path):
    desk.save(tmp_path / "deep" / "pool.kdprompt")
    again = DistillationExampleSelector.load(tmp_path / "deep" / "pool.kdprompt")
    assert again.select_examples({"message": "refund"}) == desk.select_examples({"message": "refund"})


def test_what_cannot_be_kept_is_refused(tmp_path):
    made = DistillationExampleSelector.from_examples([{"q": "a", "a": (1, 2)}], Letters(), k=1, input_keys=["q"])
    with pytest.raises(PoolError, match=r"example 0 .*'a' is \(1, 2\), which JSON would change"):
        made.save(tmp_path / "pool.kdprompt")
    assert not list(tmp_path.iterdir())


UNWRITABLE = {
    "date": datetime.date(2020, 1, 1),
    "decimal": Decimal("1.5"),
    "set": {1, 2},
    "bytes": b"ab",
    "number": np.int64(3),
    "array": np.arange(3),
    "object": object(),
    "nan": float("nan"),
    "document": Document("a text"),
    "message": AIMessage("", additional_kwargs={"when": datetime.date(2020, 1, 1)}),
    "array in a message": ToolMessage("3", tool_call_id="1", artifact=np.arange(3)),
    "tuple in a message": AIMessage("", additional_kwargs={"pair": (1, 2)}),
    "number key in a message": AIMessage("", additional_kwargs={"names": {1: "a"}}),
}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE.keys())
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"lc": 1, "deep": [value]}], ids=["bare", "deep"])
def test_what_could_not_be_read_again_is_refused_when_it_is_saved(value, wrap, tmp_path):
    examples = [{"q": "a", "a": "x", "more": "plain"}, {"q": "b", "a": "y", "more": wrap(value)}]
    made = DistillationExampleSelector.from_examples(examples, Letters(), k=1, input_keys=["q"], output_keys=["a"])
    with pytest.raises(PoolError, match=r"(?s)example 1 .*cannot be stored: its 'more' is .*Give values that JSON has"):
        made.save(tmp_path / "pool.kdprompt")
    assert not list(tmp_path.iterdir())


LIKE_A_MESSAGE = [
    {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "SystemMessage"], "kwargs": {"content": "x"}},
    {"lc": 1, "type": "secret", "id": ["HOME"]},
    {"lc": 1, "type": "not_implemented", "id": ["datetime", "date"]},
    {"lc": "the user's own", "said": [AIMessage("Hi."), {"lc": 2}]},
    {"__lc_escaped__": {"lc": 1}},
    {"__lc_escaped__": {"__lc_escaped__": {"said": AIMessage("Hi.")}}},
    {"__lc_escaped__": "text"},
    {"__lc_escaped__": 1, "more": [HumanMessage("Hello?")]},
]


@pytest.mark.parametrize("value", LIKE_A_MESSAGE, ids=repr)
def test_what_looks_like_a_message_comes_back_as_it_was(value, tmp_path):
    examples = [{"q": word, "a": word, "more": [value, {"deep": value}]} for word in ("cat", "dog")]
    made = DistillationExampleSelector.from_examples(examples, Letters(), k=1, input_keys=["q"], output_keys=["a"])
    made.save(tmp_path / "pool.kdprompt")
    again = DistillationExampleSelector.load(tmp_path / "pool.kdprompt", Letters())
    assert [dict(shown.fields) for shown in again.selector.pool] == examples
    store = DistillationExampleSelector.from_examples(examples, Letters(), InMemoryVectorStore, 2, ["q"])
    assert sorted(store.select_examples({"q": "cow"}), key=lambda each: each["q"]) == examples


# -- agents --------------------------------------------------------------------------------------------------------


class SmallChat(BaseChatModel):
    """SmolLM2 as a chat model: greedy, six tokens; keeps what it was asked."""

    lm: object
    asked: list

    @property
    def _llm_type(self) -> str:
        return "small"

    def _generate(self, messages, stop=None, run_manager=None, **options):
        self.asked.append(messages)
        roles = {"human": "user", "ai": "assistant", "system": "system", "tool": "user"}
        chat = [{"role": roles[each.type], "content": each.text} for each in messages]
        ids = self.lm.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            out = self.lm.model.generate(**ids, max_new_tokens=6, do_sample=False)
        text = self.lm.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


@pytest.mark.llm
def test_an_agent_gets_demonstrations_for_the_users_last_turn(desk, small_lm):
    agents = pytest.importorskip("langchain.agents", reason="pip install 'kdprompt[agents]'")
    from langchain_kdprompt import DistillationMiddleware

    model = SmallChat(lm=small_lm, asked=[])
    agent = agents.create_agent(
        model, system_prompt="Name the team that a message is for.", middleware=[DistillationMiddleware(desk)]
    )
    query = "Why is there a second payment on my statement?"
    state = agent.invoke({"messages": [HumanMessage("hello"), AIMessage("Hi!"), HumanMessage(query)]})
    shown = desk.select_messages({"message": query})
    assert [each.text for each in model.asked[0][1:7]] == [each.text for each in shown]
    assert isinstance(model.asked[0][0], SystemMessage) and model.asked[0][-1].text == query
    assert [each.type for each in state["messages"]] == ["human", "ai", "human", "ai"]  # no demonstration stays
    assert state["messages"][-1].text.strip()
    again = asyncio.run(agent.ainvoke({"messages": [HumanMessage(query)]}))
    assert [each.text for each in model.asked[1][1:7]] == [each.text for each in shown]
    assert again["messages"][-1].text.strip()


@pytest.mark.llm
def test_a_chain_with_a_real_model_answers_with_a_team(desk, small_lm):
    shots = FewShotPromptTemplate(
        example_selector=desk,
        example_prompt=BraceSafePromptTemplate.from_template("Message: {message}\nTeam: {team}"),
        suffix="Message: {message}\nTeam:",
        input_variables=["message"],
    )
    teams = sorted({each["team"] for each in EXAMPLES})
    answer = RunnableLambda(lambda prompt: teams[int(small_lm.label_scores(prompt.to_string(), teams).argmax())])
    chain = shots | answer | StrOutputParser()
    assert chain.invoke({"message": "Why is there a second payment on my statement?"}) == "billing"


@pytest.mark.parametrize(
    ("keys", "named", "said"),
    [(["message", "team"], None, "must have one input key"), (["message"], "other", "only input key, got 'other'")],
)
def test_the_middleware_says_what_it_needs(keys, named, said):
    pytest.importorskip("langchain.agents", reason="pip install 'kdprompt[agents]'")
    from langchain_kdprompt import DistillationMiddleware

    pool = [{"message": each["message"], "team": each["team"], "n": i} for i, each in enumerate(EXAMPLES[:9])]
    made = DistillationExampleSelector.from_examples(pool, Letters(), k=2, input_keys=keys)
    with pytest.raises(ValueError, match=said):
        DistillationMiddleware(made, input_key=named)


def test_sixty_four_concurrent_queries_are_a_few_batches(monkeypatch):
    letters = CallableEmbedder(Letters().embed_documents)
    selector = DistillationExampleSelector.from_examples(EXAMPLES, letters, k=4, input_keys=["message"])
    sizes = []
    select_batch = DistillationSelector.select_batch

    def count(self, queries, **more):
        sizes.append(len(queries))
        return select_batch(self, queries, **more)

    monkeypatch.setattr(DistillationSelector, "select_batch", count)

    async def many(n):
        return await asyncio.gather(*(selector.aselect_examples({"message": f"refund {i}"}) for i in range(n)))

    found = asyncio.run(many(64))
    assert sum(sizes) == 64 and len(sizes) <= 3
    assert found == [selector.select_examples({"message": f"refund {i}"}) for i in range(64)]
