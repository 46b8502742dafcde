"""Pools in a LangChain ``VectorStore``: the shortlist is taken there, J is searched here.

The store embeds each example once, when it is added; its vectors are read back by id and kept, never computed again.
What becomes of an example in it, ``store_records.py`` and ``store_places.py`` say.

Rejected: J over what ``similarity_search`` returns with vectors computed anew (an embedding a candidate and query).
"""

import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.errors import KDPromptError
from kdprompt.explanation import Explanation
from kdprompt.pool.embedding import Embedder, embed_documents, embed_queries
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder
from kdprompt.pool.vectors import check_vectors
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from langchain_kdprompt.store_embeddings import StoreEmbeddings
from langchain_kdprompt.store_places import StorePlaces, id_of, list_places
from langchain_kdprompt.store_records import build_metadata, read_demonstration
from langchain_kdprompt.store_vectors import ReadVectors, find_vector_reader
from langchain_kdprompt.translation import Example, limit_k, parse_example, parse_repeated

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

__all__ = ["StorePool"]

SEARCHES = 3  # at most, where a document that was found is changed or removed before its vector is read


class StorePool:
    """A pool that lives in a vector store; what ``DistillationSelector`` does for a pool in memory.

    Args:
        store: The store; it embeds what is added.
        embeddings: Embeds queries.
        schema: Which keys of an example hold what.
        settings: ``shortlist`` is the number of examples that the store is asked for.
        search: Passed to the store's search: filters and the like.
        read_vectors: Reads vectors back; None knows InMemoryVectorStore, FAISS, Qdrant and PGVector.
    """

    def __init__(
        self,
        store: "VectorStore",
        embeddings: Embedder,
        schema: Schema,
        settings: Settings,
        *,
        search: Mapping[str, Any] | None = None,
        read_vectors: ReadVectors | None = None,
    ) -> None:
        self.store = store
        self.embedder = embeddings
        self.schema = schema
        self.settings = settings
        self.search = dict(search or {})
        self.places = StorePlaces(store)
        self.calibration: Calibration | None = None
        self.read_vectors = read_vectors or find_vector_reader(store) or self._embed_again
        self._known: dict[tuple[str, str], Tensor] = {}

    @classmethod
    def create(
        cls,
        store_cls: "type[VectorStore]",
        options: Mapping[str, Any],
        pool: Pool,
        embeddings: Embedder | None,
        settings: Settings,
        search: Mapping[str, Any] | None,
    ) -> "StorePool":
        """A new store with a pool in it.

        Args:
            store_cls: Class of the store.
            options: For its ``from_texts``.
            pool: The examples; may be none, where the store can be made so.
            embeddings: Embeds them; None takes kdprompt's default.
            settings: As above.
            search: As above.

        Raises:
            PoolError: JSON cannot keep an example as it is.
        """
        embedder = embeddings or SentenceTransformerEmbedder()
        store_embeddings = embedder if isinstance(embedder, Embeddings) else StoreEmbeddings(embedder)
        metadatas, named = [build_metadata(shown) for shown in pool], _name_collection(store_cls, options)
        ids = [list_places(named.get("collection_name", ""), shown.id)[0] for shown in pool]
        store = store_cls.from_texts(
            [shown.input for shown in pool], store_embeddings, metadatas=metadatas, ids=ids, **named
        )
        made = cls(store, embedder, pool.schema, settings, search=search)
        for shown, place in zip(pool, ids, strict=True):
            made.places.note(shown.id, place)
        made.places.clear_second(shown.id for shown in pool)
        return made

    # -- the pool -----------------------------------------------------------------------------------------------

    def add(self, original: Example) -> str:
        """Gives an example to the store, which embeds it; on an error nothing has changed.

        Returns:
            Its id; one that is made of the content ends in ``-2``, ``-3`` and so on where it is taken.

        Raises:
            PoolError: JSON cannot keep the example as it is, or the id that it brings is taken.
            MissingKeyError: It lacks a key.
        """
        shown = parse_example(original, self.schema)
        taken: list[Demonstration] = []
        while self.places.held(shown.id):
            taken.append(shown)
            shown = parse_repeated(original, self.schema, taken)
        self._put(shown, build_metadata(shown), self.places.both(shown.id)[0])
        return shown.id

    def update(self, shown: Demonstration) -> None:
        """Puts an example in the place of that with its id; on an error nothing has changed.

        Raises:
            PoolError: JSON cannot keep the example as it is, or the store has none with its id.
        """
        metadata, (place, *stale) = build_metadata(shown), self.places.require(shown.id)
        if stale:
            self.store.delete(stale)
        free = self.places.free(shown.id, place)
        self._put(shown, metadata, free)
        try:
            self.store.delete([place])
        except BaseException:
            if place in self.places.held(shown.id):  # else it was deleted all the same
                self.store.delete([free])
            raise

    def _put(self, shown: Demonstration, metadata: dict[str, Any], place: str) -> None:
        self.store.add_texts([shown.input], [metadata], ids=[place])
        self.places.note(shown.id, place)

    def remove(self, ids: Iterable[str]) -> None:
        """Removes examples by id, all or none.

        Raises:
            PoolError: The store has no example with one of the ids.
        """
        held = {ident: self.places.require(ident) for ident in ids}
        self.store.delete([place for places in held.values() for place in places])
        for ident in held:
            self.places.note(ident, None)

    def calibrate(self, pool: Pool, queries: Sequence[Query] | None = None) -> None:
        """Calibrates on examples that the store holds, with the vectors that it holds."""
        if len(pool):
            vectors = self._vectors([(self.places.both(shown.id)[0], shown.input) for shown in pool])
            self._calibrate(pool, vectors, queries)

    def calibrate_on(self, queries: Sequence[Query]) -> None:
        """Calibrates on what the store finds for a sample of the traffic."""
        vectors = embed_queries(self.embedder, [query.text for query in queries])
        nearby = [member for row, query in zip(vectors, queries, strict=True) for member in self._near(row, query)]
        members = {shown.id: (shown, vector) for shown, vector in nearby}
        if members:
            pool = Pool([shown for shown, _ in members.values()], self.schema)
            self._calibrate(pool, torch.stack([vector for _, vector in members.values()]), None)

    def _calibrate(self, pool: Pool, vectors: Tensor, queries: Sequence[Query] | None) -> None:
        settings = limit_k(self.settings, pool)
        selector = DistillationSelector.from_examples(
            pool, self.embedder, vectors=vectors, queries=queries, settings=settings
        )
        self.calibration = selector.calibration

    # -- selection ----------------------------------------------------------------------------------------------

    def select_demonstrations(self, queries: Sequence[Any]) -> list[tuple[Demonstration, ...]]:
        """The demonstrations for each query, in reading order; none where the store finds nothing."""
        parsed = Pool((), self.schema).queries(queries)
        if not parsed:
            return []
        vectors = embed_queries(self.embedder, [query.text for query in parsed])
        return [self._select(query, row, self._near(row, query)) for query, row in zip(parsed, vectors, strict=True)]

    def explain(self, query: Any) -> Explanation:
        """Selects and explains.

        Raises:
            PoolError: The store finds nothing.
        """
        parsed = Pool((), self.schema).query(query)
        vector = embed_queries(self.embedder, [parsed.text])[0]
        return self._build_selector(self._near(vector, parsed)).explain(parsed)

    def _near(self, vector: Tensor, query: Query) -> list[tuple[Demonstration, Tensor]]:
        for _ in range(SEARCHES - 1):
            try:
                return self._members(self._search(vector, query))
            except LookupError as error:
                if isinstance(error, KDPromptError):  # a document that is no example
                    raise
        return self._members(self._search(vector, query))

    def _search(self, vector: Tensor, query: Query) -> list[Document]:
        size = self.settings.search.shortlist
        try:
            return self.store.similarity_search_by_vector(vector.tolist(), k=size, **self.search)
        except NotImplementedError:
            return self.store.similarity_search(query.text, k=size, **self.search)

    def _members(self, documents: Sequence[Document]) -> list[tuple[Demonstration, Tensor]]:
        """The documents as demonstrations with their vectors, each id once."""
        by_id = {id_of(document): document for document in documents}
        read = {ident: read_demonstration(ident, document, self.schema) for ident, document in by_id.items()}
        whole = {ident: shown for ident, shown in read.items() if shown is not None}
        vectors = self._vectors([(ident, by_id[ident].page_content) for ident in whole])
        return list({shown.id: (shown, row) for shown, row in zip(whole.values(), vectors, strict=True)}.values())

    def _select(
        self, query: Query, vector: Tensor, members: Sequence[tuple[Demonstration, Tensor]]
    ) -> tuple[Demonstration, ...]:
        if query.task is not None and any(shown.task for shown, _ in members):
            members = [(shown, row) for shown, row in members if shown.task == query.task]
        if not members:
            return ()
        return self._build_selector(members).select_batch([query], vectors=vector[None])[0].demonstrations

    def _build_selector(self, members: Sequence[tuple[Demonstration, Tensor]]) -> DistillationSelector:
        """A selector of the shortlist alone, with the calibration that is in force."""
        pool = Pool([shown for shown, _ in members], self.schema)
        settings = limit_k(self.settings, pool)
        vectors = torch.stack([row for _, row in members]) if members else torch.empty(0, 1)
        return DistillationSelector(
            EmbeddedPool.build(pool, vectors, self.embedder, settings), settings, calibration=self.calibration
        )

    # -- vectors ------------------------------------------------------------------------------------------------

    def _vectors(self, keys: Sequence[tuple[str, str]]) -> Tensor:
        """Vectors of (store id, text) ``[n, d]``; each is read from the store once."""
        new = [key for key in keys if key not in self._known]
        if new:
            if self.read_vectors == self._embed_again:
                rows = self._embed_again(self.store, [text for _, text in new])
            else:
                rows = self.read_vectors(self.store, [ident for ident, _ in new])
            read = check_vectors(list(rows), [text for _, text in new], "the store").to(torch.float32)
            self._known.update(zip(new, read, strict=True))
        return torch.stack([self._known[key] for key in keys]) if keys else torch.empty(0, 1)

    def _embed_again(self, store: Any, texts: list[str]) -> Sequence[Any]:
        warnings.warn(
            f"how to read vectors back from a {type(store).__name__} is not known here: the examples that it finds are "
            "embedded once more, each once. Give read_vectors=, a function of the store and ids.",
            stacklevel=2,
        )
        return list(embed_documents(self.embedder, texts))


def _name_collection(store_cls: "type[VectorStore]", options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the collection's name, where the store has collections.

    A store that keeps its default collection in the process (Chroma without options) would mix two selectors there:
    each gets a collection of its own. With options, a folder say, the default is the one that a later process opens.
    """
    parameter = signature(store_cls.from_texts).parameters.get("collection_name")
    if parameter is None:
        return dict(options)
    default = parameter.default if options else None
    return {**options, "collection_name": options.get("collection_name") or default or uuid.uuid4().hex}
