"""Inputs by random changes of inputs that are at hand: thousands a second, where hypothesis draws hundreds."""

import random
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Mutator", "shrink"]

HOSTILE: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.0, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), float("-inf"), "", [], {}, "auto", "null", "NaN"),
)
HOSTILE_TEXTS = (
    *("\x1b[2J", "\x1b]0;x\x07", "\x00", "\r\n", "\n", "\t", "\x85", "\u2028", "\u202e", "\ufeff", "\ud83d", "\udc00"),
    *("{", "}", "{{", "}}", "{% ", " %}", "{# ", "{input}", "e.input", "[/]", "[red]", "|", "`", "$", "\\", '"', "'"),
    *("--", "-", "=", ",", ";", "[", "]", "1e999", "99999999999999999999", "-1", "NaN", "null", "true", "%s"),
    *("é", "İ", "ß", "a\u0301", "\U0001f468\u200d\U0001f469", "\U000e0041", "\xff", "\x1f\x8b"),
)
CHANGES = (1, 1, 1, 2, 2, 3, 5)  # of one input
DEPTHS = (1, 2, 5, 50, 150, 1200)
REPEATS = (2, 2, 3, 10, 100, 1500)
LONGEST = 5000  # letters of a text that grows by repeats


class Mutator:
    """Draws inputs of a target: each is a seed with a few changes, of its structure or of what stands in it.

    Args:
        seeds: Values of JSON; they are never changed themselves.
        draws: Where chance comes from.
    """

    def __init__(self, seeds: list[Any], draws: random.Random) -> None:
        self._seeds, self._draws = seeds, draws
        self._parts = [part for seed in seeds for part in _walk(seed)]
        keys = (key for part in self._parts if isinstance(part, dict) for key in part)
        self._texts = sorted({*keys, *(part for part in self._parts if isinstance(part, str)), *HOSTILE_TEXTS})

    def draw(self) -> Any:
        """The next input."""
        value = self._draws.choice(self._seeds)
        for _ in range(self._draws.choice(CHANGES)):
            value = self._change(value)
        return value

    def _change(self, value: Any) -> Any:
        """The value with one change, somewhere in it; what does not change is shared with the value."""
        draws = self._draws
        if isinstance(value, list | dict) and value and draws.random() < 0.7:
            key = draws.choice(list(value) if isinstance(value, dict) else range(len(value)))
            copied = value.copy()
            copied[key] = self._change(value[key])
            return copied
        if draws.random() < 0.1:
            return self._replace(value)
        if isinstance(value, list):
            return self._change_list(value)
        if isinstance(value, dict):
            return self._change_keys(value)
        return self._change_text(value) if isinstance(value, str) else self._replace(value)

    def _replace(self, value: Any) -> Any:
        draws = self._draws
        kind = draws.randrange(4)
        if kind == 0:
            return draws.choice(HOSTILE)
        if kind == 1:
            return draws.choice(self._texts)
        if kind == 2:
            return draws.choice(self._parts)
        for _ in range(draws.choice(DEPTHS)):
            value = [value] if draws.random() < 0.5 else {draws.choice(self._texts): value}
        return value

    def _change_list(self, value: list[Any]) -> list[Any]:
        draws = self._draws
        i, j = sorted((draws.randint(0, len(value)), draws.randint(0, len(value))))
        other = draws.choice(self._parts)
        kind = draws.randrange(5)
        if kind == 0:
            return value[:i] + value[j:]
        if kind == 1:
            return value[:j] + value[i:]
        if kind == 2:
            return [*value[:i], other, *value[i:]]
        if kind == 3:
            return value[:i] + (other if isinstance(other, list) else [other]) + value[j:]
        return draws.sample(value, len(value))

    def _change_keys(self, value: dict[str, Any]) -> dict[str, Any]:
        draws = self._draws
        copied, other = dict(value), draws.choice(self._parts)
        kind = draws.randrange(4 if value else 2)
        if kind == 0:
            copied[draws.choice(self._texts)] = other
        elif kind == 1:
            copied.update(other if isinstance(other, dict) else {})
        else:
            key = draws.choice(list(copied))
            moved = copied.pop(key)
            if kind == 2:
                copied[self._change_text(key)] = moved
        return copied

    def _change_text(self, value: str) -> str:
        draws = self._draws
        i, j = sorted((draws.randint(0, len(value)), draws.randint(0, len(value))))
        kind = draws.randrange(6)
        if kind == 0:
            return value[:i] + value[j:]
        if kind == 1:
            return value[:i] + value[i:j] * min(draws.choice(REPEATS), LONGEST // max(len(value), 1)) + value[j:]
        if kind == 2:
            return value[:i] + chr(draws.randrange(256)) + value[i + 1 :]
        if kind == 3:
            return value[:i] + draws.choice(HOSTILE_TEXTS) + value[i:]
        other = draws.choice(self._texts)
        return value[:i] + other[: draws.randint(0, len(other))] + value[j if kind == 4 else i :]


def _walk(value: Any) -> Iterator[Any]:
    """A value and all that is in it."""
    left = [value]
    while left:
        part = left.pop()
        yield part
        left.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())


def shrink(value: Any, fails: Callable[[Any], bool], tries: int = 3000) -> Any:
    """A smaller value that fails too: parts are left out as long as that is so.

    Args:
        value: One that fails.
        fails: Whether a value does.
        tries: Most calls of it.

    Example:
        >>> shrink([{"a": "xxyxx", "b": [1]}, 7], lambda value: "y" in str(value))
        'y'
    """
    while True:
        for smaller in _smaller(value):
            tries -= 1
            if tries < 0:
                return value
            if fails(smaller):
                value = smaller
                break
        else:
            return value


def _smaller(value: Any, depth: int = 30) -> Iterator[Any]:
    """Values with a part less: what stands in it alone, without some of it, with one part smaller."""
    if isinstance(value, str):
        yield from _cut(value)
    elif isinstance(value, list | dict):
        items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        yield from (item for _, item in items)
        yield from _cut(value) if isinstance(value, list) else map(dict, _cut(items))
        for key, item in items if depth else ():
            yield from (_with(value, key, smaller) for smaller in _smaller(item, depth - 1))


def _cut(parts: Any) -> Iterator[Any]:
    """A sequence without a half, without a quarter, and so on down to one element."""
    size = (len(parts) + 1) // 2
    while size:
        yield from (parts[:i] + parts[i + size :] for i in range(0, len(parts), size))
        size //= 2


def _with(value: Any, key: Any, item: Any) -> Any:
    copied = value.copy()
    copied[key] = item
    return copied
