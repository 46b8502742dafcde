"""Text from anywhere, fit to be shown: signs that steer a terminal, or that nobody sees, are escapes."""

import json
import math
import re
from collections.abc import Mapping

__all__ = ["make_json_printable", "make_printable", "to_json_line"]

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline; C1 holds another CSI and OSC
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # writing direction
    "\u2028\u2029\u200b\u2060-\u2064\ufeff\ufff9-\ufffb"  # line separators, signs that are not seen
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, tags
)
_NOT_ASCII = re.compile("[^\t\n\x20-\x7e]")


def make_printable(text: str) -> str:
    r"""Text with escapes for signs that would steer a terminal, or that nobody sees; newlines and tabs stay.

    Example:
        >>> print(make_printable("red: \x1b[31m, right to left: \u202e, [x]"))
        red: \x1b[31m, right to left: \u202e, [x]
    """
    return _STEERING.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def to_json_line(value: object, *, ascii_only: bool = False) -> str:
    r"""A value as JSON on one line that every reader takes, and that can be shown on a terminal.

    Numbers that JSON does not have (NaN, infinity) become null; what JSON has no form for, text.

    Args:
        value: Mappings, lists, texts, numbers.
        ascii_only: Whether every other sign is an escape too.

    Example:
        >>> print(to_json_line({"score": float("nan"), "text": "zażółć\x9b"}))
        {"score": null, "text": "zażółć\u009b"}
    """
    text = json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False, default=str)
    return make_json_printable(text, ascii_only=ascii_only)


def make_json_printable(text: str, *, ascii_only: bool = False) -> str:
    r"""JSON with escapes for signs that would steer a terminal, or that nobody sees; it says what it said before.

    Args:
        text: JSON, of one line or of several.
        ascii_only: Whether every other sign is an escape too, for a console that has no sign for it.

    Example:
        >>> print(make_json_printable('{"text": "zażółć\x7f"}'))
        {"text": "zażółć\u007f"}
    """
    return (_NOT_ASCII if ascii_only else _STEERING).sub(_escape_in_json, text)


def _escape_in_json(sign: re.Match[str]) -> str:
    units = sign[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
