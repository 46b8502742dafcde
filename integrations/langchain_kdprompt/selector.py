"""``DistillationExampleSelector``: LangChain's example selector interface over kdprompt's ``DistillationSelector``.

Validates, translates (``translation.py``), calls one function of kdprompt, translates back. The async methods are
LangChain's own defaults: the sync ones, run in an executor.

Rejected: a pydantic model as LangChain's selectors are (there is nothing to parse but the keys, and it would open a
second way to construct); a vector store behind it (J needs all embeddings, not a store's few nearest).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.example_selectors import BaseExampleSelector
from langchain_core.runnables import run_in_executor

from kdprompt.data import Query
from kdprompt.embedding import Embedder
from kdprompt.explanation import Explanation
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from langchain_kdprompt.translation import (
    Example,
    as_record,
    as_records,
    check_embeddings,
    check_example_keys,
    copied,
    holding,
    key_tuple,
    pool_of,
    schema_of,
    settings_of,
    warn_unused,
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
        selector: The kdprompt selector: pool, settings, calibration, batches, static prompts.
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

    def __init__(self, selector: DistillationSelector, example_keys: Sequence[str] | None = None) -> None:
        """Wraps a kdprompt selector.

        Args:
            selector: The selector.
            example_keys: Keys to filter selected examples to; None or none keeps all.

        Raises:
            MissingKeyError: An example of the pool lacks one of the example keys.
        """
        self.selector = selector
        self.example_keys = list(key_tuple(example_keys, "example_keys") or ()) or None
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
            vectorstore_cls: Accepted for the swap, not used: a warning says so.
            k: Examples to select, or ``"auto"``. None takes the settings' k; without settings 4, or as many distinct
                examples as there are.
            input_keys: Keys of the input. None or none: all values of an example, in the order of its keys, are its
                text and outputs are unknown; a warning says so.
            example_keys: Keys to filter selected examples to.
            vectorstore_kwargs: Accepted for the swap, not used: a warning says so.
            output_keys: Keys of the output. None takes all keys that are no input, task or id. Without
                ``input_keys``, the inputs are the remaining keys.
            task_key: Key of the task tag; a query that has it chooses from that task alone.
            queries: A sample of the traffic, texts or mappings with the input keys; calibration uses it.
            settings: Everything else that kdprompt lets one set.
            **vectorstore_cls_kwargs: Accepted for the swap, not used: a warning says so.

        Raises:
            TypeError: ``embeddings`` has not LangChain's two methods, or keys are given as one string.
            ValueError: The keys contradict each other.
            MissingKeyError: An example or a query lacks a key.
            PoolError: There is no example, there are fewer than k, or one cannot be used.
            EmbeddingError: The embeddings do not fit.
        """
        warn_unused(vectorstore_cls, vectorstore_kwargs, vectorstore_cls_kwargs)
        check_embeddings(embeddings)
        shown = key_tuple(example_keys, "example_keys")
        originals = [copied(example, f"example {i}") for i, example in enumerate(examples)]
        schema = schema_of(originals, input_keys, output_keys, task_key)
        pool = pool_of(originals, schema)
        for i, example in enumerate(originals):
            check_example_keys(example, shown, f"example {i}")
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
        build = partial(
            cls.from_examples,
            examples,
            embeddings,
            vectorstore_cls,
            k,
            input_keys,
            example_keys=example_keys,
            vectorstore_kwargs=vectorstore_kwargs,
            output_keys=output_keys,
            task_key=task_key,
            queries=queries,
            settings=settings,
            **vectorstore_cls_kwargs,
        )
        return await run_in_executor(None, build)

    @property
    def k(self) -> int | Literal["auto"]:
        """Examples to select."""
        return self.selector.settings.k

    @property
    def input_keys(self) -> list[str] | None:
        """Keys of the input, or None where all values are the text."""
        schema = self.selector.pool.schema
        return None if whole(schema) else list(schema.inputs)

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
        examples = self.selector.select(as_record(input_variables, self.selector.pool.schema)).examples
        if self.example_keys is None:
            return examples
        return [{key: example[key] for key in self.example_keys} for example in examples]

    def explain(self, input_variables: Example) -> Explanation:
        """Selects and explains: each example's part, and the nearest neighbours' terms; ``str()`` is the page."""
        return self.selector.explain(as_record(input_variables, self.selector.pool.schema))

    def add_example(self, example: Example) -> str:
        """Adds an example; on an error nothing has changed.

        Args:
            example: As ``from_examples`` takes them.

        Returns:
            Its id, for ``remove``; made of the content where the example has no ``id``.

        Raises:
            MissingKeyError, PoolError, EmbeddingError: As ``from_examples``.
        """
        pool, original = self.selector.pool, copied(example, "the example")
        demonstration = pool.with_records([as_record(original, pool.schema)])[len(pool)]
        check_example_keys(original, self.example_keys, "the example")
        return self.selector.add_example(holding(demonstration, original))

    def remove(self, ids: str | Iterable[str]) -> None:
        """Removes examples by id; all or none.

        Raises:
            PoolError: There is no such id, or fewer than k examples would be left.
        """
        self.selector.remove(ids)
