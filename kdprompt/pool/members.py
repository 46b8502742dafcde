"""The demonstrations of a pool in their order; those of a file stay unread until somebody asks for them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from operator import attrgetter
from typing import TypeVar, cast, overload

from kdprompt.pool.distinct_rows import Content
from kdprompt.pool.late_examples import LateExamples
from kdprompt.pool.records import Demonstration

__all__ = ["Members"]

Entry = Demonstration | int  # a number is the place of an unread one in the file
T = TypeVar("T")


class Members(Sequence[Demonstration]):
    """Demonstrations, unread ones among them. Immutable; a change makes a new one and reads none.

    Args:
        entries: Each demonstration, or its place in the file.
        source: Where the unread ones are; None: there are none.
    """

    def __init__(self, entries: Iterable[Entry], source: LateExamples | None = None) -> None:
        self._entries: Sequence[Entry] = entries if isinstance(entries, range) else tuple(entries)
        self._source = source

    @classmethod
    def of_file(cls, source: LateExamples) -> "Members":
        """All examples of a file, unread."""
        return cls(range(len(source)), source)

    def with_added(self, added: Iterable[Demonstration]) -> "Members":
        """With more behind."""
        return Members((*self._entries, *added), self._source)

    def with_changed(self, at: int, changed: Demonstration) -> "Members":
        """With another one in a place."""
        return Members((*self._entries[:at], changed, *self._entries[at + 1 :]), self._source)

    def kept(self, stays: Iterable[int]) -> "Members":
        """Those at which ``stays`` is not 0."""
        return Members(compress(self._entries, stays), self._source)

    def list_ids(self) -> list[str]:
        """The id of each."""
        return self._list(attrgetter("id"), lambda source: source.id_list)

    def list_inputs(self) -> list[str]:
        """The input of each."""
        return self._list(attrgetter("input"), lambda source: source.inputs.to_list())

    def list_pairs(self) -> list[tuple[str | None, str | None]]:
        """(task, output) of each."""
        return self._list(
            attrgetter("task", "output"),
            lambda source: list(zip(source.tasks.to_list(), source.outputs.to_list(), strict=True)),
        )

    def list_contents(self) -> list[Content]:
        """What makes each distinct."""
        pairs = zip(self.list_inputs(), self.list_pairs(), strict=True)
        return [(text, output, task) for text, (task, output) in pairs]

    def _list(self, of: Callable[[Demonstration], T], stored: Callable[[LateExamples], list[T]]) -> list[T]:
        if self._source is None:
            return list(map(of, cast(Iterable[Demonstration], self._entries)))
        column = stored(self._source)
        if self._is_file:
            return column
        return [column[one] if isinstance(one, int) else of(one) for one in self._entries]

    def order_by_id(self) -> list[int]:
        """Places in the order of ids."""
        if self._source is not None and self._is_file:
            order: list[int] = self._source.order.tolist()
            return order
        return sorted(range(len(self)), key=self.list_ids().__getitem__)

    def has_distinct(self, count: int) -> bool:
        """Whether it is quickly seen that there are so many distinct ones (by input, output and task)."""
        return self._source is not None and self._is_file and self._source.has_distinct(count)

    @property
    def _is_file(self) -> bool:
        """Whether they are all that the file holds, in its order."""
        return isinstance(self._entries, range)

    def _read(self, entry: Entry) -> Demonstration:
        if isinstance(entry, Demonstration):
            return entry
        assert self._source is not None
        return self._source.make(entry)

    @overload
    def __getitem__(self, i: int) -> Demonstration: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[Demonstration, ...]: ...
    def __getitem__(self, i: int | slice) -> Demonstration | tuple[Demonstration, ...]:
        found = self._entries[i]
        return self._read(found) if isinstance(found, Demonstration | int) else tuple(map(self._read, found))

    def __iter__(self) -> Iterator[Demonstration]:
        return map(self._read, self._entries)

    def __len__(self) -> int:
        return len(self._entries)
