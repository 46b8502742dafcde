"""Under which of its ids a vector store holds an example.

Two ids of the store belong to an example. One that takes another's place is added under the free one, and then the
other is deleted: if the store or its embedder fails, the other is still there.

Rejected: adding under the id that is taken (some stores replace, some refuse, some hold both); deleting first.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from kdprompt.errors import PoolError

__all__ = ["StorePlaces", "id_of", "list_places"]

NAMESPACE = uuid.UUID("6e0c1f5e-6d1c-5b5a-9d0b-2f3f0f7c9a11")  # some stores want UUIDs: theirs are made of ours
AT_ONCE = 1000  # ids that a store is asked for in one call


class StorePlaces:
    """Says which ids of a store hold which examples.

    Attributes:
        can_say: Whether the store finds documents by id; of one that does not, what was added here is known.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.can_say = type(store).get_by_ids is not VectorStore.get_by_ids
        self._added: dict[str, str] = {}

    def both(self, ident: str) -> tuple[str, str]:
        """The two ids of the store that belong to an example."""
        return list_places(str(getattr(self.store, "collection_name", "")), ident)

    def held(self, ident: str) -> list[str]:
        """Those under which the store holds it: none where it does not, both where a change was broken off."""
        if not self.can_say:
            return [self._added[ident]] if ident in self._added else []
        return [place for place in self.both(ident) if self.store.get_by_ids([place])]

    def require(self, ident: str) -> list[str]:
        """As ``held``; a store that cannot say is taken to hold what others may have added.

        Raises:
            PoolError: The store has no such example.
        """
        held = self.held(ident)
        if held or not self.can_say:
            return held or [self.both(ident)[0]]
        raise PoolError(f"the store has no example with the id {ident!r} that was added by kdprompt; nothing changed")

    def free(self, ident: str, held: str) -> str:
        """The one of both that is not held."""
        first, second = self.both(ident)
        return second if held == first else first

    def note(self, ident: str, place: str | None) -> None:
        """Remembers where an example is, for a store that cannot say; None: nowhere."""
        if place is None:
            self._added.pop(ident, None)
        elif not self.can_say:
            self._added[ident] = place

    def clear_second(self, idents: Iterable[str]) -> None:
        """Deletes what changes of former times left under second ids of examples that were added anew."""
        if not self.can_say:
            return
        second = [self.both(ident)[1] for ident in idents]
        for start in range(0, len(second), AT_ONCE):
            stale = [id_of(document) for document in self.store.get_by_ids(second[start : start + AT_ONCE])]
            if stale:
                self.store.delete(stale)


def list_places(collection: str, ident: str) -> tuple[str, str]:
    """The store's two ids; some keep the ids of all collections in one table, so the collection is part of them."""
    name = f"{collection}\0{ident}"
    return str(uuid.uuid5(NAMESPACE, name)), str(uuid.uuid5(NAMESPACE, f"{name}\0changed"))


def id_of(document: Document) -> str:
    """The store's id of a document that it found."""
    return str(document.id or document.metadata.get("_id") or document.page_content)
