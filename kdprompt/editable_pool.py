"""An embedded pool that can be changed: examples are added, replaced and removed, all or none."""

import copy
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from kdprompt.forked_workers import guard_forks
from kdprompt.observation import observe
from kdprompt.pool.embedders import AnyEmbedder, as_embedder
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.example_forms import list_examples
from kdprompt.pool.fingerprint import Fingerprint, check_fingerprint
from kdprompt.pool.late_value import LateValue
from kdprompt.pool.pool import Pool
from kdprompt.pool.row_index import IndexReport, RowIndex
from kdprompt.selection.embedded_pool import EmbeddedPool, Record
from kdprompt.settings import Settings
from kdprompt.short_repr import shorten

__all__ = ["ChangedInTurn", "EditablePool"]

logger = logging.getLogger(__name__)


class ChangedInTurn:
    """Has a lock by which one change follows the other; copies and pickles get one of their own."""

    def __init__(self) -> None:
        self._change_lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep: all but the lock, which belongs to this one."""
        return {name: value for name, value in vars(self).items() if name != "_change_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._change_lock = threading.Lock()


class EditablePool(ChangedInTurn):
    """Holds an embedded pool; each change takes the place of the whole at once.

    Threads may change it at the same time: one change follows the other, and none is lost. Who reads goes on with the
    pool that it began with.

    Attributes:
        settings: How outputs are seen, budget and quota: every pool must fit them.
    """

    def __init__(self, pool: EmbeddedPool, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self._pool = pool
        guard_forks()

    def __repr__(self) -> str:
        embedder = shorten(repr(self.embedder), 80)
        return f"{type(self).__name__}({len(self.pool)} demonstrations, {embedder}, {self.settings!r})"

    @property
    def pool(self) -> Pool:
        """The demonstrations."""
        return self._pool.pool

    @property
    def embedder(self) -> Embedder:
        """Embeds examples and queries.

        Another one may be put in its place that embeds alike, on another device say: it is asked for one text.

        Raises:
            EmbeddingError: It embeds the first input of the pool otherwise than the pool holds it, or fails.
        """
        return self._pool.embedder

    @embedder.setter
    def embedder(self, embedder: AnyEmbedder) -> None:
        used, pool = as_embedder(embedder), self._pool
        if used is not pool.embedder and len(pool.pool):
            held = Fingerprint.of(pool.pool[0].input, pool.embeddings.at([0])[0])
            check_fingerprint(held, used, type(pool.embedder).__qualname__)
        self._change_pool(lambda pool: replace(pool, embedder=used))

    def add_example(self, example: Record) -> str:
        """Adds one example and returns its id; see ``add_examples``."""
        return self.add_examples([example])[0]

    def add_examples(self, examples: Iterable[Record]) -> list[str]:
        """Adds examples. All or none: on an error the pool stays as it was. The calibration is kept.

        Returns:
            Their ids, in order.

        Raises:
            MissingKeyError, PoolError, EmbeddingError: As ``DistillationSelector.from_examples``.
        """
        added = list_examples(examples)
        after = self._change_pool(lambda pool: pool.with_records(added, self.settings))
        return [demonstration.id for demonstration in after.pool.members[len(after.pool) - len(added) :]]

    def update(self, ident: str, example: Record) -> None:
        """Puts another example in the place of one, under the same id. On an error nothing has changed.

        Raises:
            PoolError: The id is not in the pool.
            MissingKeyError, PoolError, EmbeddingError: As ``DistillationSelector.from_examples``.
        """
        self._change_pool(lambda pool: pool.with_changed(ident, example, self.settings))

    def remove(self, ids: str | Iterable[str]) -> None:
        """Removes examples by id. All or none. The calibration is kept.

        Raises:
            PoolError: An id is not in the pool, or fewer than k examples would be left.
        """
        gone = {ids} if isinstance(ids, str) else set(ids)
        self._change_pool(lambda pool: pool.without(gone, self.settings))

    def build_index(self, recall: float = 0.95) -> IndexReport:
        """Clusters the pool (extra ``faiss``), so that a query is compared with a part of it: for a million examples.

        Which neighbours are found is approximate from here on, how similar they are is not. Queries with a task or
        permitted outputs, and calibration, go on looking at every example; one that is added is compared with every
        query. A change that makes the pool anew drops the index, as ``index`` says. It is not saved.

        Args:
            recall: Least share of the nearest neighbours that is found on average, in (0, 1]; measured on the pool.
                ``ValueError``: it is none, or the pool is on an accelerator. ``ImportError``: there is no FAISS.
        """
        after = self._change_pool(lambda pool: _with_index(pool, recall, self.settings))
        assert after.tensors.index is not None
        return after.tensors.index.report

    @property
    def index(self) -> IndexReport | None:
        """What the pool's index holds, and its recall; None: there is none, every example is looked at."""
        index = self._pool.tensors.index
        return None if index is None else index.report

    def _change_pool(self, change: Callable[[EmbeddedPool], EmbeddedPool]) -> EmbeddedPool:
        """Puts what ``change`` makes of the pool in its place and returns it; no other change comes between."""
        with observe(logger, "change") as counts, self._change_lock:
            before = self._pool
            self._pool = changed = change(before)
            counts |= {"examples_before": len(before.pool), "examples": len(changed.pool)}
        return changed


def _with_index(pool: EmbeddedPool, recall: float, settings: Settings) -> EmbeddedPool:
    """The pool with an approximate look-up of its rows; what its tensors have computed is kept."""
    tensors = copy.copy(pool.tensors)
    vars(tensors)["index"] = RowIndex.build(tensors.x, settings.search.shortlist, recall, settings.seed)
    return replace(pool, late_tensors=LateValue.of(tensors))
