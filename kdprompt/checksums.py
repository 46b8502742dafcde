"""Checksums of what is stored: a flipped bit, or a part that was exchanged, is noticed when it is read again.

CRC-32 finds every damage of up to 32 bits in a row, and any other but once in four billion. It is no signature: who
wants to deceive can compute it too, so what is read is validated all the same.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

__all__ = ["checksum", "checksum_json", "seal", "unseal"]

SEAL = "checksum"


def checksum(*contents: bytes | memoryview) -> str:
    """The CRC-32 of contents one behind the other, as 8 hex digits.

    Example:
        >>> checksum(b"123456789"), checksum(b"1234", b"56789")
        ('cbf43926', 'cbf43926')
    """
    crc = 0
    for content in contents:
        crc = zlib.crc32(content, crc)
    return f"{crc:08x}"


def checksum_json(value: Any) -> str:
    """The checksum of a value that JSON has: the same whatever the spacing and the order of keys."""
    return checksum(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content, and first its checksum.

    Example:
        >>> seal({"a": 1})
        {'checksum': '561bacaf', 'a': 1}
    """
    return {SEAL: checksum_json(dict(content)), **content}


def unseal(sealed: Any) -> dict[str, Any]:
    """The content of what ``seal`` made.

    Raises:
        ValueError: It is no mapping, has no checksum, or its content is another than the one that was sealed.
    """
    if not isinstance(sealed, Mapping) or SEAL not in sealed:
        raise ValueError("it has no checksum")
    content = {name: value for name, value in sealed.items() if name != SEAL}
    found = checksum_json(content)
    if sealed[SEAL] != found:
        raise ValueError(f"its content does not have the checksum that stands in it: {found}, not {sealed[SEAL]!r:.20}")
    return content
