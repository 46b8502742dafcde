"""``results.json``: a whole benchmark in one file, with its checksum, checked when it is read again."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdprompt.checksums import seal, unseal
from kdprompt.errors import DamagedFileError
from kdprompt.evaluate.tables import Results

__all__ = ["explain_error", "read_results", "write_results_text"]

PARTS = {"about", "tables", "cells"}  # of files of before, which have no checksum
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
OPTIONAL = ("log_loss", "confidence", "one_output")
NUMBERS = ("tokens", "shown", "off_task")


def write_results_text(results: Results) -> str:
    """The text of ``results.json``."""
    return json.dumps(seal(json.loads(results.model_dump_json())), ensure_ascii=False)


def read_results(path: Path) -> Results:
    """The benchmark in a file.

    Raises:
        DamagedFileError: It is not what was written, or no ``results.json``.
        OSError: It cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text, parse_constant=_refuse)
        if SURROGATE.search(text):  # half a sign could not be written again
            json.dumps(content, ensure_ascii=False).encode()
        if not isinstance(content, dict) or content.keys() != PARTS:
            content = unseal(content)
        results = Results.model_validate(content)
        _check(results)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(
            f"{path} is no results.json of kdprompt bench, or is damaged: {explain_error(error)}. Take a copy, or run "
            "kdprompt bench again: in the same folder no answer is asked twice."
        ) from error
    return results


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def explain_error(error: Exception) -> str:
    """What is wrong with something that was read, in a line: of pydantic's errors the first, with place and value."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r:.60}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check(results: Results) -> None:
    """What the types do not say.

    Raises:
        ValueError: There is no table, or the numbers of a cell are not of the same queries.
    """
    if not results.tables or not results.cells:
        raise ValueError("it has no tables or no cells")
    for i, cell in enumerate(results.cells):
        queries = len(cell.score)
        lengths = {name: len(getattr(cell, name)) for name in (*NUMBERS, *OPTIONAL)}
        wrong = {name: n for name, n in lengths.items() if n != queries and not (name in OPTIONAL and n == 0)}
        if not queries or wrong:
            raise ValueError(f"cell {i} has {queries} scores, and of the others {wrong}")
