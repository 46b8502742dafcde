"""Paths as users write them: with the home folder's ``~``, and names of what the process holds open already."""

import errno
import os
import sys
from pathlib import Path

__all__ = ["check_descriptor", "expand_home", "find_descriptor", "follow_links", "read_stream"]

_DESCRIPTORS = ("/dev/fd", "/proc/self/fd", "/proc/thread-self/fd")
_MOST_LINKS = 40  # as Linux follows


def expand_home(path: str | Path) -> Path:
    """A path with the home folder in place of ``~`` or ``~user``.

    Raises:
        FileNotFoundError: The home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        said = f"no home folder of {Path(path).parts[0]!r} is known, write the path in full"
        raise FileNotFoundError(errno.ENOENT, said, str(path)) from error


def find_descriptor(path: Path) -> int | None:
    """The open descriptor that a path names (``/dev/stdout``, ``/dev/fd/3``, a link to one of them), or None.

    To open such a path is not to use the descriptor: on Linux it opens the file behind it anew, at its beginning.
    """
    folders = {os.path.realpath(folder) for folder in _DESCRIPTORS if os.path.isdir(folder)}
    for _ in range(_MOST_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) in folders:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def check_descriptor(descriptor: int) -> None:
    """Refuses a descriptor that cannot be written to.

    Raises:
        OSError: It is closed, or open for reading alone.
    """
    if {1: sys.__stdout__, 2: sys.__stderr__}.get(descriptor, descriptor) is None:
        # Closed when the process began: what was opened first since then may have its number.
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    os.write(descriptor, b"")


def follow_links(path: Path) -> Path:
    """The file that a path leads to; it need not be there.

    Raises:
        OSError: Its links go in a circle.
    """
    try:
        return path.resolve()
    except RuntimeError as error:  # of Python before 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error


def read_stream(path: Path) -> bytes | None:
    """All that a pipe or an open descriptor holds, which can be read once; None for a file, which can be read again.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    return None if path.is_file() and find_descriptor(path) is None else path.read_bytes()
