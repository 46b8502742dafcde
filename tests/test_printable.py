"""Text that is shown holds nothing that steers a terminal, and JSON lines are JSON for every reader."""

import json
import math
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from kdprompt.printable import make_json_printable, make_printable, to_json_line

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
DIRECTION = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def steers(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or sign in DIRECTION


@given(ANY_TEXT)
def test_what_is_shown_steers_nothing_and_keeps_every_other_sign(text):
    shown = make_printable(text)
    assert not any(steers(sign) for sign in shown if sign not in "\n\t")
    shown.encode("utf-8")
    assert make_printable(shown) == shown
    if not any(steers(sign) or unicodedata.category(sign) == "Cf" for sign in text if sign not in "\n\t"):
        assert shown == text


def test_escapes_name_the_sign():
    shown = make_printable("\x1b]0;title\x07 \u202egnirts \x9b31m \U000e0041 a\r\nb\tc")
    assert shown == "\\x1b]0;title\\x07 \\u202egnirts \\x9b31m \\U000e0041 a\\r\nb\tc"
    emoji = "👩\u200d👩\u200d👧 می\u200cخواهم"  # joiners are part of emoji and of Persian words
    assert make_printable(emoji) == emoji


def expected(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [expected(item) for item in value]
    if isinstance(value, dict):
        return {key: expected(item) for key, item in value.items()}
    return value


@given(VALUES)
def test_a_json_line_is_strict_json_on_one_line_that_steers_nothing(value):
    def refuse(constant):
        raise AssertionError(constant)

    for ascii_only in (False, True):
        line = to_json_line(value, ascii_only=ascii_only)
        assert len(line.splitlines()) == 1 and not any(map(steers, line))
        assert json.loads(line, parse_constant=refuse) == expected(value)
    assert line.isascii()


@given(VALUES)
def test_json_of_several_lines_says_what_it_said(value):
    text = json.dumps(value, ensure_ascii=False, indent=2)
    for ascii_only in (False, True):
        shown = make_json_printable(text, ascii_only=ascii_only)
        assert not any(steers(sign) for sign in shown if sign not in "\n\t")
        assert repr(json.loads(shown)) == repr(json.loads(text))  # NaN too
    assert shown.isascii()


def test_every_sign_that_steers_is_an_escape_in_json():
    signs = "".join(sign for sign in map(chr, range(0x110000)) if steers(sign))
    assert not any(map(steers, to_json_line(signs))) and json.loads(to_json_line(signs)) == json.loads(
        json.dumps(signs)
    )
    assert to_json_line("\x7f \U000e0041 \ud800") == r'"\u007f \udb40\udc41 \ud800"'
