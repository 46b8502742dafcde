"""Text from anywhere, fit to be shown: signs that steer a terminal, or that nobody sees, are escapes."""

import json
import math
import re
from collections.abc import Mapping

__all__ = ["make_printable", "to_json_line"]

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline; C1 holds another CSI and OSC
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # writing direction
    "\u2028\u2029\u200b\u2060-\u2064\ufeff\ufff9-\ufffb"  # line separators, signs that are not seen
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, tags
)


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
    text = json.dumps(_without_nan(value), ensure_ascii=ascii_only, allow_nan=False, default=str)
    return _STEERING.sub(lambda sign: json.dumps(sign[0])[1:-1], text)


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
