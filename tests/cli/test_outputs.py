"""Where commands write: never over what they read, never where the work would be lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdprompt.cli.checks import check_apart, check_file, check_folder
from kdprompt.cli.terminal import Terminal
from support import invoke

ROWS = [{"input": f"{'hot' if i % 2 else 'cold'} day {i}", "output": "sun" if i % 2 else "snow"} for i in range(12)]


def run(*arguments: str, shell: str = '"$@"', **options) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, within a line of the shell."""
    command = ["bash", "-c", shell, "bash", sys.executable, "-c", "from kdprompt.cli.app import main; main()"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("pool.jsonl", "queries.jsonl", "results.json", "report.html"):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("profile.json").write_text('{"name": "mine", "follow": 1}')
    Path("t.jinja").write_text("{% for e in examples %}{{ e.input }} {% endfor %}{{ input }}")
    Path("link.jsonl").symlink_to("pool.jsonl")
    os.link("pool.jsonl", "hard.jsonl")
    return tmp_path


SELECT = ("select", "--pool", "pool.jsonl", "--query", "a", "--query", "b")


@pytest.mark.parametrize(
    ("command", "output", "read"),
    [
        (SELECT, ("--output", "pool.jsonl"), "--pool pool.jsonl"),
        (SELECT, ("--output", "./link.jsonl"), "--pool pool.jsonl"),
        (SELECT, ("--output", "hard.jsonl"), "--pool pool.jsonl"),
        (("select", "--pool", "link.jsonl", "--query", "a"), ("--output", "pool.jsonl"), "--pool link.jsonl"),
        ((*SELECT, "--queries", "queries.jsonl"), ("--output", "queries.jsonl"), "--queries queries.jsonl"),
        ((*SELECT, "--profile", "profile.json"), ("--output", "profile.json"), "--profile profile.json"),
        ((*SELECT, "--template", "t.jinja"), ("--output", "t.jinja"), "--template t.jinja"),
        (("build", "pool.jsonl"), ("-o", "pool.jsonl"), "the pool pool.jsonl"),
        (("build", "pool.jsonl", "--queries", "queries.jsonl"), ("-o", "queries.jsonl"), "--queries queries.jsonl"),
        (("report", "--pool", "pool.jsonl"), ("--output", "pool.jsonl"), "--pool pool.jsonl"),
        (("profile", "--pool", "pool.jsonl", "--reader", "x"), ("--output", "pool.jsonl"), "--pool pool.jsonl"),
        (("doctor", "--pool", "pool.jsonl"), ("--html", "pool.jsonl"), "--pool pool.jsonl"),
        (("doctor", "--pool", "pool.jsonl", "--evaluation", "queries.jsonl"), ("--html", "queries.jsonl"),
         "--evaluation queries.jsonl"),
        (("tables", "results.json", "profile.json"), ("--output", "."), "RESULTS results.json"),
        (("bench", "--pool", "results.json", "--dev", "pool.jsonl", "--test", "queries.jsonl"), ("--output", "."),
         "--pool results.json"),
        (("bench", "--pool", "pool.jsonl", "--dev", "pool.jsonl", "--test", "report.html"), ("--output", "."),
         "--test report.html"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_an_output_that_is_an_input_is_refused_before_the_work(folder, monkeypatch, command, output, read):
    def refuse(*_, **__):
        raise AssertionError("it was read")

    monkeypatch.setattr("kdprompt.pool.files._unpack", refuse)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=f"the output .* is the file of {read}, which would be lost; name another"):
        invoke(*command, *output)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_device_may_be_input_and_output(folder):
    check_apart([Path(os.devnull)], {"--pool": Path(os.devnull)})
    check_apart([Path("new.jsonl")], {"--pool": Path("pool.jsonl"), "--profile": "gemma-3-270m", "--queries": None})


def test_places_that_take_no_file_are_known_before_the_work(folder):
    Path("one").symlink_to("two")
    Path("two").symlink_to("one")
    Path("nowhere").symlink_to("/proc/nothere/x.jsonl")
    for place in ("nowhere", "/proc/nothere/x.html"):
        if os.path.isdir("/proc"):
            with pytest.raises(PermissionError, match=r"the folder /proc may not be written"):
                check_file(Path(place))
    with pytest.raises(OSError, match="one"):
        check_file(Path("one"))
    with pytest.raises(NotADirectoryError, match="one is a link that leads nowhere"):
        check_folder(Path("one/deep"))
    with pytest.raises(FileNotFoundError, match="no home folder of '~nobody-of-this-name'"):
        check_file(Path("~nobody-of-this-name/x"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        check_file(Path("/dev/fd/987"))
    with pytest.raises(OSError, match="one"):
        invoke("doctor", "--pool", "pool.jsonl", "--html", "one")
    assert sorted(folder.glob("*.part")) == []


@pytest.mark.parametrize(
    "command",
    [
        ("report", "--pool", "pool.jsonl", "--query", "a", "--output", "-"),
        ("build", "pool.jsonl", "-o", "-"),
        ("doctor", "--pool", "pool.jsonl", "--html", "-"),
    ],
    ids=lambda command: command[0],
)
def test_no_file_is_named_like_the_sign_of_standard_output(folder, command):
    with pytest.raises(ValueError, match="must be a file, got -; standard output is /dev/stdout"):
        invoke(*command)
    assert not Path("-").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
@pytest.mark.parametrize(
    "command",
    [SELECT, (*SELECT, "--output", "-"), ("doctor", "--pool", "pool.jsonl"), ("drift", "pool.jsonl", "pool.jsonl"),
     ("profile", "--pool", "pool.jsonl", "--reader", "x"), ("demo",)],
    ids=" ".join,
)  # fmt: skip
def test_a_closed_standard_output_is_noticed_before_the_work(folder, command):
    done = run(*command, shell='"$@" >&-')
    assert done.returncode == 2 and done.stderr.startswith("error: standard output is closed"), done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="the system has no such name")
def test_a_file_that_took_the_number_of_a_closed_standard_output_is_not_written_to(folder):
    code = (
        "import sys; from kdprompt.atomic_write import atomic_write\n"
        "file = open('other', 'w'); assert file.fileno() == 1\n"
        "try: atomic_write('/dev/stdout', 'text')\n"
        "except OSError as error: sys.exit(str(error))"
    )
    done = subprocess.run(["bash", "-c", '"$@" >&-', "bash", sys.executable, "-c", code], stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.endswith(b"Bad file descriptor: '/dev/stdout'\n"), done.stderr
    assert Path("other").read_bytes() == b""
    done = run(*SELECT, "--output", "/dev/stdout", shell='"$@" >&-')
    assert done.returncode == 2 and "nothing can be written to /dev/stdout" in done.stderr


def test_answers_are_kept_in_the_home_folder_where_a_config_file_names_it(folder, monkeypatch):
    from kdprompt.cli.reader import keep_answers, open_reader

    monkeypatch.setenv("HOME", str(folder / "home"))
    with keep_answers(open_reader("python:builtins:str", Terminal()), Path("~/answers")):
        pass
    assert (folder / "home" / "answers").is_dir() and not Path("~").exists()


@pytest.mark.usefixtures("embedder")
@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="the system has no such name")
def test_selections_go_where_standard_output_goes(folder):
    shell = 'echo head > log; { "$@"; echo foot; } >> log'
    done = run(*SELECT, "--k", "2", "--output", "/dev/stdout", shell=shell)
    first, *selections, last = Path("log").read_text().splitlines()
    assert done.returncode == 0 and (first, last) == ("head", "foot"), done.stderr
    assert [json.loads(line)["query"]["text"] for line in selections] == ["a", "b"]
