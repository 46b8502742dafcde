"""``DistillationExampleSelector``: LangChain's example selector interface over kdprompt's ``DistillationSelector``.

Validates, translates (``translation.py``), calls one function of kdprompt, translates back. The pool is in memory, or
in a vector store (``stores.py``): then the store gives the shortlist, and J is searched over it here.

Rejected: a pydantic model as LangChain's selectors are (there is nothing to parse but the keys, and it would open a
second way to construct).
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.example_selectors import BaseExampleSelector
from langchain_core.messages import BaseMessage
from langchain_core.runnables import run_in_executor

from kdprompt.explanation import Explanation
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from kdprompt.storage import read, write
from langchain_kdprompt.prompts import chat_of
from langchain_kdprompt.runnable import SelectExamples
from langchain_kdprompt.stores import ReadVectors, StorePool, decoded, encoded
from langchain_kdprompt.translation import (
    DEFAULT_K,
    Example,
    as_record,
    as_records,
    check_embeddings,
    check_example_keys,
    check_store,
    copied,
    holding,
    key_tuple,
    parsed,
    pool_of,
    schema_of,
    settings_of,
    whole,
)

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore

__all__ = ["DistillationExampleSelector"]


class DistillationExampleSelector(BaseExampleSelector):
    """Selects examples by the distillation view; takes the place of ``SemanticSimilarityExampleSelector``.

    Make one with ``from_examples``; the constructor wraps a kdprompt selector that is at hand.

    Attributes:
        selector: The kdprompt selector (pool, settings, calibration, static prompts), or the pool in a vector store.
        example_keys: Keys that selected examples are filtered to, or None.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> examples = [{"question": f"{a} + {a}", "answer": str(a + a)} for a in range(6)]
        >>> selector = DistillationExampleSelector.from_examples(
        ...     examples, DeterministicFakeEmbedding(size=8), k=2, input_keys=["question"]
        ... )
        >>> [sorted(example) for example in selector.select_examples({"question": "7 + 7"})]
        [['answer', 'question'], ['answer', 'question']]
    """

    def __init__(self, selector: DistillationSelector | StorePool, example_keys: Sequence[str] | None = None) -> None:
        """Wraps a kdprompt selector, or a pool in a vector store.

        Args:
            selector: The selector.
            example_keys: Keys to filter selected examples to; None or none keeps all.

        Raises:
            MissingKeyError: An example of the pool lacks one of the example keys.
        """
        self.selector = selector
        self.example_keys = list(key_tuple(example_keys, "example_keys") or ()) or None
        if isinstance(selector, DistillationSelector):
            for i, demonstration in enumerate(selector.pool):
                check_example_keys(demonstration.fields, self.example_keys, f"example {i}")

    @classmethod
    def from_examples(  # noqa: PLR0913 -- LangChain's signature, so that swapping is a one-word change
        cls,
        examples: Iterable[Example],
        embeddings: "Embeddings | Embedder | None",
        vectorstore_cls: "type[VectorStore] | None" = None,
        k: int | Literal["auto"] | None = None,
        input_keys: Sequence[str] | None = None,
        *,
        example_keys: Sequence[str] | None = None,
        vectorstore_kwargs: Mapping[str, Any] | None = None,
        output_keys: Sequence[str] | None = None,
        task_key: str | None = None,
        queries: Sequence[str | Mapping[str, Any] | Query] | None = None,
        settings: Settings | None = None,
        **vectorstore_cls_kwargs: Any,
    ) -> Self:
        """Makes a selector of examples: embeds them once and calibrates on them.

        Names and positions are those of ``SemanticSimilarityExampleSelector.from_examples``.

        Args:
            examples: The examples; values need not be strings. An ``id`` key, where there is one, is the example's id.
            embeddings: Any LangChain ``Embeddings`` or kdprompt ``Embedder``; None takes kdprompt's default model.
            vectorstore_cls: A vector store to keep the examples in: it embeds them, gives the ``settings.shortlist``
                nearest to a query, and J is searched over these. None keeps all in memory.
            k: Examples to select, or ``"auto"``. None takes the settings' k; without settings 4, or as many distinct
                examples as there are.
            input_keys: Keys of the input. None or none: all values of an example, in the order of its keys, are its
                text and outputs are unknown; a warning says so.
            example_keys: Keys to filter selected examples to.
            vectorstore_kwargs: Passed to the store's search, filters for example.
            output_keys: Keys of the output. None takes all keys that are no input, task or id. Without
                ``input_keys``, the inputs are the remaining keys.
            task_key: Key of the task tag; a query that has it chooses from that task alone.
            queries: A sample of the traffic, texts or mappings with the input keys; calibration uses it.
            settings: Everything else that kdprompt lets one set.
            **vectorstore_cls_kwargs: Passed to ``vectorstore_cls.from_texts``.

        Raises:
            TypeError: ``embeddings`` has not LangChain's two methods, or keys are given as one string.
            ValueError: The keys contradict each other, or a store's arguments are given without a store.
            MissingKeyError: An example or a query lacks a key.
            PoolError: There is no example, there are fewer than k, or one cannot be used.
            EmbeddingError: The embeddings do not fit.
        """
        check_store(vectorstore_cls, vectorstore_kwargs, vectorstore_cls_kwargs)
        check_embeddings(embeddings)
        shown = key_tuple(example_keys, "example_keys")
        originals = [copied(example, f"example {i}") for i, example in enumerate(examples)]
        schema = schema_of(originals, input_keys, output_keys, task_key)
        pool = pool_of(originals, schema)
        for i, example in enumerate(originals):
            check_example_keys(example, shown, f"example {i}")
        if vectorstore_cls is not None:
            within = settings or Settings()
            limits = (
                within if k is None and settings else Settings.model_validate({**dict(within), "k": k or DEFAULT_K})
            )
            stored = StorePool.made(
                vectorstore_cls, vectorstore_cls_kwargs, pool, embeddings, limits, vectorstore_kwargs
            )
            stored.calibrate(pool, as_records(queries, schema))
            return cls(stored, shown)
        selector = DistillationSelector.from_examples(
            pool, embeddings, queries=as_records(queries, schema), settings=settings_of(pool, k, settings)
        )
        return cls(selector, shown)

    @classmethod
    async def afrom_examples(  # noqa: PLR0913 -- as above
        cls,
        examples: Iterable[Example],
        embeddings: "Embeddings | Embedder | None",
        vectorstore_cls: "type[VectorStore] | None" = None,
        k: int | Literal["auto"] | None = None,
        input_keys: Sequence[str] | None = None,
        *,
        example_keys: Sequence[str] | None = None,
        vectorstore_kwargs: Mapping[str, Any] | None = None,
        output_keys: Sequence[str] | None = None,
        task_key: str | None = None,
        queries: Sequence[str | Mapping[str, Any] | Query] | None = None,
        settings: Settings | None = None,
        **vectorstore_cls_kwargs: Any,
    ) -> Self:
        """As ``from_examples``, which it runs in an executor."""
        named = dict(example_keys=example_keys, output_keys=output_keys, task_key=task_key, queries=queries)
        extra = {**named, "settings": settings, "vectorstore_kwargs": vectorstore_kwargs, **vectorstore_cls_kwargs}
        build: partial[Self] = partial(cls.from_examples, examples, embeddings, vectorstore_cls, k, input_keys, **extra)
        return await run_in_executor(None, build)

    @classmethod
    def from_vectorstore(  # noqa: PLR0913 -- as above
        cls,
        vectorstore: "VectorStore",
        embeddings: "Embeddings | Embedder | None" = None,
        k: int | Literal["auto"] = DEFAULT_K,
        input_keys: Sequence[str] | None = None,
        *,
        example_keys: Sequence[str] | None = None,
        vectorstore_kwargs: Mapping[str, Any] | None = None,
        output_keys: Sequence[str] | None = None,
        task_key: str | None = None,
        queries: Sequence[str | Mapping[str, Any] | Query] | None = None,
        settings: Settings | None = None,
        read_vectors: ReadVectors | None = None,
    ) -> Self:
        """Makes a selector over a store that holds examples already, as LangChain's selectors keep them or as ours do.

        Args:
            vectorstore: The store.
            embeddings: Embeds queries; None takes the store's own.
            k: Examples to select; fewer where the store finds fewer.
            input_keys: Keys of the input; None or none: all values are the text.
            example_keys: Keys to filter selected examples to.
            vectorstore_kwargs: Passed to the store's search.
            output_keys: Keys of the output; None takes all that are no input, task or id.
            task_key: Key of the task tag.
            queries: A sample of the traffic: calibration looks at what the store finds for it. Without one, every
                shortlist gets its own temperature.
            settings: Everything else; ``shortlist`` is what the store is asked for.
            read_vectors: From the store and ids to vectors; None knows InMemoryVectorStore, FAISS, Qdrant, PGVector.

        Raises:
            TypeError: There are no embeddings, or keys are given as one string.
            ValueError: The keys contradict each other.
        """
        embeddings = vectorstore.embeddings if embeddings is None else embeddings
        if embeddings is None:
            raise TypeError(f"the {type(vectorstore).__name__} has no embeddings of its own; give them: embeddings=…")
        check_embeddings(embeddings)
        schema = schema_of([], input_keys, output_keys, task_key)
        limits = Settings.model_validate({**dict(settings or Settings()), "k": k})
        pool = StorePool(vectorstore, embeddings, schema, limits, search=vectorstore_kwargs, read_vectors=read_vectors)
        if queries:
            pool.calibrate_on(Pool((), schema).queries(as_records(queries, schema)))
        return cls(pool, key_tuple(example_keys, "example_keys"))

    @property
    def k(self) -> int | Literal["auto"]:
        """Examples to select."""
        return self.selector.settings.k

    @property
    def schema(self) -> Schema:
        """Which keys of an example hold what."""
        return self.selector.schema if isinstance(self.selector, StorePool) else self.selector.pool.schema

    @property
    def input_keys(self) -> list[str] | None:
        """Keys of the input, or None where all values are the text."""
        return None if whole(self.schema) else list(self.schema.inputs)

    # -- selection ----------------------------------------------------------------------------------------------

    def select_examples(self, input_variables: Example) -> list[dict[str, Any]]:
        """Selects the examples for one query.

        Args:
            input_variables: The query's variables; those that are no input or task key are passed over.

        Returns:
            Deep copies of the examples in reading order. Fewer than k where the rest would repeat one of them or
            the query itself, or is of another task; ``explain`` says so.

        Raises:
            MissingKeyError: An input key is missing.
            QueryError: The query is empty, or of a task that no example has.
        """
        return self.select_batch([input_variables])[0]

    async def aselect_examples(self, input_variables: Example) -> list[dict[str, Any]]:
        """As ``select_examples``; what is asked concurrently is computed in one pass."""
        return self._examples(await self._achosen(input_variables))

    def select_batch(self, inputs: Sequence[Example]) -> list[list[dict[str, Any]]]:
        """The examples for each of many queries, in one pass; errors as ``select_examples``."""
        return [self._examples(shown) for shown in self._chosen(inputs)]

    def select_messages(self, input_variables: Example) -> list[BaseMessage]:
        """The examples for one query as a chat, see ``langchain_kdprompt.prompts.chat_of``."""
        return chat_of(self._chosen([input_variables])[0], self.schema)

    async def aselect_messages(self, input_variables: Example) -> list[BaseMessage]:
        """As ``select_messages``."""
        return chat_of(await self._achosen(input_variables), self.schema)

    def as_runnable(self) -> SelectExamples:
        """The selector as a ``Runnable`` from variables to examples, with ``batch`` in one pass."""
        return SelectExamples(self)

    def explain(self, input_variables: Example) -> Explanation:
        """Selects and explains: each example's part, and the nearest neighbours' terms; ``str()`` is the page."""
        return self.selector.explain(as_record(input_variables, self.schema))

    def _chosen(self, inputs: Sequence[Example]) -> list[tuple[Demonstration, ...]]:
        records = [as_record(variables, self.schema) for variables in inputs]
        if isinstance(self.selector, StorePool):
            return self.selector.demonstrations(records)
        return [found.demonstrations for found in self.selector.select_batch(records)]

    async def _achosen(self, input_variables: Example) -> tuple[Demonstration, ...]:
        if isinstance(self.selector, StorePool):
            return (await run_in_executor(None, self._chosen, [input_variables]))[0]
        return (await self.selector.aselect(as_record(input_variables, self.schema))).demonstrations

    def _examples(self, shown: Sequence[Demonstration]) -> list[dict[str, Any]]:
        examples = [copy.deepcopy(dict(each.fields)) for each in shown]
        if self.example_keys is None:
            return examples
        for i, example in enumerate(examples):
            check_example_keys(example, self.example_keys, f"the example {shown[i].id!r}")
        return [{key: example[key] for key in self.example_keys} for example in examples]

    # -- the pool -----------------------------------------------------------------------------------------------

    def add_example(self, example: Example) -> str:
        """Adds an example; on an error nothing has changed.

        Args:
            example: As ``from_examples`` takes them.

        Returns:
            Its id, for ``remove`` and ``update``; made of the content where the example has no ``id``.

        Raises:
            MissingKeyError, PoolError, EmbeddingError: As ``from_examples``.
        """
        original = self._checked(example)
        if isinstance(self.selector, StorePool):
            shown = parsed(original, self.schema)
            self.selector.add([shown])
            return shown.id
        pool = self.selector.pool
        demonstration = pool.with_records([as_record(original, pool.schema)])[len(pool)]
        return self.selector.add_example(holding(demonstration, original))

    def update(self, ident: str, example: Example) -> None:
        """Puts another example in the place of one, under the same id; on an error nothing has changed.

        Raises:
            PoolError: A pool in memory has no such id.
            MissingKeyError, PoolError, EmbeddingError: As ``from_examples``.
        """
        original = self._checked(example)
        shown = parsed(original, self.schema).model_copy(update={"id": ident})
        if isinstance(self.selector, StorePool):
            self.selector.update(shown)
        else:
            self.selector.update(ident, shown)

    def remove(self, ids: str | Iterable[str]) -> None:
        """Removes examples by id; all or none where the pool is in memory.

        Raises:
            PoolError: There is no such id, or fewer than k examples would be left; a store may keep silent.
        """
        self.selector.remove([ids] if isinstance(ids, str) else list(ids))

    async def aadd_example(self, example: Example) -> str:
        """As ``add_example``, in an executor."""
        return await run_in_executor(None, self.add_example, example)

    async def aupdate(self, ident: str, example: Example) -> None:
        """As ``update``, in an executor."""
        await run_in_executor(None, self.update, ident, example)

    async def aremove(self, ids: str | Iterable[str]) -> None:
        """As ``remove``, in an executor."""
        await run_in_executor(None, self.remove, ids)

    def _checked(self, example: Example) -> Example:
        original = copied(example, "the example")
        check_example_keys(original, self.example_keys, "the example")
        return original

    # -- storage ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Writes examples (messages too), embeddings, settings and calibration to one file, for ``load``.

        Raises:
            PoolError: JSON cannot keep an example as it is.
            ValueError: The pool is in a vector store, which keeps it itself.
        """
        if isinstance(self.selector, StorePool):
            raise ValueError("the examples are in a vector store, which keeps them: open it with from_vectorstore")
        stored = replace(self.selector.stored(), about={"example_keys": self.example_keys})
        write(stored, path, encoded)

    @classmethod
    def load(
        cls,
        path: str | Path,
        embeddings: "Embeddings | Embedder | None" = None,
        *,
        settings: Settings | None = None,
    ) -> Self:
        """Reads what ``save`` wrote; nothing is embedded or calibrated again.

        Args:
            path: The file.
            embeddings: The embeddings of before, for queries; None where they were kdprompt's own.
            settings: In place of the stored ones; this and the errors as ``DistillationSelector.load``.
        """
        stored = read(path, decoded)
        return cls(DistillationSelector.restored(stored, embeddings, settings), stored.about.get("example_keys"))
