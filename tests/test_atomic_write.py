"""A file is replaced whole or not at all."""

import os
import stat
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
