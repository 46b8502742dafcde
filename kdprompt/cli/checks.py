"""What can be known to be wrong before a command has worked for an hour."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["check_device", "check_file", "check_folder", "check_request"]


def check_file(path: Path | None) -> None:
    """Refuses an output file that could not be written.

    Raises:
        OSError: It is a folder, its folder is a file, or neither may be written.
    """
    if path is None:
        return
    path = path.expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} is there and may not be written; name another file")
        if not path.is_file():  # a device or a pipe, which is written to
            return
    check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Refuses a folder in which no file could be written; one that is not there must be possible to make.

    Raises:
        OSError: It, or what it would stand in, is no folder or may not be written.
    """
    there = path.expanduser().absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, so nothing can be written to {path}; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {there} may not be written; name another place")


def check_device(device: str | None) -> None:
    """Refuses a device that torch does not know or this machine does not have.

    Raises:
        ValueError: It is none; the message names it, and those that are there.
    """
    if device is not None:
        from kdprompt.pool.vectors import parse_device

        parse_device(device, "--device")


def check_request(pool: Any, task: str | None, outputs: Iterable[str] | None, named: str = "--task") -> None:
    """Refuses a task or permitted outputs that a pool does not have.

    Args:
        pool: The pool.
        task: The task, or None.
        outputs: Permitted outputs, or None.
        named: What names the task in the error.

    Raises:
        QueryError: The pool has none of that name; the message suggests one.
    """
    from kdprompt import QueryError
    from kdprompt.pool.records import suggest

    tasks = sorted({example.task for example in pool if example.task is not None})
    members = [example for example in pool if task is None or example.task in (task, None)]
    known = sorted({example.output for example in members if example.output is not None})
    wanted = [] if task is None or not tasks else [(named, task, tasks)]
    for option, name, names in (*wanted, *(("--permit", output, known) for output in outputs or ())):
        if name not in names:
            near = suggest(name, names)
            raise QueryError(
                f"{option} {name!r} is not in the pool"
                + (f"; did you mean {near!r}?" if near else f"; it has {names[:20]}")
            )
