"""Pages: lines stay short, links lead somewhere, and the commands of CONTRIBUTING are those of nox."""

import re
from pathlib import Path

import pytest

from wrap_markdown import WIDTH, wrap

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {"benchmarks/results.md"}
PAGES = sorted(
    path
    for folder in (
        ROOT,
        ROOT / "docs",
        ROOT / "benchmarks",
        ROOT / "cookbook",
        *(ROOT / "integrations").glob("*_kdprompt"),
    )
    for path in folder.glob("*.md")
    if str(path.relative_to(ROOT)) not in GENERATED
)


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


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_links_to_files_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    assert [target for target in targets if not (path.parent / target).exists()] == []


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
