"""How deeply values may be nested: what works with them further on follows them by recursion."""

from collections.abc import Iterable, Mapping

from kdprompt.pool.records import IMMUTABLE

__all__ = ["MAX_DEPTH", "check_nesting", "is_too_deep"]

MAX_DEPTH = 100


def is_too_deep(value: object) -> bool:
    """Whether lists, tuples and mappings are nested more than ``MAX_DEPTH`` levels deep; one that holds itself is."""
    level = {id(value): value}  # each once, however often it stands there
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return False
        level = {id(inner): inner for item in level.values() for inner in _list_items(item)}
    return bool(level)


def _list_items(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def check_nesting(value: object, where: str, error: type[Exception]) -> None:
    """Refuses an example that is nested too deeply.

    Raises:
        Exception: ``error``: it is; the message begins with ``where``.
    """
    if type(value) is dict and IMMUTABLE.issuperset(map(type, value.values())):  # nearly all of them
        return
    if is_too_deep(value):
        raise error(f"{where} is nested more than {MAX_DEPTH} levels deep; give text, or values with fewer levels")
