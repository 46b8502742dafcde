"""``DistillationExampleSelector``: a Haystack component over kdprompt's ``DistillationSelector``.

Validates, translates (``translation.py``, ``embedding.py``), calls one function of kdprompt, translates back. The
constructor keeps what it is given; ``warm_up`` embeds and calibrates.

Rejected: the computed state in every pipeline file (megabytes of it, where the file is there to be read; who wants it
gives ``saved``); a ranker over a retriever's documents (J needs all embeddings, not a retriever's few nearest).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self

from haystack import Document, component, default_from_dict, default_to_dict

from haystack_kdprompt.embedding import TextEmbedder, as_embedder, check_embedder, embedder_from_dict, embedder_to_dict
from haystack_kdprompt.translation import (
    DocumentStore,
    build_pool,
    copy_examples,
    examples_from_dict,
    examples_to_dict,
    pack_json,
    settings_to_dict,
    unpack_json,
)
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.records import Schema
from kdprompt.pool.worker_threads import call_in_thread
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings

__all__ = ["DistillationExampleSelector"]


@component
class DistillationExampleSelector:
    """Selects examples for a query; its ``examples`` go into a ``ChatPromptBuilder`` or a ``PromptBuilder``.

    Attributes:
        selector: The kdprompt selector once it is warm, else None: ``explain``, ``save``, static prompts.

    Example:
        >>> from kdprompt import CallableEmbedder
        >>> pool = [{"input": f"{a} + {a}", "output": a + a} for a in range(6)]
        >>> embedder = CallableEmbedder(lambda texts: [[float(text[0]), 1.0] for text in texts])
        >>> selector = DistillationExampleSelector(pool, embedder, settings={"k": 2})
        >>> [sorted(example) for example in selector.run(query="7 + 7")["examples"]]
        [['input', 'output'], ['input', 'output']]
    """

    def __init__(
        self,
        examples: Iterable[Mapping[str, Any] | Document] | str | Path | DocumentStore | None = None,
        embedder: Embedder | TextEmbedder | None = None,
        *,
        schema: Schema | Mapping[str, Any] | None = None,
        queries: Sequence[str | Mapping[str, Any]] | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
        saved: str | Path | Mapping[str, Any] | None = None,
    ) -> None:
        """Keeps what it is given; nothing is read, embedded or calibrated before ``warm_up``.

        Args:
            examples: The pool: mappings, the path of a JSONL file, Haystack ``Document``s (``content`` is the first
                input key, ``meta`` the rest), or a document store that holds such. Embeddings of documents are used
                as they are; the embedder must then be the one they come from.
            embedder: A Haystack text embedder or a kdprompt ``Embedder``; None takes kdprompt's default model.
            schema: Which keys of an example hold what; defaults to ``input``, ``output``, ``task``, ``id``.
            queries: A sample of the traffic, texts or mappings with the input keys; calibration uses it.
            settings: How many examples, budget, order, …; a dictionary as in YAML will do.
            saved: In place of examples, schema and queries: a file that ``selector.save`` wrote, or what
                ``selector.to_dict`` made. Nothing is embedded or calibrated again.

        Raises:
            TypeError: The embedder is none.
            ValueError: Neither examples nor a saved selector is given, or both are; or settings are not valid.
            PoolError: An example is neither a mapping nor a document.
        """
        _check_source(examples, saved, schema, queries)
        check_embedder(embedder)
        self.examples = None if examples is None else copy_examples(examples)
        self.embedder = embedder
        self.schema = schema if schema is None or isinstance(schema, Schema) else Schema(**schema)
        self.queries = None if queries is None else list(queries)
        self.settings = settings if settings is None or isinstance(settings, Settings) else Settings(**settings)
        self.saved = saved
        self.selector: DistillationSelector | None = None
        self._warming = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep: all but the lock, which belongs to this process."""
        return {name: value for name, value in vars(self).items() if name != "_warming"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._warming = Lock()

    def warm_up(self) -> None:
        """Reads, embeds and calibrates, once; later calls do nothing.

        Raises:
            FileNotFoundError: There is no such file.
            MissingKeyError: An example or a query lacks a key.
            PoolError: There is no example, there are fewer than k, or one cannot be used.
            EmbeddingError: The embeddings do not fit.
        """
        self._warm()

    async def warm_up_async(self) -> None:
        """As ``warm_up``, in a worker thread: embedding a pool takes its time."""
        if self.selector is None:
            await call_in_thread(self._warm)

    def _warm(self) -> DistillationSelector:
        with self._warming:
            if self.selector is None:
                self.selector = self._build()
            return self.selector

    def _build(self) -> DistillationSelector:
        embedder = as_embedder(self.embedder)
        if self.examples is not None:
            pool, vectors = build_pool(self.examples, self.schema)
            return DistillationSelector.from_examples(
                pool, embedder, queries=self.queries, settings=self.settings, vectors=vectors
            )
        if isinstance(self.saved, str | Path):
            return DistillationSelector.load(self.saved, embedder, settings=self.settings)
        return DistillationSelector.from_dict(self.saved or {}, embedder, settings=self.settings)

    @component.output_types(examples=list[dict[str, Any]])
    def run(
        self, query: str | dict[str, Any], task: str | None = None, outputs: list[str] | None = None
    ) -> dict[str, Any]:
        """Selects the examples for one query.

        Args:
            query: Text, or a dictionary with the input keys (and the task key).
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.

        Returns:
            ``examples``: deep copies of the examples in reading order. Fewer than k where the rest would repeat one
            of them or the query itself, or is of another task; ``selector.explain`` says so.

        Raises:
            MissingKeyError: An input key is missing.
            QueryError: The query is empty, or its task or outputs are not the pool's.
            EmbeddingError: The query's embedding does not fit.
        """
        return {"examples": self._warm().select(query, task=task, outputs=outputs).examples}

    @component.output_types(examples=list[dict[str, Any]])
    async def run_async(
        self, query: str | dict[str, Any], task: str | None = None, outputs: list[str] | None = None
    ) -> dict[str, Any]:
        """As ``run``; what is asked concurrently is computed in one batched pass."""
        selector = await call_in_thread(self._warm) if self.selector is None else self.selector
        selection = await selector.aselect(query, task=task, outputs=outputs)
        return {"examples": selection.examples}

    def to_dict(self) -> dict[str, Any]:
        """What the component was made of, for a pipeline file.

        Raises:
            SerializationError: The embedder, a setting, or a value of an example or query has no plain form; says
                which, and what to do.
        """
        queries, saved = self.queries, self.saved
        if queries is not None:
            queries = [pack_json(q, f"query {i}") if isinstance(q, Mapping) else q for i, q in enumerate(queries)]
        return default_to_dict(
            self,
            examples=examples_to_dict(self.examples),
            embedder=embedder_to_dict(self.embedder),
            schema=None if self.schema is None else self.schema.model_dump(mode="json"),
            queries=queries,
            settings=settings_to_dict(self.settings),
            saved=pack_json(saved, "the saved selector", {}) if isinstance(saved, Mapping) else saved and str(saved),
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component that ``to_dict`` wrote, not warm.

        Raises:
            DeserializationError: It is another component's, or a module is not on Haystack's allowlist.
        """
        given = dict(data.get("init_parameters", {}))
        given["examples"] = examples_from_dict(given.get("examples"))
        given["embedder"] = embedder_from_dict(given.get("embedder"))
        given["queries"] = [unpack_json(query) for query in given["queries"]] if given.get("queries") else None
        given["saved"] = unpack_json(given.get("saved"))
        return default_from_dict(cls, {**data, "init_parameters": given})


def _check_source(examples: object, saved: object, schema: object, queries: object) -> None:
    if (examples is None) == (saved is None):
        raise ValueError(
            f"give either examples or saved, got {'neither' if saved is None else 'both'}; examples are embedded "
            "when the component warms up, a saved selector is only read"
        )
    for name, value in (("schema", schema), ("queries", queries)):
        if saved is not None and value is not None:
            raise ValueError(f"{name} must be left out where saved is given, got {value!r:.80}; the file holds its own")
