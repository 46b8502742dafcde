"""``DistillationExampleSelector``: made of examples, of a vector store, or of a file.

Rejected: a pydantic model as LangChain's selectors are (there is nothing to parse but the keys, and it would open a
second way to construct).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.runnables import run_in_executor

from kdprompt.errors import PoolError
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Query
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from kdprompt.storage import read, write
from langchain_kdprompt.example_selection import ExampleSelection
from langchain_kdprompt.serialization import decode_value, encode_value, escape_fields
from langchain_kdprompt.store_vectors import ReadVectors
from langchain_kdprompt.stores import StorePool
from langchain_kdprompt.translation import (
    DEFAULT_K,
    Example,
    build_pool,
    build_schema,
    build_settings,
    check_embeddings,
    check_example_keys,
    check_store,
    copy_example,
    limit_k,
    to_key_tuple,
    to_records,
)

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore

__all__ = ["DistillationExampleSelector"]


class DistillationExampleSelector(ExampleSelection):
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
        id_key: str | None = "id",
        queries: Sequence[str | Mapping[str, Any] | Query] | None = None,
        settings: Settings | None = None,
        **vectorstore_cls_kwargs: Any,
    ) -> Self:
        """Makes a selector of examples: embeds them once and calibrates on them.

        Names and positions are those of ``SemanticSimilarityExampleSelector.from_examples``.

        Args:
            examples: The examples; values need not be strings.
            embeddings: Any LangChain ``Embeddings`` or kdprompt ``Embedder``; None takes kdprompt's default model.
            vectorstore_cls: A vector store to keep the examples in: it embeds them and gives the shortlist
                (``settings.search.shortlist``) nearest to a query; J is searched over these. None keeps all in memory.
            k: Examples to select, or ``"auto"``; all where there are fewer, which ``last_selection`` notes. None takes
                the settings' k; without settings 4.
            input_keys: Keys of the input. None or none: all values of an example, in the order of its keys, are its
                text and outputs are unknown; a warning says so.
            example_keys: Keys to filter selected examples to.
            vectorstore_kwargs: Passed to the store's search, filters for example.
            output_keys: Keys of the output. None takes all keys that are no input, task or id. Without
                ``input_keys``, the inputs are the remaining keys.
            task_key: Key of the task tag; a query that has it chooses from that task alone.
            id_key: Key of an example's id, where it has one; None where ``id`` is something else and may repeat.
            queries: A sample of the traffic, texts or mappings with the input keys; calibration uses it.
            settings: Everything else that kdprompt lets one set.
            **vectorstore_cls_kwargs: Passed to ``vectorstore_cls.from_texts``.

        Raises:
            TypeError: ``embeddings`` has not LangChain's two methods, or keys are given as one string.
            ValueError: The keys contradict each other, or a store's arguments are given without a store.
            MissingKeyError: An example or a query lacks a key.
            PoolError: There is no example, or one cannot be used.
            EmbeddingError: The embeddings do not fit.
        """
        check_store(vectorstore_cls, vectorstore_kwargs, vectorstore_cls_kwargs)
        check_embeddings(embeddings)
        shown = to_key_tuple(example_keys, "example_keys")
        originals = [copy_example(example, f"example {i}") for i, example in enumerate(examples)]
        schema = build_schema(originals, input_keys, output_keys, task_key, id_key)
        pool = build_pool(originals, schema)
        for i, example in enumerate(originals):
            check_example_keys(example, shown, f"example {i}")
        given = to_records(queries, schema)
        if vectorstore_cls is not None:
            store = StorePool.create(
                vectorstore_cls,
                vectorstore_cls_kwargs,
                pool,
                embeddings,
                build_settings(pool, k if k is not None or settings else DEFAULT_K, settings or Settings()),
                vectorstore_kwargs,
            )
            store.calibrate(pool, given)
            return cls(store, shown)
        asked = build_settings(pool, k, settings)
        selector = DistillationSelector.from_examples(pool, embeddings, queries=given, settings=limit_k(asked, pool))
        return cls(selector, shown)._ask_for(asked.k)

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
        id_key: str | None = "id",
        queries: Sequence[str | Mapping[str, Any] | Query] | None = None,
        settings: Settings | None = None,
        **vectorstore_cls_kwargs: Any,
    ) -> Self:
        """As ``from_examples``, which it runs in an executor."""
        named = dict(example_keys=example_keys, output_keys=output_keys, task_key=task_key, id_key=id_key)
        more = dict(queries=queries, settings=settings, vectorstore_kwargs=vectorstore_kwargs)
        extra: dict[str, Any] = {**named, **more, **vectorstore_cls_kwargs}
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
        id_key: str | None = "id",
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
            id_key: Key of an example's id, where it has one.
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
        schema = build_schema([], input_keys, output_keys, task_key, id_key)
        limits = Settings.model_validate({**dict(settings or Settings()), "k": k})
        pool = StorePool(vectorstore, embeddings, schema, limits, search=vectorstore_kwargs, read_vectors=read_vectors)
        if queries:
            pool.calibrate_on(Pool((), schema).queries(to_records(queries, schema)))
        return cls(pool, to_key_tuple(example_keys, "example_keys"))

    def save(self, path: str | Path) -> None:
        """Writes examples (messages too), embeddings, settings and calibration to one file, for ``load``.

        Raises:
            PoolError: JSON cannot keep an example as it is.
            ValueError: The pool is in a vector store, which keeps it itself.
        """
        if isinstance(self.selector, StorePool):
            raise ValueError("the examples are in a vector store, which keeps them: open it with from_vectorstore")
        stored = self.selector.stored()
        pool = Pool(map(escape_fields, stored.pool), stored.pool.schema)
        about = {"example_keys": self.example_keys, "k": self.k}
        write(replace(stored, pool=pool, about=about), path, encode_value)

    @classmethod
    def load(
        cls,
        path: str | Path,
        embeddings: "Embeddings | Embedder | None" = None,
        *,
        settings: Settings | None = None,
        reembed: bool = False,
    ) -> Self:
        """Reads what ``save`` wrote; nothing is embedded or calibrated again.

        Args:
            path: The file.
            embeddings: The embeddings of before, for queries; None where they were kdprompt's own.
            settings: In place of the stored ones; this and the errors as ``DistillationSelector.load``.
            reembed: Whether to embed everything anew, by other embeddings than before, and to calibrate again.
        """
        stored = read(path, decode_value)
        selector = DistillationSelector.restored(stored, embeddings, settings, reembed=reembed)
        keys, k = stored.about.get("example_keys"), stored.about.get("k", selector.settings.k)
        if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
            raise PoolError(f"{path}: example_keys must be texts, got {keys!r:.60}; build the selector again")
        if k != "auto" and (type(k) is not int or k < 0):
            raise PoolError(
                f"{path}: k must be a whole number from 0 or 'auto', got {k!r:.60}; build the selector again"
            )
        return cls(selector, keys) if settings else cls(selector, keys)._ask_for(k)
