"""The README's Python runs as it stands and prints what it says; the page stays short."""

from pathlib import Path

from page_snippets import differ, read_snippets, run_snippets

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_python_blocks_run_and_print_what_the_page_says(shared_embedder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets, printed = read_snippets(TEXT), run_snippets(TEXT, "README.md")
    assert snippets[0].output is not None and printed[-1].strip()
    for snippet, out in zip(snippets, printed, strict=True):
        assert snippet.output is None or differ(snippet.output, out) == ""


def test_the_quickstart_shows_four_demonstrations_and_the_query():
    output = read_snippets(TEXT)[0].output
    assert output.count("Input: ") == 5 and output.rstrip().endswith("Output:")


def test_the_page_is_short_and_says_what_j_is_before_it_counts_on_it():
    assert len(TEXT.splitlines()) <= 150
    assert "J" not in TEXT.split("is called **J**")[0].replace("JSON", "").split()


def test_the_test_command_stands_between_its_marks():
    command = TEXT.split("<!-- tests -->")[1].split("<!-- /tests -->")[0]
    assert "pytest" in command and "constraints.txt" in command
