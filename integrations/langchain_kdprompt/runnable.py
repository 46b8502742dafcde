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
        """The examples for each query; with ``return_exceptions`` one that fails is its exception."""
        examples_of: dict[int, Any] = {}

        def select_together(_: Variables) -> Examples:
            try:
                examples_of.update(enumerate(self.selector.select_batch(inputs)))
            except Exception:
                if not return_exceptions:
                    raise
                for i, variables in enumerate(inputs):  # who is at fault
                    try:
                        examples_of[i] = self.selector.select_examples(variables)
                    except Exception as error:
                        examples_of[i] = error
            return []

        if inputs:
            first = config[0] if isinstance(config, list) else config
            self._call_with_config(select_together, inputs[0], first)
        return [examples_of[i] for i in range(len(inputs))]
