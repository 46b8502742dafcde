"""A selector as a ``Runnable``: variables in, the same with their examples out, or the examples alone."""

from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.runnables import Runnable, RunnableConfig

__all__ = ["SelectExamples"]

Variables = dict[str, Any]
Examples = list[dict[str, Any]]


class BatchSelector(Protocol):
    """A selector of examples for one query, asynchronously, or for several in one pass."""

    def select_examples(self, input_variables: Variables) -> Examples:
        """The examples for one query."""
        ...

    async def aselect_examples(self, input_variables: Variables) -> Examples:
        """The same, without holding up the event loop."""
        ...

    def select_batch(self, queries: Sequence[Variables]) -> list[Examples]:
        """The examples for each of several queries."""
        ...


class SelectExamples(Runnable[Variables, Examples]):
    """``select_examples`` in a chain: ``RunnablePassthrough.assign(examples=selector.as_runnable())``.

    A batch is computed in one pass, and so are concurrent async calls.
    """

    def __init__(self, selector: BatchSelector) -> None:
        self.selector = selector

    def invoke(self, input: Variables, config: RunnableConfig | None = None, **kwargs: Any) -> Examples:
        """The examples for one query; errors as ``select_examples``."""
        return self._call_with_config(self.selector.select_examples, input, config)

    async def ainvoke(self, input: Variables, config: RunnableConfig | None = None, **kwargs: Any) -> Examples:
        """As ``invoke``."""
        return await self._acall_with_config(self.selector.aselect_examples, input, config)

    def batch(
        self,
        inputs: list[Variables],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """The examples for each query, each with a run of its own for callbacks; errors as ``invoke``.

        With ``return_exceptions`` a query that fails has its exception.
        """
        return self._batch_with_config(self._select_together, inputs, config, return_exceptions=return_exceptions)

    def _select_together(self, inputs: list[Variables]) -> list[Exception | Examples]:
        """All in one pass; where it fails each alone, to see which query is at fault."""
        try:
            return list(self.selector.select_batch(inputs))
        except Exception as error:
            found = [self._try_one(variables) for variables in inputs]
            first = next((place for place, one in enumerate(found) if type(one) is type(error)), None)
            if first is not None:
                found[first] = error  # which says the number of the query
            return found

    def _try_one(self, variables: Variables) -> Exception | Examples:
        try:
            return self.selector.select_examples(variables)
        except Exception as error:
            return error
