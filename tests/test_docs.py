"""Pages: lines stay short, links lead somewhere, every public name and every claim has its place."""

import re
from pathlib import Path

import pytest

import kdprompt
from docs_hooks import INCLUDED, document_commands, relink
from wrap_markdown import WIDTH, wrap

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {"benchmarks/results.md"}
PAGES = sorted(
    path
    for folder in (
        ROOT,
        ROOT / "docs",
        *(path for path in (ROOT / "docs").iterdir() if path.is_dir()),
        ROOT / "benchmarks",
        ROOT / "cookbook",
        *(ROOT / "integrations").glob("*_kdprompt"),
    )
    for path in folder.glob("*.md")
    if str(path.relative_to(ROOT)) not in GENERATED
)
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


def label(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_lines_are_short_except_those_of_tables_and_code(path):
    fenced, long = False, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fenced ^= line.lstrip().startswith("```")
        if len(line) > WIDTH and not fenced and not line.startswith("|"):
            long.append(number)
    assert long == []


def anchors(path):
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path):
    """File and anchor of every link of a page that leads to this repository."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [target.partition("#")[::2] for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text)]


def is_generated(path, file):
    """Whether a link leads to a page that only the site has: that of the commands."""
    return (path.parent / file).resolve() == ROOT / "docs" / "command-line.md"


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_links_lead_to_files_and_headings_that_are_there(path):
    dead = []
    for file, anchor in links(path):
        target = path.parent / file if file else path
        if not target.exists():
            dead += [] if is_generated(path, file) else [file]
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            dead.append(f"{file}#{anchor}")
    assert dead == []


def test_every_public_name_stands_in_the_api_pages_once():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    named = re.findall(r"^::: kdprompt(?:\.\w+)*\.(\w+)$", pages, re.MULTILINE)
    missing = sorted({name for name in kdprompt.__all__ if not name.startswith("_")} - set(named))
    assert missing == [], "each needs a line '::: kdprompt.NAME' in the page of docs/api where it belongs"
    assert sorted(name for name in named if named.count(name) > 1) == []


def test_the_page_of_the_commands_has_each_with_its_options():
    page = document_commands()
    for command in ("select", "report", "bench", "doctor", "drift", "profile", "reproduce", "tables", "demo"):
        assert f"## `kdprompt {command}`" in page
    assert page.startswith("# Command line") and "* `--queries " in page and "&" not in page.split("**Commands**")[1]


def test_claims_are_shown_by_what_is_there():
    """The last cell of each row names tests, files or commands: tests and files exist, commands are the package's."""
    rows = [
        line.strip("| ").split(" | ")
        for line in (ROOT / "docs" / "claims.md").read_text(encoding="utf-8").splitlines()
        if re.match(r"\| \d", line)
    ]
    assert len(rows) >= 20 and [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        shown = re.findall(r"`([^`]+)`", row[-1])
        assert shown, row
        for name in shown:
            assert name.startswith("kdprompt ") or has(name), f"claim {row[0]}: {name} is not there"


def has(name):
    """Whether a file, or a test of a file (``tests/test_x.py::test_y``), is there."""
    file, _, test = name.partition("::")
    path = ROOT / file
    return path.exists() and (not test or f"def {test}(" in path.read_text(encoding="utf-8"))


def test_links_are_made_anew_for_the_site():
    text = "[a](../docs/theory.md#r2) [b](results.md) [c](https://x.y) [d](#here) ![e](a.svg) [f](../README.md)"
    made = relink(text, INCLUDED["benchmark-protocol.md"], "benchmark-protocol.md")
    assert made == "[a](theory.md#r2) b [c](https://x.y) [d](#here) ![e](a.svg) [f](index.md)"
    assert relink("[x](../theory.md)", "docs/how-to/json.md", "how-to/json.md") == "[x](../theory.md)"
    assert relink("[y](../../cookbook/README.md)", "docs/how-to/json.md", "how-to/json.md") == "[y](../cookbook.md)"


def test_contributing_gives_the_commands_of_nox():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sessions = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for name in re.findall(r"nox -s (\w+)", page):
        assert f"def {name}(" in sessions
    (marks,) = set(re.findall(r'-m "([^"]+)"', page))
    assert f'"{marks}"' in sessions


def test_wrapping_keeps_words_and_is_done_once():
    words = "word " * 60
    text = f"# {words}\n\n{words}\n- {words}\n  {words}\n\n| {words} |\n\n```\n{words}\n```\n"
    wrapped = wrap(text)
    assert wrapped.split() == text.split() and wrap(wrapped) == wrapped
    kept = [line for line in wrapped.split("\n") if len(line) > WIDTH]
    assert kept == [f"# {words}", f"| {words} |", words]
    assert wrap("short\nlines stay\n") == "short\nlines stay\n"
