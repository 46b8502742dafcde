"""The command line, run as users run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdprompt.cli.progress import ProgressEmbedder
from kdprompt.pool.embedding_cache import FILE
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder
from kdprompt.resources import support_desk, support_desk_queries
from support import invoke

POOL = Path(__file__).resolve().parents[2] / "kdprompt" / "resources" / "support_desk.jsonl"
pytestmark = pytest.mark.usefixtures("embedder")


def run(*arguments: str, encoding: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kdprompt.cli.app import main; main()", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": encoding} if encoding else None
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, encoding=encoding)


@pytest.fixture(scope="module")
def queries(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "queries.jsonl"
    path.write_text("".join(json.dumps({"input": q["input"]}) + "\n" for q in support_desk_queries()[:12]))
    return path


def test_help_names_the_commands():
    shown = run("--help")
    assert shown.returncode == 0 and "select" in shown.stdout and "demo" in shown.stdout


def test_demo_shows_demonstrations_terms_and_prompt():
    shown = run("demo", "--k", "3")
    assert shown.returncode == 0, shown.stderr
    for part in ("Demonstrations in reading order", "bias: MMD", "the finished prompt", "Desk:", "regulariser"):
        assert part in shown.stdout
    assert "Traceback" not in shown.stderr and "Loading weights" not in shown.stderr


def test_one_query_is_explained_on_the_terminal():
    result = invoke("select", "--pool", POOL, "--query", "my invoice is wrong", "--k", "2", "--task", "support")
    assert result.exit_code == 0 and "Input: my invoice is wrong" in result.stdout
    assert "2 demonstrations" in result.stdout


def test_many_queries_give_one_object_a_line(queries, tmp_path):
    output = tmp_path / "selections.jsonl"
    result = invoke("select", "--pool", POOL, "--queries", queries, "--k", "3", "--output", output)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 12 and all(len(row["examples"]) == len(row["chosen"]) == 3 for row in rows)
    assert [row["query"]["text"] for row in rows] == [q["input"] for q in support_desk_queries()[:12]]
    ids = {demonstration.id for demonstration in support_desk()}
    assert all(row["chosen"][0]["id"] in ids and row["terms"]["total"] >= 0 for row in rows)


def test_without_output_the_lines_go_to_standard_output(queries):
    result = invoke("select", "--pool", POOL, "--queries", queries, "--k", "1", "--task", "support")
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == 12 and all(row["examples"][0]["task"] == "support" for row in rows)


def test_static_serves_all_queries_with_one_prompt(queries, tmp_path):
    output = tmp_path / "static.jsonl"
    invoke("select", "--pool", POOL, "--queries", queries, "--static", "--k", "4", "--output", output)
    (row,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert row["query"] is None and len(row["examples"]) == 4
    assert any(bound["result"] == "R5" for bound in row["bounds"])
    asked = ("select", "--pool", POOL, "--queries", queries, "--static", "--k", "4", "--order", "by-objective")
    invoke(*asked, "--output", output)
    again = json.loads(output.read_text())
    assert row["chosen"] == again["chosen"]


def test_a_reader_chooses_the_static_prompt(queries, tmp_path, monkeypatch):
    (tmp_path / "mymodel.py").write_text(
        "def lookup(prompt):\n    return prompt.rsplit('Output: ', 1)[-1].split()[0]\n"
    )
    monkeypatch.chdir(tmp_path)
    output, asked = tmp_path / "static.jsonl", ("select", "--pool", POOL, "--queries", queries, "--task", "support")
    reader = ("--reader", "python:mymodel:lookup")
    invoke(*asked, "--static", "--k", "2", *reader, "--output", output)
    row = json.loads(output.read_text())
    (note,) = [note for note in row["notes"] if "lookup" in note]
    assert "prompts, of small J, drawn and changed" in note and int(note.split("best of ")[1].split()[0]) > 64
    assert len(row["examples"]) == 2
    invoke(*asked, "--static", "--k", "2", *reader, "--rounds", "0", "--output", tmp_path / "unchanged.jsonl")
    unchanged = json.loads((tmp_path / "unchanged.jsonl").read_text())
    (note,) = [note for note in unchanged["notes"] if "lookup" in note]
    assert int(note.split("best of ")[1].split()[0]) <= 64 and " times: " not in note
    shown = invoke(*asked, "--static", "--k", "2", *reader)
    assert all(item["id"] in shown.stdout for item in row["chosen"])
    assert "by what mymodel:lookup answers" in " ".join(shown.stdout.replace("│", " ").split())


def test_a_reader_calibrates_prompts_for_single_queries(queries, tmp_path, monkeypatch):
    (tmp_path / "lastmodel.py").write_text("def last(prompt):\n    return prompt.split('Output: ')[-1].split()[0]\n")
    monkeypatch.chdir(tmp_path)
    output, asked = tmp_path / "all.jsonl", ("select", "--pool", POOL, "--k", "2", "--reader", "python:lastmodel:last")
    result = invoke(*asked, "--queries", queries, "--output", output)
    assert "calibrated by the answers of lastmodel:last" in result.stderr and len(output.read_text().splitlines()) == 12
    one = invoke(*asked, "--query", "the csv has no dates", "--task", "support")
    assert "ways to make prompts lastmodel:last answered held-out examples of the pool best" in " ".join(
        one.stdout.split()
    )


def test_budget_is_kept(queries, tmp_path):
    output = tmp_path / "budget.jsonl"
    invoke("select", "--pool", POOL, "--queries", queries, "--budget", "60", "--output", output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert all(0 < row["tokens"] <= 60 for row in rows)


def test_a_query_that_no_example_fits_gets_none(tmp_path):
    output = tmp_path / "floor.jsonl"
    asked = ("--query", "why was I charged twice", "--query", "who won the match last night")
    invoke("select", "--pool", POOL, *asked, "--min-similarity", "0.3", "--output", output)
    full, empty = (json.loads(line) for line in output.read_text().splitlines())
    assert len(full["examples"]) == 4 and any("no other example fits" in note for note in full["notes"])
    assert empty["examples"] == []
    assert any(note.startswith("no example fits") for note in empty["notes"])
    assert invoke("select", "--pool", POOL, *asked, "--min-similarity", "1.5").exit_code == 2


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('{"input": "a", "output": "b"}\n{"input": \n', "line 2"),
        ('{"input": "a", "output": "b"}\n\n{"output": "b"}\n', "line 3"),
        ("", "empty"),
        ('{"input": "a", "output": "b"}\n', "k must be at most"),
    ],
    ids=["no JSON", "missing key", "empty pool", "k above the pool"],
)
def test_bad_pools_are_named_without_a_traceback(tmp_path, lines, expected):
    pool = tmp_path / "pool.jsonl"
    pool.write_text(lines)
    shown = run("select", "--pool", str(pool), "--query", "x")
    assert shown.returncode == 2 and expected in shown.stderr and "Traceback" not in shown.stderr


def test_a_bad_query_is_named_before_anything_is_written(tmp_path):
    queries, output = tmp_path / "queries.jsonl", tmp_path / "out.jsonl"
    queries.write_text('{"input": "fine"}\n{"inptu": "typo"}\n')
    output.write_text("kept")
    shown = run("select", "--pool", str(POOL), "--queries", str(queries), "--output", str(output))
    assert shown.returncode == 2 and "line 2" in shown.stderr and "'input'" in shown.stderr
    assert output.read_text() == "kept"


def test_nothing_to_select_for_is_an_error():
    shown = run("select", "--pool", str(POOL))
    assert shown.returncode == 2 and "--static" in shown.stderr


def test_progress_embedder_keeps_the_order(embedder):
    texts = [f"{'word ' * (i % 7)}{i}" for i in range(300)]
    whole, parts = embedder.embed_documents(texts), ProgressEmbedder(embedder.model).embed_documents(texts)
    assert float((whole - parts).abs().max()) < 1e-5


READER = """
asked = []


def last_output(prompt):
    asked.append(prompt)
    return prompt.rsplit("Output: ", 1)[1].split("\\n")[0]
"""


def test_a_profile_is_measured_kept_and_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_reader.py").write_text(READER)
    rows = [
        {"input": f"{'hot' if i % 2 else 'cold'} day {i}", "output": "sun" if i % 2 else "snow"} for i in range(200)
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["profile", "--pool", "pool.jsonl", "--reader", "python:a_reader:last_output", "--k", "4"]
    command += ["--cache", "answers", "--output", "mine.json"]
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    profile = json.loads((tmp_path / "mine.json").read_text())
    assert profile["recency"] > 1 and profile["name"] == "a_reader:last_output" and "answers" in profile["source"]
    import a_reader

    once = len(a_reader.asked)
    assert 100 < once <= 150  # three prompts for each of 50 examples, and none twice
    assert invoke(*command).exit_code == 0 and len(a_reader.asked) == once, "what was answered is not asked again"
    chosen = invoke("select", "--pool", "pool.jsonl", "--query", "hot night", "--k", "2", "--profile", "mine.json")
    assert chosen.exit_code == 0 and "last_output" in chosen.output
    (tmp_path / "bad.json").write_text('{"name": "x"}')
    with pytest.raises(ValueError, match="follow: Field required"):
        invoke("select", "--pool", "pool.jsonl", "--query", "hot night", "--profile", "bad.json")
    shipped = invoke("select", "--pool", "pool.jsonl", "--query", "hot night", "--k", "2", "--profile", "Gemma-3-270m")
    assert shipped.exit_code == 0 and "gemma-3-270m" in shipped.output
    with pytest.raises(ValueError, match=r"'no.json' is no file and no shipped .* gemma-3-270m, "):
        invoke("select", "--pool", "pool.jsonl", "--query", "hot night", "--profile", "no.json")


def test_a_console_with_few_signs_gets_escapes_and_loses_nothing(tmp_path):
    """A Windows code page has no sign for most of the world's letters; JSON has escapes for them."""
    pool = tmp_path / "pool.jsonl"
    lines = [json.dumps({"input": f"żółć 银行 {i}", "output": f"{'ęą'[i % 2]}"}) for i in range(8)]
    pool.write_text("\n".join(lines) + "\n")
    done = run("select", "--pool", str(pool), "--k", "2", "--queries", str(pool), encoding="cp1252")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["query"]["text"] for record in records] == [f"żółć 银行 {i}" for i in range(8)]
    shown = run("select", "--pool", str(pool), "--k", "2", "--query", "żółć", encoding="cp1252")
    assert shown.returncode == 0 and "\\u01" in shown.stdout, shown.stderr


# -- embeddings on disk -------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """The texts that models embedded."""
    texts_embedded = []
    encode = SentenceTransformerEmbedder._encode
    monkeypatch.setattr(
        SentenceTransformerEmbedder,
        "_encode",
        lambda self, texts, name: texts_embedded.extend(texts) or encode(self, texts, name),
    )
    return texts_embedded


def test_select_doctor_drift_and_report_embed_a_text_once_between_them(tmp_path, monkeypatch, asked):
    """Pools as documents, queries as queries."""
    monkeypatch.setenv("KDPROMPT_CACHE", str(tmp_path / "kept"))
    page = tmp_path / "page.html"
    queries = tmp_path / "queries.txt"
    queries.write_text("".join(f"my order number {i} is late\n" for i in range(12)))
    assert invoke("select", "--pool", POOL, "--query", "my order number 0 is late").exit_code == 0
    once = len(asked)
    commands = [
        ("doctor", "--pool", POOL, "--fail-on", "never"),
        ("report", "--pool", POOL, "--query", "my order number 0 is late", "--output", page),
        ("doctor", "--pool", POOL, "--fail-on", "never", "--queries", queries),
        ("drift", queries, queries),
    ]
    assert [invoke(*command).exit_code for command in commands] == [0] * 4
    assert len(asked) == once + 11 and len(set(asked)) == len(asked)
    for command in commands[1:]:
        before = len(asked)
        assert invoke(*command, "--no-cache").exit_code == 0 and len(asked) > before


def test_select_embeds_a_pool_once(tmp_path, asked):
    command = ("select", "--pool", POOL, "--query", "I was charged twice", "--cache", tmp_path / "kept")
    first = invoke(*command)
    once = len(asked)
    again = invoke(*command)
    assert first.exit_code == again.exit_code == 0 and first.stdout == again.stdout
    assert once > 100 and len(asked) == once and [path.name for path in (tmp_path / "kept").iterdir()] == [FILE]
    plain = invoke("select", "--pool", POOL, "--query", "I was charged twice", "--no-cache")
    assert plain.stdout == first.stdout and len(asked) == 2 * once
