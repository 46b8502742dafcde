"""Selectors as one file, or as a dictionary that JSON has.

A file is one safetensors file: the tensors as they are, and everything else as a JSON document beside them. The same
as a dictionary, with the tensors in base64, goes where a framework wants JSON.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from kdprompt.atomic_write import atomic_write
from kdprompt.errors import PoolError
from kdprompt.storage.document import build_document, read_document
from kdprompt.storage.records import Recode
from kdprompt.storage.stored import Stored

__all__ = ["from_dict", "read", "to_dict", "write"]

DOCUMENT = "document"


def to_dict(stored: Stored, default: Recode | None = None) -> dict[str, Any]:
    """A selector as a dictionary that JSON has.

    Args:
        stored: The selector.
        default: Called for a value of an example that JSON has no form for, as ``json.dumps`` does.

    Raises:
        PoolError: JSON cannot keep an example as it is.
    """
    document, tensors = build_document(stored, default)
    return {**document, "tensors": base64.b64encode(save(tensors)).decode()}


def from_dict(data: Mapping[str, Any], decode: Recode | None = None) -> Stored:
    """What ``to_dict`` made; ``decode`` makes an example's values again of what ``default`` made of them.

    Raises:
        PoolError: It is of another format, or its tensors are damaged.
    """
    try:
        tensors = load(base64.b64decode(data["tensors"])) if "tensors" in data else {}
    except (TypeError, ValueError, SafetensorError) as error:
        raise PoolError(f"the tensors of the stored selector are damaged: {error!r:.120}") from error
    return read_document(data, tensors, decode)


def write(stored: Stored, path: str | Path, default: Recode | None = None) -> None:
    """Writes a selector to one file; the file of before stays whole until the new one is complete.

    Raises:
        PoolError: As ``to_dict``; nothing is written.
    """
    document, tensors = build_document(stored, default)
    text = json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass")  # as json.loads reads it
    atomic_write(path, save({**tensors, DOCUMENT: torch.frombuffer(bytearray(text), dtype=torch.uint8)}))


def read(path: str | Path, decode: Recode | None = None) -> Stored:
    """Reads what ``write`` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        PoolError: It is no stored selector, or of another format.
    """
    content = Path(path).read_bytes()
    try:
        tensors = load(content)
        document = json.loads(tensors.pop(DOCUMENT).numpy().tobytes())
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise PoolError(f"{path} is no stored selector: {error!r:.120}") from error
    try:
        return read_document(document, tensors, decode)
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from error
