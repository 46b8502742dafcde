"""What an example selector of LangChain does: choose examples for variables, and let its pool grow and shrink.

Validates, translates (``translation.py``), calls one function of kdprompt, translates back. The pool is in memory, or
in a vector store (``stores.py``): then the store gives the shortlist, and J is searched over it here.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar

from langchain_core.example_selectors import BaseExampleSelector
from langchain_core.messages import BaseMessage
from langchain_core.runnables import run_in_executor

from kdprompt.editable_pool import ChangedInTurn
from kdprompt.errors import PoolError
from kdprompt.explanation import Explanation
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Schema
from kdprompt.selection.result import Selection
from kdprompt.selector import DistillationSelector
from langchain_kdprompt.prompts import chat_of
from langchain_kdprompt.runnable import SelectExamples
from langchain_kdprompt.stores import StorePool
from langchain_kdprompt.translation import (
    Example,
    check_example_keys,
    copy_example,
    keep_original,
    limit_k,
    parse_example,
    to_key_tuple,
    to_record,
    uses_all_values,
)

__all__ = ["ExampleSelection"]

Changed = TypeVar("Changed")


class ExampleSelection(ChangedInTurn, BaseExampleSelector):
    """LangChain's interface over a kdprompt selector, or over a pool in a vector store.

    Attributes:
        selector: The kdprompt selector (pool, settings, calibration, static prompts), or the pool in a vector store.
        example_keys: Keys that selected examples are filtered to, or None.
        last_selection: The last selection with its numbers and notes; None before the first, and where the pool is in
            a vector store. Of concurrent calls, that of any.
    """

    last_selection: Selection | None = None
    _asked_k: int | Literal["auto"] | None = None

    def __init__(self, selector: DistillationSelector | StorePool, example_keys: Sequence[str] | None = None) -> None:
        """Wraps a kdprompt selector, or a pool in a vector store.

        Args:
            selector: The selector.
            example_keys: Keys to filter selected examples to; None or none keeps all.

        Raises:
            MissingKeyError: An example of the pool lacks one of the example keys.
        """
        super().__init__()
        self.selector = selector
        self.example_keys = list(to_key_tuple(example_keys, "example_keys") or ()) or None
        if isinstance(selector, DistillationSelector):
            for i, demonstration in enumerate(selector.pool):
                check_example_keys(demonstration.fields, self.example_keys, f"example {i}")

    @property
    def k(self) -> int | Literal["auto"]:
        """Examples to select, as asked for; a pool may hold fewer."""
        return self.selector.settings.k if self._asked_k is None else self._asked_k

    def _ask_for(self, k: int | Literal["auto"]) -> Self:
        """Selects k examples as soon as there are so many, until then all."""
        self._asked_k = k
        if isinstance(self.selector, DistillationSelector) and k != self.selector.settings.k:
            wanted = self.selector.settings.model_copy(update={"k": k})
            self.selector.settings = limit_k(wanted, self.selector.pool)
        return self

    def _note(self, selection: Selection) -> Selection:
        """Keeps a selection as the last one, with a note where the pool is smaller than k."""
        asked, possible = self.k, self.selector.settings.k
        if asked != "auto" and possible != "auto" and asked > possible:
            note = f"{len(selection)} of {asked} examples: the pool has no more"
            selection = selection.model_copy(update={"notes": (note, *selection.notes)})
        self.last_selection = selection
        return selection

    @property
    def schema(self) -> Schema:
        """Which keys of an example hold what."""
        return self.selector.schema if isinstance(self.selector, StorePool) else self.selector.pool.schema

    @property
    def input_keys(self) -> list[str] | None:
        """Keys of the input, or None where all values are the text."""
        return None if uses_all_values(self.schema) else list(self.schema.inputs)

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
        return self._examples(await self._achoose(input_variables))

    def select_batch(self, inputs: Sequence[Example]) -> list[list[dict[str, Any]]]:
        """The examples for each of many queries, in one pass; errors as ``select_examples``."""
        return [self._examples(shown) for shown in self._choose(inputs)]

    def select_messages(self, input_variables: Example) -> list[BaseMessage]:
        """The examples for one query as a chat, see ``langchain_kdprompt.prompts.chat_of``."""
        return chat_of(self._choose([input_variables])[0], self.schema)

    async def aselect_messages(self, input_variables: Example) -> list[BaseMessage]:
        """As ``select_messages``."""
        return chat_of(await self._achoose(input_variables), self.schema)

    def as_runnable(self) -> SelectExamples:
        """The selector as a ``Runnable`` from variables to examples, with ``batch`` in one pass."""
        return SelectExamples(self)

    def explain(self, input_variables: Example) -> Explanation:
        """Selects and explains: each example's part, and the nearest neighbours' terms; ``str()`` is the page."""
        return self.selector.explain(to_record(input_variables, self.schema))

    def _choose(self, inputs: Sequence[Example]) -> list[tuple[Demonstration, ...]]:
        records = [to_record(variables, self.schema) for variables in inputs]
        if isinstance(self.selector, StorePool):
            return self.selector.select_demonstrations(records)
        return [self._note(selection).demonstrations for selection in self.selector.select_batch(records)]

    async def _achoose(self, input_variables: Example) -> tuple[Demonstration, ...]:
        if isinstance(self.selector, StorePool):
            return (await run_in_executor(None, self._choose, [input_variables]))[0]
        return self._note(await self.selector.aselect(to_record(input_variables, self.schema))).demonstrations

    def _examples(self, shown: Sequence[Demonstration]) -> list[dict[str, Any]]:
        examples = [copy.deepcopy(dict(demonstration.fields)) for demonstration in shown]
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
        original = self._check(example)
        with self._change_lock:
            selector = self.selector
            if isinstance(selector, StorePool):
                return selector.add(original)
            pool = selector.pool
            after = pool.with_records([to_record(original, pool.schema)])
            shown = keep_original(after[len(pool)], original)
            return self._change(selector, lambda: selector.add_example(shown), lambda: after)

    def update(self, ident: str, example: Example) -> None:
        """Puts another example in the place of one, under the same id; on an error nothing has changed.

        Raises:
            PoolError: There is no such id; a store that cannot find examples by id may keep silent.
            MissingKeyError, PoolError, EmbeddingError: As ``from_examples``.
        """
        original = self._check(example)
        shown = parse_example(original, self.schema).model_copy(update={"id": ident})
        with self._change_lock:
            selector = self.selector
            if isinstance(selector, StorePool):
                selector.update(shown)
                return
            self._change(
                selector, lambda: selector.update(ident, shown), lambda: selector.pool.with_changed(ident, shown)
            )

    def remove(self, ids: str | Iterable[str]) -> None:
        """Removes examples by id, all or none. Where fewer than k are left, all of them are selected.

        Raises:
            PoolError: There is no such id, or a pool in memory would be empty; a store that cannot find examples by
                id may keep silent.
        """
        gone = [ids] if isinstance(ids, str) else list(ids)
        with self._change_lock:
            selector = self.selector
            if isinstance(selector, StorePool):
                selector.remove(gone)
                return
            self._change(selector, lambda: selector.remove(gone), lambda: selector.pool.without(gone))

    def _change(
        self, selector: DistillationSelector, change: Callable[[], Changed], build_after: Callable[[], Pool]
    ) -> Changed:
        """Changes a pool in memory, and k with it where that is more than there is, or was."""
        before, self._asked_k = selector.settings, self.k
        try:
            changed = change()
        except PoolError:
            fitting = limit_k(before, build_after())
            if fitting.k == before.k:
                raise
            selector.settings = fitting
            try:
                changed = change()
            except BaseException:
                selector.settings = before
                raise
        self._ask_for(self._asked_k)
        return changed

    async def aadd_example(self, example: Example) -> str:
        """As ``add_example``, in an executor."""
        return await run_in_executor(None, self.add_example, example)

    async def aupdate(self, ident: str, example: Example) -> None:
        """As ``update``, in an executor."""
        await run_in_executor(None, self.update, ident, example)

    async def aremove(self, ids: str | Iterable[str]) -> None:
        """As ``remove``, in an executor."""
        await run_in_executor(None, self.remove, ids)

    def _check(self, example: Example) -> Example:
        original = copy_example(example, "the example")
        check_example_keys(original, self.example_keys, "the example")
        return original
