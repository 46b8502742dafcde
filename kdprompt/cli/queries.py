"""Queries of a command: texts of an option and lines of a file, with names that errors can use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["read_queries"]


def read_queries(path: Path | None, texts: Sequence[str] = ()) -> tuple[list[str | Mapping[str, Any]], list[str]]:
    """Reads queries and names each by its place, and by its line where it comes from a file.

    Args:
        path: A file with one JSON object a line; None for none.
        texts: Queries that stand before those of the file.

    Raises:
        PoolError: A line of the file is not a JSON object.
    """
    from kdprompt.pool.jsonl import read_jsonl_lines

    lines = list(read_jsonl_lines(path)) if path else []
    names = [f"query {i}" for i in range(len(texts))]
    names += [f"query {i} (line {number})" for i, (number, _) in enumerate(lines, start=len(texts))]
    return [*texts, *(record for _, record in lines)], names
