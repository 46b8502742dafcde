"""Files with one JSON object a line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdprompt.errors import PoolError

__all__ = ["read_jsonl"]


class _Line(dict[str, Any]):
    """A record that remembers the line it was read from, for errors further on."""

    def __init__(self, record: Mapping[str, Any], line: int) -> None:
        super().__init__(record)
        self.line = line


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Reads a file with one JSON object a line, UTF-8; blank lines are passed over.

    Args:
        path: The file.

    Returns:
        The objects in order.

    Raises:
        PoolError: A line is no JSON or no object; the error names the file and the line.
        FileNotFoundError: There is no such file.
    """
    records: list[dict[str, Any]] = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.removeprefix(b"\xef\xbb\xbf").strip():
                records.append(_Line(_parse_line(line, f"{path}, line {number}"), number))
    return records


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        shown = line.decode("utf-8", "backslashreplace").strip()
        raise PoolError(f"{where} is no JSON ({error}): {shown:.80}. Every line must hold one JSON object.") from error
    if not isinstance(record, dict):
        raise PoolError(f"{where} must hold a JSON object, got {type(record).__name__}: {record!r:.80}")
    return record
