"""What ``mkdocs build`` does beside Markdown: pages from elsewhere, links out of ``docs``, formulas, the commands.

Pages of this repository are written so that their links work where they stand. The site has them side by side, so
links are made anew: to a page of the site where there is one, else the words stay and the link goes. Formulas become
MathML, which browsers show without a script.
"""

import posixpath
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
INCLUDED = {  # pages of the site, and the files that they are
    "frameworks/langchain.md": "integrations/langchain_kdprompt/README.md",
    "frameworks/dspy.md": "integrations/dspy_kdprompt/README.md",
    "frameworks/haystack.md": "integrations/haystack_kdprompt/README.md",
    "frameworks/llamaindex.md": "integrations/llamaindex_kdprompt/README.md",
    "benchmark-protocol.md": "benchmarks/README.md",
    "cookbook.md": "cookbook/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
COMMAND_LINE = "command-line.md"
PAGES = {source: page for page, source in INCLUDED.items()} | {"README.md": "index.md"}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that stand elsewhere, and that of the commands."""
    from mkdocs.structure.files import File

    for page, source in INCLUDED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, COMMAND_LINE, content=document_commands()))
    return files


def document_commands() -> str:
    """The page of the commands, as typer writes it from the commands themselves."""
    command = [sys.executable, "-m", "typer", "kdprompt.cli.app", "utils", "docs", "--name", "kdprompt"]
    page = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    return unescape(page).replace("# `kdprompt`\n", "# Command line\n", 1)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Makes the links of a page anew, but for those in code."""
    uri = page.file.src_uri
    source = INCLUDED.get(uri, f"docs/{uri}")
    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if i % 2 else relink(part, source, uri) for i, part in enumerate(parts))


def relink(markdown: str, source: str, page: str) -> str:
    """The Markdown with links that work from ``page`` of the site in place of those of the file ``source``."""

    def moved(link: re.Match[str]) -> str:
        words, target = link[1], link[2]
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return link[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        to = file.removeprefix("docs/") if file.startswith("docs/") else PAGES.get(file)
        if to is None:
            return words
        address = posixpath.relpath(to, posixpath.dirname(page) or ".")
        return f"[{words}]({address}{'#' + anchor if anchor else ''})"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas in MathML."""
    return FORMULA.sub(_to_mathml, html)


def on_post_page(output: str, **_: Any) -> str:
    """Gives the theme's search dialog the name that a screen reader says."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def _to_mathml(formula: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    latex = unescape(formula[2]).strip()
    return str(convert(latex[2:-2], display="block" if formula[1] == "div" else "inline"))
