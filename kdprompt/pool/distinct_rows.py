"""Which demonstration stands at which row of a pool's tensors, kept as the pool changes.

A row is a distinct (input, output, task). Of demonstrations that repeat one another the one with the lowest id stands
there. Rows stay where they are when others come and go: newcomers stand behind, and whoever leaves leaves a gap.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kdprompt.pool.records import Demonstration
from kdprompt.pool.text_column import Numbers

__all__ = ["Content", "DistinctRows", "RowChange", "content_of"]

Content = tuple[str, str | None, str | None]
FEW = 64  # ids that are put in their places one by one


def content_of(shown: Demonstration) -> Content:
    """What makes a demonstration distinct: input, output and task."""
    return shown.input, shown.output, shown.task


@dataclass(frozen=True)
class RowChange:
    """What a change of the pool does to the rows.

    Attributes:
        left: Rows that are gaps now.
        joined: Demonstrations at new rows, in the order of the rows.
        leaving: Places, ascending, in the order of ids before, of ids that stand there no more.
        arriving: Places, ascending, in that order without those, before which other ids stand now.
        arrived: Row of each of these.
    """

    left: list[int]
    joined: list[Demonstration]
    leaving: list[int]
    arriving: list[int]
    arrived: list[int]


@dataclass(frozen=True)
class DistinctRows:
    """The distinct demonstrations of a pool, by row, by content and by id.

    Attributes:
        ids: Id at each row; "" at a gap.
        by_content: Row of each content.
        repeats: All ids, ascending, of each content that occurs more than once.
        ordered: The ids that stand at a row, ascending.
    """

    ids: list[str]
    by_content: dict[Content, int]
    repeats: dict[Content, list[str]]
    ordered: list[str]

    @classmethod
    def build(
        cls, ids: Sequence[str], contents: Sequence[Content], order: list[int], numbers: Iterable[int]
    ) -> "tuple[DistinctRows, Numbers]":
        """Rows in the order of ids, and the place in the pool of each ``[n]``.

        Args:
            ids: Of all demonstrations.
            contents: What makes each of them distinct.
            order: Their places in the order of ids.
            numbers: 0, 1, … as somebody holds them already: 32 bytes each where they are made anew.
        """
        rows = [0] * len(ids)
        for row, place in zip(numbers, order, strict=True):
            rows[place] = row
        by_content: dict[Content, int] = dict(zip(contents, rows, strict=True))  # in the order in which they lie
        if len(by_content) == len(ids):
            standing = [ids[place] for place in order]
            return cls(standing, by_content, {}, standing), np.array(order, dtype=np.int64)
        by_content.clear()
        repeats: dict[Content, list[str]] = {}
        places: list[int] = []
        for place in order:
            content = contents[place]
            row = by_content.setdefault(content, len(places))
            if row == len(places):
                places.append(place)
            else:
                repeats.setdefault(content, [ids[places[row]]]).append(ids[place])
        standing = [ids[place] for place in places]
        return cls(standing, by_content, repeats, standing), np.array(places, dtype=np.int64)

    @property
    def gaps(self) -> int:
        """Rows at which nobody stands."""
        return len(self.ids) - len(self.ordered)

    def change(self, gone: Iterable[Demonstration], added: Iterable[Demonstration]) -> "tuple[DistinctRows, RowChange]":
        """The rows after some demonstrations have left and others have come; what they were stays as it is."""
        after = DistinctRows(self.ids.copy(), self.by_content.copy(), self.repeats.copy(), self.ordered.copy())
        touched = {after._take_out(shown) for shown in gone}
        joined = []
        for shown in added:
            if content_of(shown) not in after.by_content:
                joined.append(shown)
            touched.add(after._put_in(shown))
        before = {row: self.ids[row] if row < len(self.ids) else "" for row in sorted(touched)}
        changed = {row: ident for row, ident in before.items() if after.ids[row] != ident}
        left = [row for row in changed if not after.ids[row]]
        leaving = sorted(bisect_left(self.ordered, ident) for ident in changed.values() if ident)
        for place in reversed(leaving):
            del after.ordered[place]
        arrived = sorted((row for row in changed if after.ids[row]), key=after.ids.__getitem__)
        arriving = [bisect_left(after.ordered, after.ids[row]) for row in arrived]
        after._stand_in_order([after.ids[row] for row in arrived])
        return after, RowChange(left, joined, leaving, arriving, arrived)

    def _take_out(self, shown: Demonstration) -> int:
        content = content_of(shown)
        row = self.by_content[content]
        others = [ident for ident in self.repeats.pop(content, ()) if ident != shown.id]
        self.ids[row] = others[0] if others else ""
        if not others:
            del self.by_content[content]
        elif len(others) > 1:
            self.repeats[content] = others
        return row

    def _put_in(self, shown: Demonstration) -> int:
        content = content_of(shown)
        row = self.by_content.setdefault(content, len(self.ids))
        if row == len(self.ids):
            self.ids.append(shown.id)
        else:
            self.repeats[content] = sorted([*self.repeats.get(content, [self.ids[row]]), shown.id])
            self.ids[row] = self.repeats[content][0]
        return row

    def _stand_in_order(self, ids: Sequence[str]) -> None:
        if len(ids) > FEW:
            self.ordered.extend(ids)
            self.ordered.sort()
        else:
            for ident in ids:
                insort(self.ordered, ident)
