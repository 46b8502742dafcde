"""Files with one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdprompt.errors import PoolError

__all__ = ["read_jsonl", "read_jsonl_lines"]


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Reads a file with one JSON object a line, UTF-8; blank lines are passed over.

    Args:
        path: The file.

    Returns:
        The objects in order.

    Raises:
        PoolError: A line is not valid JSON or not an object; the error names the file and the line.
        FileNotFoundError: There is no such file.
    """
    return [record for _, record in read_jsonl_lines(path)]


def read_jsonl_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same as ``read_jsonl``, each object with the number of its line from 1, for errors further on."""
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.removeprefix(b"\xef\xbb\xbf").strip():
                yield number, _parse_line(line, f"{path}, line {number}")


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        shown = line.decode("utf-8", "backslashreplace").strip()
        raise PoolError(
            f"{where} is not valid JSON ({error}): {shown:.80}. Every line must hold one JSON object."
        ) from error
    if not isinstance(record, dict):
        raise PoolError(f"{where} must hold a JSON object, got {type(record).__name__}: {record!r:.80}")
    return record
