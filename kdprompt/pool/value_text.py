"""Values of any kind as text, by which examples are shown and told apart; and what counts as no value."""

import json
from collections.abc import Iterable, Mapping

__all__ = ["can_be_written", "check_text", "is_missing", "render_value"]


def render_value(value: object) -> str:
    """A value as text: strings as they are, everything else as JSON where it can be, else as Python writes it.

    Equal values have equal texts, and others other ones: arrays and frames are written whole, their scalars as
    Python's, sets in order, wherever they stand.

    Raises:
        ValueError: It holds a number with more digits than Python writes (4,300).

    Example:
        >>> render_value("plain"), render_value(["a", 1]), render_value({"x": True})
        ('plain', '["a", 1]', '{"x": true}')
    """
    value = value if isinstance(value, str) else _plain(value)
    if isinstance(value, str):
        return value
    if isinstance(value, set | frozenset):
        return _write(set(value))
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain_or_refuse)
    except (TypeError, ValueError):
        return _write(value)


def _write(value: object) -> str:
    """A value as Python writes it, but whole and in an order that does not depend on the process."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_write_inner(key)}: {_write_inner(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, set | frozenset):
        inner = "{" + ", ".join(sorted(map(_write_inner, value))) + "}" if value else ""
        return f"frozenset({inner})" if isinstance(value, frozenset) else inner or "set()"
    if type(value) is list:
        return "[" + ", ".join(map(_write_inner, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(_write_inner, value)) + (",)" if len(value) == 1 else ")")
    return str(value)


def _write_inner(value: object) -> str:
    """A value within another one: texts in quotes, and what is no container as it represents itself."""
    plain = _plain(value)
    return _write(plain) if isinstance(plain, Mapping | set | frozenset | list | tuple) else repr(plain)


def _plain(value: object) -> object:
    """Arrays, frames and scalars of numpy, torch and pandas as Python's own; anything else as it is."""
    if isinstance(value, type):
        return value
    if _is_time(value):
        return value.astype(str).tolist()  # type: ignore[attr-defined]
    if callable(to_list := getattr(value, "tolist", None)):
        return to_list()
    if hasattr(value, "columns") and callable(to_dict := getattr(value, "to_dict", None)):
        return to_dict("list") if hasattr(value, "iloc") else to_dict(as_series=False)  # pandas, polars
    return value


def _is_time(value: object) -> bool:
    """Whether it is a time of numpy, alone or in an array, which would come as a number of nanoseconds."""
    return getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m") and hasattr(value, "astype")


def _plain_or_refuse(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(value, key=_write_inner)
    plain = _plain(value)
    if plain is value:
        raise TypeError
    return plain


def is_missing(value: object) -> bool:
    """Whether a value says that there is none: None, a NaN of any library, pandas' NA and NaT.

    Example:
        >>> is_missing(None), is_missing(float("nan")), is_missing(""), is_missing(0)
        (True, True, False, False)
    """
    if isinstance(value, str):
        return False
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if hasattr(value, "__len__"):
        return False
    try:
        return bool(value != value)  # NaN alone differs from itself
    except Exception:  # a type of the user's own, whose comparison may do anything
        return False


def check_text(text: str, where: str, error: type[Exception]) -> None:
    """Refuses text that cannot be written as UTF-8.

    Raises:
        Exception: ``error``: half of a surrogate pair is in it, as in logs that were cut within an emoji.
    """
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        shown = ascii(text[max(0, fault.start - 20) : fault.end + 20])
        raise error(
            f"{where} holds half of a character (a lone surrogate, {text[fault.start]!a}) at position "
            f"{fault.start}: {shown}. Such text cannot be written as UTF-8; replace it, as by "
            "text.encode('utf-8', 'replace').decode()."
        ) from fault


def can_be_written(texts: Iterable[str]) -> bool:
    """Whether all texts can be written as UTF-8."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True
