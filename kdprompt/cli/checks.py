"""What can be known to be wrong before a command has worked for an hour."""

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdprompt.paths import check_descriptor, expand_home, find_descriptor, follow_links

__all__ = [
    "check_apart",
    "check_device",
    "check_file",
    "check_folder",
    "check_request",
    "check_standard_output",
    "check_streams",
]


def check_file(path: Path | None) -> None:
    """Refuses an output file that could not be written.

    Args:
        path: The file; None: the command prints, so standard output must be there.

    Raises:
        OSError: It is a folder, its folder is a file, or neither may be written; or standard output is closed.
        ValueError: It is ``-``.
    """
    if path is None:
        check_standard_output()
        return
    if path == Path("-"):
        raise ValueError("the output must be a file, got -; standard output is /dev/stdout, where the system has it")
    path = expand_home(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    descriptor = find_descriptor(path)
    if descriptor is not None:
        _check_open(descriptor, path)
        return
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is there and may not be written; name another file")
    if path.is_file() or not path.exists():  # others, devices and pipes, are written to
        check_folder(follow_links(path).parent)


def _check_open(descriptor: int, path: Path) -> None:
    try:
        check_descriptor(descriptor)
    except OSError as error:
        raise OSError(f"nothing can be written to {path} ({error.strerror}); name another place") from error


def check_folder(path: Path) -> None:
    """Refuses a folder in which no file could be written; one that is not there must be possible to make.

    Raises:
        OSError: It, or what it would stand in, is no folder or may not be written.
    """
    there = expand_home(path).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        what = "a link that leads nowhere" if there.is_symlink() else "a file"
        raise NotADirectoryError(f"{there} is {what}, so nothing can be written to {path}; name another place")
    try:
        with tempfile.TemporaryFile(dir=there):  # to root /proc says that it may be written
            pass
    except OSError as error:
        raise PermissionError(
            f"the folder {there} may not be written ({error.strerror}), so nothing can be written to {path}; name "
            "another place"
        ) from error


def check_apart(outputs: Iterable[Path], inputs: Mapping[str, str | Path | Iterable[Path] | None]) -> None:
    """Refuses output files that are input files too, by whatever name; a device, or a pipe, may be both.

    Args:
        outputs: The files that a command writes.
        inputs: What it reads, by the options or arguments that name it; what is no file is passed over.

    Raises:
        ValueError: An output is an input; the message names both.
    """
    for output in filter(Path.is_file, map(expand_home, outputs)):
        for option, value in inputs.items():
            for read in [value] if isinstance(value, str | Path) else value or ():
                file = expand_home(read)
                if file.is_file() and os.path.samefile(output, file):
                    raise ValueError(
                        f"the output {output} is the file of {option} {read}, which would be lost; name another place"
                    )


def check_streams(inputs: Mapping[str, Path | None]) -> None:
    """Refuses a pipe that is given as two inputs: it can be read once.

    Args:
        inputs: What a command reads, by the options or arguments that name it.

    Raises:
        ValueError: Two of them are the same; the message names both.
    """
    streams = [(option, path) for option, path in inputs.items() if path is not None and not path.is_file()]
    for i, (option, path) in enumerate(streams):
        for before, other in streams[:i]:
            if os.path.samefile(path, other):
                raise ValueError(f"{before} and {option} are both {path}, which can be read once; name a file for one")


def check_standard_output() -> None:
    """Refuses to work for a standard output that is closed.

    Raises:
        OSError: It is.
    """
    if sys.stdout is None:
        raise OSError("standard output is closed, so the result would be lost; open it, or name a file for the result")


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
