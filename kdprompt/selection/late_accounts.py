"""Selections that are accounted for when somebody looks."""

import threading
from functools import cached_property
from typing import Any

from kdprompt.pool.records import Demonstration
from kdprompt.selection.accounting import Prompts, compute_fields
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.origin import NoPartOfValue, SelectionOrigin
from kdprompt.selection.result import Selection

__all__ = ["account"]


def account(context: SelectionContext, prompts: Prompts) -> list[Selection]:
    """Selections that know their demonstrations, and how to compute the rest.

    Args:
        context: The pool, the settings and J's parameters.
        prompts: ``b`` prompts; they are accounted for together.

    Returns:
        One selection a prompt.
    """
    batch = _Batch(context, prompts)
    rows = prompts.rows.tolist()
    return [
        Selection.without_late_fields(
            _PromptSource(batch, place, [row for row in rows[place] if row >= 0]),
            query=query,
            weights=context.parameters.weights,
            prefix_length=prompts.prefix_length,
        )
        for place, query in enumerate(prompts.queries)
    ]


class _Batch:
    """Prompts that are accounted for together, once, by the thread that looks first."""

    def __init__(self, context: SelectionContext, prompts: Prompts) -> None:
        self.context, self.prompts = context, prompts
        self._lock = threading.Lock()
        self._fields: list[dict[str, Any]] | None = None

    def fields(self, place: int) -> dict[str, Any]:
        """What is reported of one of the prompts."""
        with self._lock:
            if self._fields is None:
                self._fields = compute_fields(self.context, self.prompts)
            return self._fields[place]


class _PromptSource(NoPartOfValue):
    """One prompt of a batch, as ``SelectionSource``; no part of a selection's value."""

    def __init__(self, batch: _Batch, place: int, rows: list[int]) -> None:
        self._batch: _Batch | None = batch
        self._place, self._rows = place, rows
        self._context, self._encoded, self._texts = batch.context, batch.prompts.encoded, batch.prompts.texts
        self._is_static = batch.prompts.queries[place] is None

    @cached_property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        return tuple(self._context.pool.demonstration(row) for row in self._rows)

    @cached_property
    def origin(self) -> SelectionOrigin:
        if self._is_static:
            return SelectionOrigin(self._context, self._encoded, self._texts, is_static=True)
        part = slice(self._place, self._place + 1)
        return SelectionOrigin(self._context, self._encoded.part(part), self._texts[part])

    def compute_fields(self) -> dict[str, Any]:
        batch = self._batch
        return {} if batch is None else batch.fields(self._place)

    def release(self) -> None:
        self._batch = None
