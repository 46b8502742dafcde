"""Files that are written whole or not at all: the only place of kdprompt that replaces a file."""

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from kdprompt.paths import check_descriptor, expand_home, find_descriptor, follow_links

__all__ = ["atomic_write"]


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes a file; a reader sees the old content or the new one, never a part of it.

    The content goes to a temporary file in the same folder, is flushed to the disk, and then takes the place of the
    file. A link is followed: the file that it points to is replaced. Permissions of a file that is there are kept, and
    its owner and group where the system permits it; a new one gets those that the umask allows. Another hard link of
    the file keeps the old content: one name can be replaced at once, not two. What is no regular file (a device, a
    pipe) is written to and stays what it is, and so is what the process holds open (``/dev/stdout``, ``/dev/fd/3``):
    the content goes where the descriptor stands, behind what was written to it before.

    Args:
        path: The file; ``~`` is the home folder. Its folder is made where it does not exist.
        content: Bytes, or text, which is written as UTF-8 with its line ends as they are.

    Raises:
        OSError: The folder cannot be written, the disk is full, or the path is a folder. The old file is left as it was
            and no temporary file remains; the error names the path. A temporary file that a killed process left is
            removed by the next write of the file.
    """
    path = expand_home(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    descriptor = find_descriptor(path)
    try:
        if descriptor is not None:
            _write_behind(descriptor, data)
        elif _is_special(path):
            with path.open("wb") as device:
                device.write(data)
        else:
            _replace(follow_links(path), data)
    except OSError as error:
        if error.errno is None:
            raise
        # A full disk names no file, and other errors name the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_behind(descriptor: int, data: bytes) -> None:
    """Writes to an open descriptor, behind what the process has printed."""
    check_descriptor(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(target)
    descriptor, temporary = _create_temporary(target)
    lock = os.dup(descriptor) if sys.platform != "win32" else None  # holds until the file has its name
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(temporary, target)
        os.chmod(temporary, _permissions(target))
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)
    _flush_folder(target.parent)


def _is_special(path: Path) -> bool:
    """Whether the path is there and neither a regular file nor a folder, links followed."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _prefix(target: Path) -> str:
    """Begins the names of a file's temporary files: short, for a name may have 255 bytes already."""
    return f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}."


def _create_temporary(target: Path) -> tuple[int, str]:
    """A temporary file beside the target, locked, so that it is nobody's orphan while this process lives."""
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=".part")
        _lock(descriptor, wait=True)  # for one who takes it for an orphan in this instant
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(temporary)):
                return descriptor, temporary
        os.close(descriptor)  # it was removed before it was locked


def _remove_orphans(target: Path) -> None:
    """Removes the temporary files of this file that killed processes left: those that nobody holds.

    On Windows, where a file that is open can neither be removed nor replaced, they stay.
    """
    if sys.platform == "win32":
        return
    for orphan in target.parent.glob(f"{_prefix(target)}*.part"):
        with contextlib.suppress(OSError), orphan.open("rb") as file:
            if _lock(file.fileno()):
                orphan.unlink()


def _lock(descriptor: int, *, wait: bool = False) -> bool:
    """Locks an open file for this process alone, where the system can; whether it is locked now."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _flush_folder(folder: Path) -> None:
    """Writes the folder's entry to the disk, where a system can: a crash afterwards keeps the new file."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _keep_owner(temporary: str, target: Path) -> None:
    """Gives a new file the owner and the group of the one that it replaces, as far as the system permits it."""
    if sys.platform == "win32" or not target.exists():
        return
    old = target.stat()
    for owner in (old.st_uid, -1):  # the group alone, where another's file may not be made
        with contextlib.suppress(OSError):
            os.chown(temporary, owner, old.st_gid)
            return


def _permissions(target: Path) -> int:
    if target.exists():
        return target.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
