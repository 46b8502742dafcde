"""An embedded pool that can be changed: examples are added, replaced and removed, all or none."""

from collections.abc import Iterable
from dataclasses import replace

from kdprompt.pool.embedding import Embedder
from kdprompt.pool.pool import Pool
from kdprompt.selection.embedded_pool import EmbeddedPool, Record
from kdprompt.settings import Settings

__all__ = ["EditablePool"]


class EditablePool:
    """Holds an embedded pool; each change takes the place of the whole at once.

    Attributes:
        settings: How outputs are seen, budget and quota: every pool must fit them.
    """

    def __init__(self, pool: EmbeddedPool, settings: Settings) -> None:
        self.settings = settings
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """The demonstrations."""
        return self._pool.pool

    @property
    def embedder(self) -> Embedder:
        """Embeds examples and queries; another one must embed alike."""
        return self._pool.embedder

    @embedder.setter
    def embedder(self, embedder: Embedder) -> None:
        self._pool = replace(self._pool, embedder=embedder)

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
        before = self._pool
        self._pool = before.with_records(examples, self.settings)
        return [demonstration.id for demonstration in self.pool.demonstrations[len(before.pool) :]]

    def update(self, ident: str, example: Record) -> None:
        """Puts another example in the place of one, under the same id. On an error nothing has changed.

        Raises:
            PoolError: The id is not in the pool.
            MissingKeyError, PoolError, EmbeddingError: As ``DistillationSelector.from_examples``.
        """
        self._pool = self._pool.with_changed(ident, example, self.settings)

    def remove(self, ids: str | Iterable[str]) -> None:
        """Removes examples by id. All or none. The calibration is kept.

        Raises:
            PoolError: An id is not in the pool, or fewer than k examples would be left.
        """
        self._pool = self._pool.without({ids} if isinstance(ids, str) else ids, self.settings)
