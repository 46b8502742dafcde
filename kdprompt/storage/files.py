"""Selectors as one file, or as a dictionary that JSON has.

A file is one safetensors file: the tensors as they are, and everything else as JSON beside them. The same as a
dictionary, with the tensors in base64, goes where a framework wants JSON. Both hold a checksum of each part.
"""

import base64
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file, save
from torch import Tensor

from kdprompt.atomic_write import atomic_write
from kdprompt.checksums import checksum_json
from kdprompt.errors import DamagedFileError, KDPromptError, PoolError
from kdprompt.observation import observe
from kdprompt.paths import expand_home, read_stream
from kdprompt.pool.paused_collection import paused_collection
from kdprompt.storage.archive import is_archive, pack_archive, unpack_archive
from kdprompt.storage.document import FORMAT, build_parts, read_parts
from kdprompt.storage.gate import REMEDY, explain_error, reading
from kdprompt.storage.records import Recode
from kdprompt.storage.stored import Stored

__all__ = ["from_dict", "read", "to_dict", "write"]

logger = logging.getLogger(__name__)

PARTS = {"about", "calibration", "embedder", "outputs", "queries", "records", "schema", "settings", "tensors"}
DOCUMENT = "document"  # where formats 1 and 2 kept everything but the tensors


def to_dict(stored: Stored, default: Recode | None = None) -> dict[str, Any]:
    """A selector as a dictionary that JSON has.

    Args:
        stored: The selector.
        default: Called for a value of an example that JSON has no form for, as ``json.dumps`` does.

    Raises:
        PoolError: JSON cannot keep an example as it is.
    """
    parts, tensors = build_parts(stored, default)
    parts["tensors"] = base64.b64encode(save(tensors)).decode()
    return {"format": FORMAT, "checksums": {name: checksum_json(part) for name, part in parts.items()}, **parts}


def from_dict(data: Mapping[str, Any], decode: Recode | None = None) -> Stored:
    """What ``to_dict`` made; ``decode`` makes an example's values again of what ``default`` made of it.

    Raises:
        PoolError: It is of another format, or a part of it is damaged or does not fit the others.
    """
    version = _read_version(data)
    with reading("the checksums"):
        _check_parts(data, version)
    try:
        tensors = load(base64.b64decode(data["tensors"]))
    except Exception as error:  # bytes that are no safetensors file may break its reader anywhere
        raise PoolError(
            f"the tensors of the stored selector are damaged: {explain_error(error)}. {REMEDY.capitalize()}."
        ) from error
    return read_parts(data, tensors, decode, version)


def write(stored: Stored, path: str | Path, default: Recode | None = None) -> None:
    """Writes a selector to one file; the file of before stays whole until the new one is complete.

    Raises:
        PoolError: As ``to_dict``; nothing is written.
    """
    with observe(logger, "save", examples=len(stored.pool)) as counts:
        parts, tensors = build_parts(stored, default, columns=True)
        content = pack_archive(tensors, {**parts, "format": FORMAT})
        counts["bytes"] = len(content)
        atomic_write(path, content)


def read(path: str | Path, decode: Recode | None = None, content: bytes | None = None) -> Stored:
    """Reads what ``write`` wrote; every part is compared with its checksum.

    The vectors stay in the file, which is mapped into memory (not on Windows, where a mapped file cannot be replaced):
    it may be replaced by another, as ``write`` does, but must not be written into while they are in use.

    Args:
        path: The file, or a pipe that gives one.
        decode: As of ``from_dict``.
        content: What the file holds, where it was read already: a pipe gives it once.

    Raises:
        FileNotFoundError: There is no such file.
        PoolError: It is no stored selector, is of another format, or a part of it is damaged or does not fit the
            others.
    """
    with observe(logger, "load") as counts, paused_collection():
        stored = _read(expand_home(path), decode, content)
        counts["examples"] = len(stored.pool)
    return stored


def _read(path: Path, decode: Recode | None, content: bytes | None) -> Stored:
    if content is None:
        content = read_stream(path)
    if content is None:
        with path.open("rb"):
            pass  # whatever keeps it from being read is said in its own words
    try:
        document, tensors = _open(path, content)
    except Exception as error:  # a file of any kind may be given, and break its reader anywhere
        said = str(error) if isinstance(error, DamagedFileError) else explain_error(error)
        raise PoolError(f"{path} is no stored selector, or is damaged: {said}. {REMEDY.capitalize()}.") from error
    try:
        return read_parts(document, tensors, decode, _read_version(document))
    except KDPromptError as error:
        raise PoolError(f"{path}: {error}") from error


def _open(path: Path, content: bytes | None) -> tuple[Any, dict[str, Tensor]]:
    """Everything but the tensors, and the tensors."""
    if content is None and os.name == "nt":
        content = path.read_bytes()
    tensors = load_file(path) if content is None else load(content)
    if is_archive(tensors):
        tensors, parts = unpack_archive(tensors)
        return parts, tensors
    return json.loads(tensors.pop(DOCUMENT).numpy().tobytes()), tensors


def _read_version(document: Any) -> int:
    version = document.get("format") if isinstance(document, Mapping) else None
    if type(version) is not int or version not in range(1, FORMAT + 1):
        raise PoolError(
            f"a stored selector of format 1 to {FORMAT} is expected, got {version!r:.60}; it was written by another "
            "version of kdprompt, or is no stored selector"
        )
    return version


def _check_parts(data: Mapping[str, Any], version: int) -> None:
    """Compares the parts of a dictionary with their checksums, which the formats 1 and 2 do not have.

    Raises:
        PoolError: A part is missing, or is not what was written; it is named.
    """
    if version < 3 and "checksums" not in data:
        return
    sums = data["checksums"]
    if sums.keys() != PARTS:
        raise ValueError(f"they must be of {sorted(PARTS)}, got {sorted(sums)!r:.200}")
    for name, expected in sums.items():
        found = checksum_json(data[name])
        if found != expected:
            raise PoolError(
                f"{name} of the stored selector: the checksum is {found}, not {expected!r:.20}, so it was changed or "
                f"damaged since it was written. {REMEDY.capitalize()}."
            )
