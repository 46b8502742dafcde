"""Python blocks of Markdown pages: what they are, and what they print.

    python tools/page_snippets.py README.md docs/explain.md

runs the blocks of each page from top to bottom, in one namespace, and puts what a block prints in the ``text`` block
that follows it directly, where there is one. The tests run the same blocks and compare.
"""

import contextlib
import io
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SNIPPET = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?P<after>\n```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
NUMBER = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Snippet:
    """A block of Python.

    Attributes:
        code: What it says.
        output: What the page says that it prints; None where the page does not say.
        line: Where it begins in the page, from 1.
    """

    code: str
    output: str | None
    line: int


def read_snippets(text: str) -> list[Snippet]:
    """The Python blocks of a page, in order."""
    return [
        Snippet(found["code"], found["output"], text.count("\n", 0, found.start()) + 1)
        for found in SNIPPET.finditer(text)
    ]


def run_snippets(text: str, where: str) -> list[str]:
    """Runs the blocks of a page in one namespace, and gives what each printed."""
    names: dict[str, Any] = {"__name__": "snippet"}
    printed = []
    for snippet in read_snippets(text):
        code = "\n" * snippet.line + snippet.code  # so that a traceback has the page's own line
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, where, "exec"), names)
        printed.append("".join(line.rstrip() + "\n" for line in out.getvalue().splitlines()))
    return printed


def differ(said: str, printed: str) -> str:
    """Where two outputs differ in their words, or by more than 2 % or 0.02 in a number; empty where they agree."""
    for line, (one, other) in enumerate(zip(said.splitlines(), printed.splitlines(), strict=False), start=1):
        words = [" ".join(NUMBER.sub("#", text).split()) for text in (one, other)]
        numbers = [list(map(float, NUMBER.findall(text))) for text in (one, other)]
        if words[0] != words[1] or any(abs(a - b) > 0.02 * max(1, abs(a)) for a, b in zip(*numbers, strict=True)):
            return f"line {line}: the page says {one!r}, printed was {other!r}"
    lengths = len(said.splitlines()), len(printed.splitlines())
    return "" if lengths[0] == lengths[1] else f"the page has {lengths[0]} lines of output, printed were {lengths[1]}"


def fill_outputs(text: str, printed: list[str]) -> str:
    """The page with what was printed in its ``text`` blocks."""
    outputs = iter(printed)

    def filled(found: re.Match[str]) -> str:
        output = next(outputs)
        block = found[0] if found["after"] is None else f"```python\n{found['code']}```\n\n```text\n{output}```\n"
        return block

    return SNIPPET.sub(filled, text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        before = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            outputs = run_snippets(before, name)
        page.write_text(fill_outputs(before, outputs), encoding="utf-8")
