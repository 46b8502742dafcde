"""The Python of the pages in docs runs, and prints what the page says."""

from pathlib import Path

import pytest

from page_snippets import differ, fill_outputs, read_snippets, run_snippets

DOCS = Path(__file__).resolve().parents[1] / "docs"
ELSEWHERE = ("cluster.md",)  # tests/distributed runs it, on the cluster that is there
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if read_snippets(path.read_text(encoding="utf-8")) and path.name not in ELSEWHERE
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_snippets_run_and_print_what_the_page_says(path, shared_embedder, tmp_path, monkeypatch, request):
    text = path.read_text(encoding="utf-8")
    if "smollm2" in text:
        request.getfixturevalue("small_lm")
    monkeypatch.chdir(tmp_path)
    for snippet, printed in zip(read_snippets(text), run_snippets(text, path.name), strict=True):
        assert snippet.output is None or differ(snippet.output, printed) == ""


def test_outputs_are_compared_by_words_and_by_numbers():
    assert differ("a  0.500\nb\n", "a 0.505\nb\n") == ""
    assert "line 1" in differ("a 0.5\n", "a 0.6\n") and "line 2" in differ("a\nb\n", "a\nc\n")
    assert "lines" in differ("a\n", "a\nb\n")


def test_outputs_are_put_where_a_page_has_room_for_them():
    page = "```python\nprint(1)\n```\n\n```text\n0\n```\n\n```python\nprint(2)\n```\n"
    printed = run_snippets(page, "page")
    assert printed == ["1\n", "2\n"] and [snippet.line for snippet in read_snippets(page)] == [1, 9]
    assert fill_outputs(page, printed) == page.replace("```text\n0", "```text\n1")
