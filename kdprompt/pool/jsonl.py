"""Files with one JSON object a line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from kdprompt.errors import PoolError
from kdprompt.pool.nesting import MAX_DEPTH, is_too_deep

__all__ = ["check_depth", "check_object", "load_json", "parse_lines", "read_jsonl"]


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
    records = []
    for where, record in parse_lines(Path(path).read_bytes(), str(path)):
        check_object(record, f"{path}, {where}")
        records.append(record)
    return records


def check_object(value: object, where: str) -> None:
    """Raises a ``PoolError`` that names the place where a value is no JSON object."""
    if not isinstance(value, dict):
        raise PoolError(f"{where} must hold a JSON object, got {type(value).__name__}: {value!r:.80}")


def parse_lines(data: bytes, path: str) -> list[tuple[str, Any]]:
    """The values of lines of JSON, each with its line, ``line 3``; ``PoolError`` names file and line."""
    lines = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
    return [(f"line {number}", _parse_line(line, f"{path}, line {number}")) for number, line in lines if line.strip()]


def _parse_line(line: bytes, where: str) -> Any:
    try:
        text = line.decode("utf-8-sig")
        value = load_json(text)
        check_depth(text, value)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        shown = line.decode("utf-8", "backslashreplace").strip()
        raise PoolError(
            f"{where} is not valid JSON ({error}): {shown:.80}. Every line must hold one JSON object."
        ) from error
    return value


def load_json(text: str) -> Any:
    """What JSON says; ``ValueError`` where it is none, or an object has a key twice, of which one would be lost."""
    return json.loads(text, object_pairs_hook=_make_object)


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return made


def check_depth(text: str, value: object) -> None:
    """Refuses JSON that is nested more deeply than what works with it further on can follow.

    Args:
        text: The JSON.
        value: What it is.

    Raises:
        ValueError: It is nested more than 100 levels deep.
    """
    if text.count("[") + text.count("{") > MAX_DEPTH and is_too_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
