"""Wraps the paragraphs and list items of Markdown files to 120 characters; tables, code and headings stay.

    python tools/wrap_markdown.py README.md docs/*.md

A line of a table cannot be broken, so tables are left as they are. Running it again changes nothing.
"""

import re
import sys
import textwrap
from pathlib import Path

WIDTH = 120
ITEM = re.compile(r"^(\s*)(?:[-*]|\d+\.) +")
APART = re.compile(r"^\s*(?:\||#|<|```|~~~|\$\$|>|\[[^\]]+\]:)|^\s*$")


def wrap(text: str) -> str:
    """The text with long paragraphs wrapped; one whose lines are all short enough stays as it is."""
    lines: list[str] = []
    paragraph: list[str] = []
    fenced = False

    def flush() -> None:
        if paragraph and max(map(len, paragraph)) > WIDTH:
            lines.extend(_fill(paragraph))
        else:
            lines.extend(paragraph)
        paragraph.clear()

    for line in text.split("\n"):
        fence = re.match(r"^\s*(?:```|~~~|\$\$)", line)
        if fenced or fence or APART.match(line):
            flush()
            lines.append(line)
            if fence and not (line.strip() != "$$" and line.strip().endswith("$$") and len(line.strip()) > 2):
                fenced = not fenced
        else:
            if ITEM.match(line):
                flush()
            paragraph.append(line)
    flush()
    return "\n".join(lines)


def _fill(paragraph: list[str]) -> list[str]:
    item = ITEM.match(paragraph[0])
    first = item.group(0) if item else re.match(r"^\s*", paragraph[0]).group(0)  # type: ignore[union-attr]
    words = " ".join([paragraph[0][len(first) :], *(line.strip() for line in paragraph[1:])])
    rest = " " * len(first)
    return textwrap.wrap(
        words, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(wrap(path.read_text(encoding="utf-8")), encoding="utf-8")
