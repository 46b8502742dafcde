"""Pools and queries that come through a pipe, which gives them once."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kdprompt import DistillationSelector, Pool, Settings
from kdprompt.cli.checks import check_streams
from kdprompt.cli.pools import PoolFile
from kdprompt.objective.reader_profile import find_profile
from kdprompt.paths import read_stream

ROWS = [{"input": f"{'hot' if i % 2 else 'cold'} day {i}", "output": "sun" if i % 2 else "snow"} for i in range(12)]
LINES = "".join(json.dumps({"id": f"e{i}", **row}) + "\n" for i, row in enumerate(ROWS)).encode()
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")


def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from kdprompt.cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, timeout=300, input=given)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def feed(folder):
    """Makes a named pipe that gives a content once."""
    writers = []

    def feed(content: bytes) -> Path:
        pipe = folder / f"pipe{len(writers)}"
        os.mkfifo(pipe)
        writers.append(threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True))
        writers[-1].start()
        return pipe

    yield feed
    for writer in writers:
        writer.join(10)
        assert not writer.is_alive(), "the pipe was not read"


def test_a_pipe_is_read_once_and_whole(feed):
    long = LINES * 5000  # more than a pipe holds at a time
    pipe = PoolFile.open(feed(long))
    assert pipe.content == long and not pipe.is_stored and not pipe.is_stored
    Path("file.jsonl").write_bytes(LINES)
    assert read_stream(Path("file.jsonl")) is None
    assert len(Pool.from_file(feed(LINES))) == 12


def test_a_profile_may_come_through_a_pipe(feed):
    assert find_profile(str(feed(b'{"name": "mine", "follow": 1}'))).name == "mine"


@pytest.mark.usefixtures("embedder")
def test_every_example_of_a_pool_in_a_pipe_is_seen(folder):
    asked = ("--pool", "/dev/stdin", "--query", "a", "--query", "b", "--k", "12")
    done = run("select", *asked, given=LINES)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2, done.stderr
    assert all({shown["id"] for shown in row["examples"]} == {f"e{i}" for i in range(12)} for row in rows)
    done = run("report", "--pool", "/dev/stdin", "--query", "a", "--k", "12", "--output", "page.html", given=LINES)
    assert done.returncode == 0 and b"wrote the page of 12 demonstrations" in done.stderr, done.stderr


def test_a_stored_selector_may_come_through_a_pipe(feed, embedder):
    selector = DistillationSelector.from_examples(ROWS, embedder, settings=Settings(k=3))
    selector.save("pool.kd")
    content = Path("pool.kd").read_bytes()
    assert DistillationSelector.load(feed(content), embedder).select("hot").ids == selector.select("hot").ids
    asked = ("--query", "hot", "--query", "cold", "--k", "3")
    through, direct = (
        run("select", "--pool", "/dev/stdin", *asked, given=content),
        run("select", "--pool", "pool.kd", *asked),
    )
    assert through.returncode == 0 and through.stdout == direct.stdout, through.stderr


def test_errors_name_the_pipe_and_the_line(folder):
    done = run("select", "--pool", "/dev/stdin", "--query", "a", given=LINES + b"{\n")
    assert done.returncode == 2 and done.stderr.startswith(b"error: /dev/stdin, line 13 is not valid JSON"), done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("select", "--pool", "/dev/stdin", "--queries", "/dev/stdin"),
        ("build", "/dev/stdin", "--queries", "/dev/stdin", "-o", "pool.kd"),
        ("doctor", "--pool", "/dev/stdin", "--evaluation", "/dev/stdin"),
        ("drift", "/dev/stdin", "/dev/stdin"),
        ("bench", "--pool", "/dev/stdin", "--dev", "/dev/stdin", "--test", "/dev/stdin", "--output", "out"),
    ],
    ids=lambda command: command[0],
)
def test_a_pipe_is_not_given_twice(folder, command):
    done = run(*command, given=LINES)
    assert done.returncode == 2 and b"are both /dev/stdin, which can be read once" in done.stderr, done.stderr


def test_files_may_be_given_twice(folder):
    Path("file.jsonl").write_bytes(LINES)
    check_streams({"--pool": Path("file.jsonl"), "--queries": Path("file.jsonl"), "--evaluation": None})
