"""Many texts one behind the other, as bytes: what a file holds of them, decoded when they are asked for."""

from collections.abc import Sequence
from itertools import pairwise
from operator import lt
from typing import overload

import numpy as np
import numpy.typing as npt

__all__ = ["TextColumn"]

Numbers = npt.NDArray[np.int64]
BLANK = np.ones(256, dtype=bool)  # what may begin a blank text: not a letter or a sign of ASCII
BLANK[0x21:0x7F] = False
HEAD, INNER = 0xC0, 0x80  # bytes within a character of UTF-8 are 10xxxxxx


class TextColumn(Sequence[str]):
    """Texts in UTF-8.

    Args:
        content: The bytes of all of them.
        ends: Where each text ends ``[n]``, int64: it begins where the one before it ends.

    Raises:
        ValueError: The ends do not ascend to the end of the content.

    Example:
        >>> list(TextColumn.of(["one", "", "zwölf"]))
        ['one', '', 'zwölf']
    """

    def __init__(self, content: bytes, ends: Numbers) -> None:
        self.content = content
        self.bounds: Numbers = np.concatenate([np.zeros(1, np.int64), ends])
        if self.bounds[-1] != len(content) or bool((self.bounds[1:] < self.bounds[:-1]).any()):
            raise ValueError(f"their ends must ascend to {len(content)}")

    @classmethod
    def of(cls, texts: Sequence[str], errors: str = "strict") -> "TextColumn":
        """A column of texts; ``errors`` as ``str.encode`` takes it."""
        written = [text.encode(errors=errors) for text in texts]
        return cls(b"".join(written), np.cumsum(list(map(len, written)), dtype=np.int64))

    @property
    def ends(self) -> Numbers:
        """Where each text ends ``[n]``."""
        return self.bounds[1:]

    def take_bytes(self, i: int) -> bytes:
        """The bytes of one text."""
        return self.content[self.bounds[i] : self.bounds[i + 1]]

    def to_list(self) -> list[str]:
        """All texts."""
        places = pairwise(self.bounds.tolist())
        if self.content.isascii():
            text = self.content.decode("ascii")
            return [text[begin:end] for begin, end in places]
        return [self.content[begin:end].decode() for begin, end in places]

    def find_unreadable(self) -> int | None:
        """The first text that is no UTF-8; None where all are."""
        if _is_utf_8(self.content) and not bool((self._first_bytes & HEAD == INNER).any()):
            return None
        return next((i for i in range(len(self)) if not _is_utf_8(self.take_bytes(i))), None)

    def find_blank(self) -> int | None:
        """The first text that is empty or blank; None where none is."""
        begins_blank = BLANK[self._first_bytes] | (self.bounds[1:] == self.bounds[:-1])
        return next((i for i in np.flatnonzero(begins_blank).tolist() if not self[i].strip()), None)

    @property
    def _first_bytes(self) -> npt.NDArray[np.uint8]:
        """The first byte of each text; of an empty one any."""
        return np.frombuffer(self.content + b" ", dtype=np.uint8)[self.bounds[:-1]]

    def ascends(self, order: Numbers) -> bool:
        """Whether each text is greater than the one before it, taken in an order ``[n]`` of places."""
        widths = np.diff(self.bounds)
        width = int(widths[0]) if len(widths) else 0
        if width and bool((widths == width).all()) and b"\0" not in self.content:  # UTF-8 sorts as its characters do
            sorted_bytes = np.frombuffer(self.content, dtype=f"S{width}")[order]
            return bool((sorted_bytes[:-1] < sorted_bytes[1:]).all())
        texts = self.to_list()
        in_order = [texts[place] for place in order.tolist()]
        return all(map(lt, in_order, in_order[1:]))

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[place] for place in range(len(self))[i]]
        return self.take_bytes(range(len(self))[i]).decode()

    def __len__(self) -> int:
        return len(self.bounds) - 1


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
