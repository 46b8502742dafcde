"""Tensors and JSON in one safetensors file, with a checksum of each part.

The JSON parts are tensors of bytes beside the others. One more holds the format and the checksums, which cover names,
dtypes and shapes too, so that no bit of the file can change unnoticed.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from kdprompt.checksums import checksum
from kdprompt.errors import DamagedFileError

__all__ = ["is_archive", "pack_archive", "unpack_archive"]

JSON = ".json"
CHECKSUMS = "checksums"


def pack_archive(tensors: Mapping[str, Tensor], parts: Mapping[str, Any]) -> bytes:
    """One file of tensors, on the CPU and contiguous, and of parts that JSON has."""
    content = {**tensors, **{name + JSON: _to_bytes(part) for name, part in parts.items()}}
    sums = {name: _checksum_tensor(tensor) for name, tensor in content.items()}
    return save({**content, CHECKSUMS: _to_bytes(sums)})


def is_archive(content: Mapping[str, Tensor]) -> bool:
    """Whether the tensors of a file are those of an archive; other files may hold nothing that begins alike."""
    return CHECKSUMS in content


def unpack_archive(content: bytes | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the parts that ``pack_archive`` put into a file.

    Args:
        content: The file, or its tensors.

    Raises:
        DamagedFileError: A part is not what was written; it is named.
        SafetensorError, ValueError, TypeError: The content is no archive.
    """
    stored = load(content) if isinstance(content, bytes) else dict(content)
    if CHECKSUMS not in stored:
        raise DamagedFileError("it has no checksums")
    sums = _from_bytes(stored.pop(CHECKSUMS))
    if not isinstance(sums, dict) or sums.keys() != stored.keys():
        raise DamagedFileError("its parts are not those that its checksums name")
    for name, tensor in stored.items():
        found = _checksum_tensor(tensor)
        if found != sums[name]:
            part = name.removesuffix(JSON)
            raise DamagedFileError(f"its part {part!r} is damaged: the checksum is {found}, not {sums[name]!r:.20}")
    parts = {name.removesuffix(JSON): _from_bytes(stored.pop(name)) for name in list(stored) if name.endswith(JSON)}
    return stored, parts


def _to_bytes(part: Any) -> Tensor:
    text = json.dumps(part, ensure_ascii=False).encode(errors="surrogatepass")  # as json.loads reads it
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _from_bytes(tensor: Tensor) -> Any:
    return json.loads(tensor.numpy().tobytes())


def _checksum_tensor(tensor: Tensor) -> str:
    """Over dtype, shape and values."""
    kind = f"{tensor.dtype} {list(tensor.shape)}".encode()
    return checksum(kind, tensor.flatten().view(torch.uint8).numpy().data) if tensor.numel() else checksum(kind)
