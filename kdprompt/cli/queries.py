"""Queries of a command: texts of an option and records of a file, with names that errors can use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["read_queries"]


def read_queries(
    path: Path | None, texts: Sequence[str] = (), schema: Any = None
) -> tuple[list[str | Mapping[str, Any]], list[str]]:
    """Reads queries and names each by its place, and by file and line where it comes from a file.

    Args:
        path: A file with records that have the input keys, or with a text a line; None for none.
        texts: Queries that stand before those of the file.
        schema: Which keys hold the input; None is the default.

    Raises:
        PoolError: A line of the file cannot be read.
    """
    from kdprompt import Schema
    from kdprompt.pool.files import read_records

    inputs = (schema or Schema()).inputs
    lines = read_records(path, text_key=inputs[0] if len(inputs) == 1 else None) if path else []
    names = [f"query {i}" for i in range(len(texts))]
    names += [f"query {i} ({path}, {where})" for i, (where, _) in enumerate(lines, start=len(texts))]
    return [*texts, *(record for _, record in lines)], names
