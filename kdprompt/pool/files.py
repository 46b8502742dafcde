"""Files with records: JSON lines, JSON, CSV, TSV, Parquet, plain text, each of them with gzip too."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdprompt.errors import PoolError
from kdprompt.paths import expand_home
from kdprompt.pool.jsonl import check_depth, check_object, load_json, parse_lines

__all__ = ["SUFFIXES", "read_records"]

LineRecord = tuple[str, dict[str, Any]]
"""Where a record stands (``line 3``), and the record."""

_GZIP = b"\x1f\x8b"


def read_records(path: str | Path, text_key: str | None = None, content: bytes | None = None) -> list[LineRecord]:
    """Reads the records of a file; its suffix says what it is, and one that says nothing is taken for JSON lines.

    Values of CSV are text, and an empty cell is none (None). Numbers, dates and binary text of Parquet are Python's.

    Args:
        path: ``.jsonl``, ``.json`` (a list of objects, or JSON lines), ``.csv`` and ``.tsv`` with a header, or
            ``.parquet``; ``.gz`` behind it where it is compressed.
        text_key: Where given, ``.txt`` may be read too, and texts may stand for objects in JSON: a record of this one
            key for each line that is not blank.
        content: What the file holds, where it was read already: a pipe gives it once.

    Returns:
        Each record with where it stands: ``line 3``, ``row 2``, ``item 1``, counted from 1.

    Raises:
        PoolError: A line, row or item cannot be read; the error names it and the file.
        FileNotFoundError: There is no such file.
        ImportError: The file is Parquet and pyarrow is not installed.
    """
    name = Path(path).name.lower().removesuffix(".gz")
    suffix = name[name.rfind(".") :] if "." in name else ""
    read = SUFFIXES.get(suffix, parse_lines)
    if read is _read_text and text_key is None:
        raise PoolError(f"{path} is plain text, which has no outputs; give a pool as JSON lines, JSON, CSV or Parquet")
    data = _unpack(expand_home(path).read_bytes() if content is None else content, path)
    if read is _read_text:
        return [(where, {str(text_key): text}) for where, text in _read_text(data, str(path))]
    records = []
    for where, record in read(data, str(path)):
        if isinstance(record, str) and text_key is not None:
            record = {text_key: record}
        check_object(record, f"{path}, {where}")
        records.append((where, record))
    return records


def _unpack(data: bytes, path: str | Path) -> bytes:
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise PoolError(f"{path} cannot be unpacked ({error}); it is damaged or was cut off") from error


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PoolError(f"{path}, line {line} is not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _read_text(data: bytes, path: str) -> list[tuple[str, Any]]:
    lines = enumerate(_decode(data, path).split("\n"), start=1)
    return [(f"line {number}", line.strip()) for number, line in lines if line.strip()]


def _read_json(data: bytes, path: str) -> list[tuple[str, Any]]:
    """A list of objects; a file of JSON lines by the name of ``.json`` is read as what it is."""
    text = _decode(data, path)
    try:
        whole = load_json(text)
        check_depth(text, whole)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and "Extra data" in str(error):
            return parse_lines(data, path)
        raise PoolError(f"{path} is not valid JSON ({error}); it must hold a list of objects") from error
    if not isinstance(whole, list):
        raise PoolError(f"{path} must hold a list of objects, got {type(whole).__name__}: {whole!r:.80}")
    return [(f"item {number}", item) for number, item in enumerate(whole, start=1)]


def _read_table(delimiter: str | None) -> Callable[[bytes, str], list[tuple[str, Any]]]:
    def read(data: bytes, path: str) -> list[tuple[str, Any]]:
        text = _decode(data, path)
        first = text.split("\n", 1)[0]
        between = delimiter or max(",;\t", key=first.count)
        limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
        try:
            return _rows(csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True), path)
        finally:
            csv.field_size_limit(limit)

    return read


def _rows(reader: Any, path: str) -> list[tuple[str, Any]]:
    rows, header = list[tuple[str, Any]](), list[str]()
    try:
        for row in reader:
            if not row:
                continue
            where = f"line {reader.line_num}"
            if not header:
                header = [name.strip() for name in row]
                twice = next((name for name in header if header.count(name) > 1), None)
                if twice is not None:
                    raise PoolError(f"{path}, {where}: two columns are named {twice!r}; rename one of them")
                continue
            if len(row) != len(header):
                raise PoolError(
                    f"{path}, {where} has {len(row)} values, the header {len(header)} ({header}); put a value that "
                    "holds the separator in quotes"
                )
            rows.append((where, {name: value or None for name, value in zip(header, row, strict=True)}))
    except csv.Error as error:
        raise PoolError(f"{path}, line {reader.line_num} cannot be read as CSV: {error}") from error
    return rows


def _read_parquet(data: bytes, path: str) -> list[tuple[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path} is Parquet, which needs pyarrow: pip install 'kdprompt[parquet]'") from error
    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise PoolError(f"{path} cannot be read as Parquet: {error}") from error
    return [(f"row {number}", _texts(row)) for number, row in enumerate(rows, start=1)]


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its binary values as text where they are UTF-8."""
    return {key: _text(value) if isinstance(value, bytes) else value for key, value in row.items()}


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


SUFFIXES: Mapping[str, Callable[[bytes, str], list[tuple[str, Any]]]] = {
    ".jsonl": lambda data, path: parse_lines(data, path),
    ".ndjson": lambda data, path: parse_lines(data, path),
    ".json": _read_json,
    ".csv": _read_table(None),
    ".tsv": _read_table("\t"),
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
"""What a suffix says a file is, and how it is read."""
