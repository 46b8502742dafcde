"""``DistillationExamples``: kdprompt's ``DistillationSelector`` as a function that fills a variable of a prompt.

LlamaIndex's prompts compute a variable by a function of all the others (``function_mappings``); this is such a
function. It validates, translates the prompt's variables into a query, calls one function of kdprompt, renders.

Rejected: a prompt class of its own (LlamaIndex has four, and engines that take any of them); a node postprocessor
(examples are no context to answer from, and J needs all embeddings, not a retriever's few nearest); answering every
empty query with something (an engine that measures a prompt can be told from a query that somebody left empty).
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Self

from kdprompt.errors import MissingKeyError
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema
from kdprompt.pool.value_text import is_missing, render_value
from kdprompt.selection.result import Selection
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from llamaindex_kdprompt.embedding import as_embedder

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

__all__ = ["DistillationExamples"]


class DistillationExamples:
    r"""The chosen examples of a prompt as text: a value of ``function_mappings``.

    Make one with ``from_examples``; the constructor wraps a kdprompt selector that is at hand. LlamaIndex copies
    prompts deeply; a copy of this is this, so that all copies of a prompt share one pool and one embedder.

    Attributes:
        selector: The kdprompt selector: pool, settings, calibration, ``add_example``, ``explain``.
        query_var: The variable of the prompt that holds the query, or None: the input keys are the variables.

    Example:
        >>> from llama_index.core import PromptTemplate
        >>> from kdprompt import CallableEmbedder, Settings
        >>> pool = [{"input": f"{a} + {a}", "output": a + a} for a in range(6)]
        >>> embedder = CallableEmbedder(lambda texts: [[float(text[0]), 1.0] for text in texts])
        >>> examples = DistillationExamples.from_examples(pool, embedder, settings=Settings(k=1))
        >>> prompt = PromptTemplate("{examples}\n\nInput: {input}\nOutput:", function_mappings={"examples": examples})
        >>> prompt.format(input="7 + 7").count("Output:")
        2
    """

    __name__ = "DistillationExamples"  # prompts write the names of their functions when they are dumped

    def __init__(self, selector: DistillationSelector, query_var: str | None = None) -> None:
        """Wraps a kdprompt selector.

        Args:
            selector: The selector. Its ``settings.template`` writes the examples, and is what a budget counts.
            query_var: The variable that holds the query, ``query_str`` in LlamaIndex's own prompts. None: the pool's
                input keys are variables of the prompt.
        """
        self.selector = selector
        self.query_var = query_var

    @classmethod
    def from_examples(
        cls,
        examples: Iterable[Mapping[str, Any] | Demonstration] | Pool,
        embeddings: "BaseEmbedding | Embedder | None" = None,
        *,
        schema: Schema | None = None,
        queries: Sequence[str | Mapping[str, Any] | Query] | None = None,
        settings: Settings | None = None,
        query_var: str | None = None,
    ) -> Self:
        """Embeds the examples once and calibrates on them.

        Args:
            examples: The examples; values need not be strings.
            embeddings: Any LlamaIndex embedding model or kdprompt ``Embedder``; None takes kdprompt's default model.
            schema: Which keys of an example hold what; defaults to ``input``, ``output``, ``task``, ``id``.
            queries: A sample of the traffic, texts or mappings with the input keys; calibration uses it.
            settings: How many examples, budget, order, template, …
            query_var: As in the constructor.

        Raises:
            TypeError: ``embeddings`` are none.
            MissingKeyError: An example or a query lacks a key.
            PoolError: There is no example, there are fewer than k, or one cannot be used.
            EmbeddingError: The embeddings do not fit.
        """
        selector = DistillationSelector.from_examples(
            examples, as_embedder(embeddings), schema=schema, queries=queries, settings=settings
        )
        return cls(selector, query_var)

    def __call__(self, **variables: Any) -> str:
        """The chosen examples as text; errors as ``select``."""
        return self._written(self._shown(variables))

    def records(self, **variables: Any) -> list[dict[str, Any]]:
        """The chosen examples themselves, for a loop in a ``RichPromptTemplate``; errors as ``select``.

        Returns:
            Deep copies of the examples in reading order.
        """
        return [copy.deepcopy(dict(demonstration.fields)) for demonstration in self._shown(variables)]

    def render(self, selection: Selection) -> str:
        """A selection as text: the settings' template for each example, values verbatim."""
        return self._written(selection.demonstrations)

    def select(self, **variables: Any) -> Selection:
        """Chooses the examples for the query that a prompt's variables hold.

        Args:
            **variables: The prompt's variables; those that are no part of the query are passed over.

        Raises:
            MissingKeyError: The variable that holds the query, or an input key, is missing.
            QueryError: The query is empty, of another type, or of a task that no example has.
            EmbeddingError: The query's embedding does not fit.
        """
        query, task = self._asked(variables)
        return self.selector.select(query, task=task)

    async def aselect(self, **variables: Any) -> Selection:
        """As ``select``; what is asked concurrently is computed in one batched pass.

        Prompts call their functions synchronously. To format many at once, await the selection and give the prompt
        ``render_value`` of it as an ordinary variable.
        """
        query, task = self._asked(variables)
        return await self.selector.aselect(query, task=task)

    def _asked(self, variables: Mapping[str, Any]) -> tuple[Any, str | None]:
        """The query and its task, which counts only where examples have tasks; "" is a variable not yet filled in."""
        pool = self.selector.pool
        tag = variables.get(pool.schema.task) if pool.schema.task else None
        tagged = not is_missing(tag) and tag != "" and any(demonstration.task is not None for demonstration in pool)
        task = render_value(tag) if tagged else None
        if self.query_var is None:
            return {key: value for key, value in variables.items() if key != pool.schema.task}, task
        if self.query_var in variables:
            return variables[self.query_var], task
        raise MissingKeyError(
            f"the prompt has no variable {self.query_var!r} that would hold the query; it has {sorted(variables)}. "
            f"Format it with {self.query_var}=…, or name the right variable in query_var."
        )

    def _written(self, shown: Iterable[Demonstration]) -> str:
        template = self.selector.settings.template
        return template.separator.join(map(template.render, shown))

    def _shown(self, variables: Mapping[str, Any]) -> Sequence[Demonstration]:
        """What a prompt shows: the choice, or the longest examples where the prompt is only measured.

        Engines measure a prompt by formatting it with "" for each variable that is not filled in, that of the
        examples among them; a real query that is empty comes without that one.
        """
        blank = {key for key, value in variables.items() if isinstance(value, str) and not value}
        query = set(self.selector.pool.schema.inputs if self.query_var is None else (self.query_var,))
        return self._longest() if query < blank else self.select(**variables).demonstrations

    def _longest(self) -> list[Demonstration]:
        """Examples that take no less room than those of any prompt."""
        settings, shown, tokens = self.selector.settings, list[Demonstration](), 0
        written = settings.template.render
        for demonstration in nlargest(settings.largest_k, self.selector.pool, key=lambda each: len(written(each))):
            if settings.budget is not None and tokens > settings.budget:
                break
            shown.append(demonstration)
            tokens += settings.count_tokens(written(demonstration) + settings.template.separator)
        return shown

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
