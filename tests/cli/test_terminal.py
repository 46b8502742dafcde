"""Hostile text in pools, names and files on a terminal: shown, never obeyed."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from kdprompt.cli.app import main
from kdprompt.cli.terminal import Terminal, plain

CLI = Path(main.__code__.co_filename).parent
HOSTILE = (
    "\x1b]0;owned\x07 \x1b[2J \x1b]8;;http://x\x07link \x9b31m \x7f"
    " \u202egnirts [bold]x[/] [/nothing] :bug: $x^$ a|b `c`"
)
SHOWN = ("\\x1b]0;owned\\x07", "\\u202egnirts", "[bold]x[/]", "[/nothing]", ":bug:")


def test_consoles_are_made_in_one_place():
    """A Console of rich's own would read markup in text from pools; texts and markup go through ``terminal``."""
    for path in CLI.glob("*.py"):
        if path.name != "terminal.py":
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<!Terminal)\bConsole\(|rich\.markup|from_markup|\bText\(", source), (
                f"{path.name}: print through kdprompt.cli.terminal's Terminal and plain"
            )


def test_a_terminal_shows_what_it_is_given(capsys):
    from rich.table import Table

    out = Terminal()
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    out.print(table, width=400)
    with out.status(HOSTILE):
        out.print(HOSTILE, soft_wrap=True)
    out.print(plain(HOSTILE, "bold"), soft_wrap=True)
    shown = capsys.readouterr().out
    assert not steering(shown)
    for part in SHOWN:
        assert shown.count(part) >= 6, part


def steering(text: str) -> set[str]:
    """Signs that steer a terminal in output that goes to none."""
    return {sign for sign in text if unicodedata.category(sign) in ("Cc", "Zl", "Zp") and sign not in "\n\t"} | {
        sign for sign in text if "\u202a" <= sign <= "\u202e"
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pools, queries and data sets whose every text is hostile, in files of hostile names."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"{i} {HOSTILE}", "input": f"text {i} {HOSTILE}", "output": f"label{i % 3} {HOSTILE}", "note": HOSTILE}
        for i in range(40)
    ]
    for split, part in {"pool": rows[:24], "dev": rows[24:32], "test": rows[32:]}.items():
        (tmp_path / f"[x]$a^$.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path


@pytest.fixture
def run(monkeypatch, capfd):
    """The command in this process, with what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdprompt", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capfd.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    return run


MODEL = "def last(prompt):\n    return prompt.rsplit('Output: ', 1)[1].split('\\n')[0]\n"


@pytest.mark.usefixtures("embedder")
def test_commands_show_hostile_text_and_obey_none_of_it(folder, run):
    (folder / "hostile_reader.py").write_text(MODEL)
    pool = "[x]$a^$.pool.jsonl"
    code, out, err = run("select", "--pool", pool, "--query", f"which {HOSTILE}", "--k", "2")
    assert code == 0 and not steering(out + err), err
    assert all(part in out.replace("\n", " ") or part in re.sub(r"[\s│┃]+", "", out) for part in SHOWN)

    code, out, err = run("select", "--pool", pool, "--queries", "[x]$a^$.dev.jsonl", "--k", "2")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 8 and not steering(out + err)
    assert rows[0]["query"]["text"] == f"text 24 {HOSTILE}" and rows[0]["examples"][0]["note"] == HOSTILE

    code, out, err = run("doctor", "--pool", pool, "--queries", "[x]$a^$.dev.jsonl")
    assert code == 0 and not steering(out + err), err

    code, out, err = run("doctor", "--pool", pool, "--fail-on", "never", "--json")
    assert code == 0 and HOSTILE in json.loads(out)["outputs"][0][1] and not steering(out + err), err

    code, out, err = run("drift", pool, "[x]$a^$.dev.jsonl", "--json")
    assert code in (0, 1) and HOSTILE in json.loads(out)["label_next"][0]["text"] and not steering(out + err), err

    asked = ("--model", "python:hostile_reader:last", "--embedder", "lsa", "--k", "2", "--metric", "accuracy")
    bench = ("bench", "--data", "[x]$a^$", "--selector", "nearest-last", "--selector", "random", *asked)
    code, out, err = run(*bench, "--output", "[y]")
    assert code == 0 and not steering(out + err), err
    assert "[x]$a^$" in out and "report.html to [y]" in err
    assert r"[x\]\$a^\$" in Path("[y]/results.md").read_text(encoding="utf-8")

    code, out, err = run("tables", "[y]/results.json", "--output", "[z]")
    assert code == 0 and "[x]$a^$" in out and not steering(out + err), err

    code, out, err = run("select", "--pool", "\x1b]0;owned\x07[x]", "--query", "x")
    assert code == 2 and "\\x1b]0;owned\\x07[x]" in err and not steering(out + err)


def test_a_terminal_with_ascii_alone_shows_the_help_and_errors():
    done = subprocess.run(
        [sys.executable, "-c", "from kdprompt.cli.app import main; main()", "select", "--pool", "żółć…"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=500,
    )
    assert done.returncode == 2 and done.stderr.isascii() and b"\\u017c\\xf3\\u0142\\u0107..." in done.stderr


@pytest.mark.usefixtures("embedder")
def test_a_terminal_with_ascii_alone_shows_the_demo():
    done = subprocess.run(
        [sys.executable, "-c", "from kdprompt.cli.app import main; main()", "demo", "--k", "2"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=500,
    )
    assert done.returncode == 0 and done.stdout.isascii() and b"the finished prompt" in done.stdout, done.stderr


READER = """
def last(prompt):
    return prompt.rsplit("Output: ", 1)[1].split(chr(10))[0]
"""


@pytest.mark.usefixtures("embedder")
def test_a_profile_is_json_on_every_terminal(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiled_reader.py").write_text(READER)
    names = ("sun \x9b31m\x7f", "snow żółć")
    rows = [{"input": f"{('hot', 'cold')[i % 2]} day {i}", "output": names[i % 2]} for i in range(120)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("profile", "--pool", "pool.jsonl", "--reader", "python:profiled_reader:last", "--k", "2")
    code, out, err = run(*command)
    assert code == 0 and set(names) == set(json.loads(out)["label_bias"]) and not steering(out + err), err
    assert "snow żółć" in out
    assert run(*command, "--output", "mine.json")[0] == 0 and (tmp_path / "mine.json").read_text("utf-8") == out
