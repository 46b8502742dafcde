"""Text on a terminal: what comes from files, models and names is shown as it is and never obeyed.

This is the only module of the command line that makes consoles. A string that is printed, a cell, a title and a status
are never read as rich's markup, and signs that steer a terminal (ESC, OSC and its links, overrides of the writing
direction) stand there as escapes. Styles are given as ``style=``.
"""

import codecs
import io
import sys
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from kdprompt.printable import make_printable

__all__ = ["Terminal", "plain", "prepare_streams"]

_IN_ASCII = {"…": "...", "•": "*", "–": "-", "—": "-", "−": "-", "×": "x", "’": "'", "τ": "tau", "≤": "<=", "≥": ">="}
_FEW_SIGNS = "kdprompt.few_signs"


def plain(text: object, style: str = "") -> Text:
    """Text for a terminal from anything: printable, and no markup."""
    return Text(make_printable(str(text)), style=style)


class Terminal(Console):
    """Standard output, or standard error; strings are printed as ``plain`` makes them.

    Args:
        stderr: Whether it is standard error.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text."""
        return super().render_str(make_printable(text), **options)

    def status(self, status: Any, **options: Any) -> Status:
        """A spinner with a text, for as long as something is done."""
        return super().status(plain(status) if isinstance(status, str) else status, **options)


def prepare_streams() -> None:
    """Lets standard output and error write what they have no sign for: plain signs for typography, else escapes."""
    codecs.register_error(_FEW_SIGNS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_FEW_SIGNS)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    shown = "".join(_IN_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return shown, error.end
