"""A file is replaced whole or not at all."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from kdprompt.atomic_write import atomic_write


def left_over(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("content", "stored"), [("ein Maß\r\n", "ein Maß\r\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")]
)
def test_text_and_bytes_are_written_as_they_are(tmp_path, content, stored):
    atomic_write(tmp_path / "new" / "folder" / "file", content)
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == stored
    assert left_over(tmp_path / "new" / "folder") == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, "old")

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_its_place_is_an_error_and_stays(tmp_path):
    (tmp_path / "place").mkdir()
    with pytest.raises(OSError, match="place"):
        atomic_write(tmp_path / "place", "text")
    assert (tmp_path / "place").is_dir() and left_over(tmp_path) == []


def test_permissions_of_an_old_file_are_kept_and_a_new_one_gets_the_usual_ones(tmp_path):
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", "one")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
        (tmp_path / "file").chmod(0o604)
        atomic_write(tmp_path / "file", "two")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o604
    finally:
        os.umask(old)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_many_writers_never_leave_a_mixture(tmp_path):
    path, contents = tmp_path / "file", [str(i) * 200_000 for i in range(4)]
    threads = [threading.Thread(target=atomic_write, args=(path, content)) for content in contents for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in contents and left_over(tmp_path) == []


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    atomic_write(pipe, "text")
    reader.join(10)
    assert received == [b"text"] and stat.S_ISFIFO(pipe.stat().st_mode) and left_over(tmp_path) == []
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    atomic_write(os.devnull, "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_what_a_killed_writer_left_is_removed_by_the_next_write_and_a_living_ones_is_not(tmp_path):
    code = (
        "import os, sys; from kdprompt import atomic_write as module\n"
        "module.os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "module.atomic_write(sys.argv[1], 'half')"
    )
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (orphan,) = tmp_path.glob("*.part")
    with orphan.open("rb") as held:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(held, fcntl.LOCK_EX)
        atomic_write(path, "one")
        assert orphan.exists()
    atomic_write(path, "two")
    assert path.read_text() == "two" and left_over(tmp_path) == []


def test_writers_do_not_take_one_anothers_files_for_orphans(tmp_path):
    """Many short writes by several processes: one that lost its temporary file would fail."""
    code = (
        "import sys; from kdprompt.atomic_write import atomic_write\n"
        "for i in range(300): atomic_write(sys.argv[1], 'x' * i)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [(b"", 0)] * 3
    assert left_over(tmp_path) == []


FULL = """
import resource, signal, sys
from kdprompt.atomic_write import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(sys.argv[1], "n" * 5000)
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file_and_the_error_names_it(tmp_path):
    pytest.importorskip("resource")
    path = tmp_path / "file"
    atomic_write(path, "old")
    said = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith(f"'{path}'") and path.read_text() == "old" and left_over(tmp_path) == []
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            atomic_write("/dev/full", "text")


def test_a_long_name_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = "n" * 250
    atomic_write(f"~/{name}", "text")
    assert (tmp_path / name).read_text() == "text"


BETWEEN = """
import os, sys
from kdprompt.atomic_write import atomic_write
print("head")
atomic_write(sys.argv[1], "text\\n")
atomic_write(sys.argv[1], "more\\n")
print("foot")
"""


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "link to link"])
@pytest.mark.parametrize("mode", ["w", "a"])
def test_what_is_open_is_written_behind_what_stands_there(tmp_path, place, mode):
    if (place.startswith("/proc") and not os.path.exists(place)) or not os.path.exists("/dev/fd/1"):
        pytest.skip("the system has no such name")
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "link to link").symlink_to("link")
    (tmp_path / "log").write_text("earlier\n")
    before = (tmp_path / "log").stat().st_ino
    with (tmp_path / "log").open(mode) as log:
        subprocess.run([sys.executable, "-c", BETWEEN, place], stdout=log, cwd=tmp_path, check=True)
    expected = ["earlier"] * (mode == "a") + ["head", "text", "more", "foot"]
    assert (tmp_path / "log").read_text().split() == expected and (tmp_path / "log").stat().st_ino == before


def test_a_descriptor_that_takes_nothing_is_an_error_that_names_it(tmp_path):
    (tmp_path / "read").write_text("kept")
    with (tmp_path / "read").open() as file, pytest.raises(OSError, match=f"/dev/fd/{file.fileno()}"):
        atomic_write(f"/dev/fd/{file.fileno()}", "text")
    with pytest.raises(OSError, match="Bad file descriptor"):
        atomic_write("/dev/fd/987", "text")
    assert (tmp_path / "read").read_text() == "kept"


def test_links_in_a_circle_and_an_unknown_home_are_errors_that_name_the_path(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="one"):
        atomic_write(tmp_path / "one", "text")
    with pytest.raises(FileNotFoundError, match=r"no home folder of '~nobody-of-this-name' is known.*in full"):
        atomic_write("~nobody-of-this-name/file", "text")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_and_the_group_are_kept(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 1234, 2345)
    path.chmod(0o600)
    atomic_write(path, "new")
    kept = path.stat()
    assert (kept.st_uid, kept.st_gid, stat.S_IMODE(kept.st_mode)) == (1234, 2345, 0o600)
