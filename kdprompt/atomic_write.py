"""Files that are written whole or not at all: the only place of kdprompt that replaces a file."""

import os
import tempfile
from pathlib import Path

__all__ = ["atomic_write"]


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes a file; a reader sees the old content or the new one, never a part of it.

    The content goes to a temporary file in the same folder, is flushed to the disk, and then takes the place of the
    file. A link is followed: the file that it points to is replaced. Permissions of a file that is there are kept; a
    new one gets those that the umask allows.

    Args:
        path: The file. Its folder is made where it does not exist.
        content: Bytes, or text, which is written as UTF-8 with its line ends as they are.

    Raises:
        OSError: The folder cannot be written, the disk is full, or the path is a folder. The old file is left as it was
            and no temporary file remains.
    """
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions(target))
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _permissions(target: Path) -> int:
    if target.exists():
        return target.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
