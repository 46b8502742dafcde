"""Demonstrations as JSON: they come back as they went in, or are refused by name."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from kdprompt.errors import PoolError
from kdprompt.pool.records import TEXT, TEXT_OR_NONE, Demonstration

__all__ = ["Recode", "demonstration_from_record", "demonstration_to_record", "demonstrations_from_records"]

Recode = Callable[[Any], Any]
KEYS = {"id", "input", "output", "task", "fields"}


def demonstration_to_record(demonstration: Demonstration, name: str, default: Recode | None = None) -> dict[str, Any]:
    """One demonstration as a dictionary that JSON has.

    Args:
        demonstration: The demonstration.
        name: Names it in errors.
        default: Called for a value that JSON has no form for, as ``json.dumps`` does.

    Raises:
        PoolError: JSON cannot keep one of its fields as it is.
    """
    kept = {}
    for key, value in demonstration.fields.items():
        where = f"{name} (id {demonstration.id!r}) cannot be stored: its {key!r} is {_show(value)}"
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=default)
        except (TypeError, ValueError) as error:
            raise PoolError(f"{where}: {error}. Give values that JSON has, or keep the pool yourself.") from error
        kept[key] = json.loads(text)
        if not isinstance(key, str) or (default is None and kept[key] != value) or _has_tuples(value):
            raise PoolError(f"{where}, which JSON would change (a tuple, or a key that is no text); make it a list")
    return {
        "id": demonstration.id,
        "input": demonstration.input,
        "output": demonstration.output,
        "task": demonstration.task,
        "fields": kept,
    }


def demonstration_from_record(record: Mapping[str, Any], decode: Recode | None = None) -> Demonstration:
    """What ``demonstration_to_record`` made.

    Args:
        record: The dictionary.
        decode: Makes a field's value again of what ``default`` made of it.
    """
    fields = {key: decode(value) for key, value in record["fields"].items()} if decode else dict(record["fields"])
    if record.keys() == KEYS:
        return Demonstration.of_texts(record["id"], record["input"], record["output"], record["task"], fields)
    return Demonstration(**{**record, "fields": fields})


def demonstrations_from_records(records: Sequence[Any]) -> list[Demonstration] | None:
    """Many at once, looked at by columns, as nearly all are written; None where any of them is of another form."""
    if {*map(type, records)} != {dict} or any(set(keys) != KEYS for keys in {*map(tuple, records)}):
        return None
    columns = (list(map(itemgetter(key), records)) for key in ("id", "input", "output", "task", "fields"))
    ids, inputs, outputs, tasks, fields = columns
    are_texts = all(TEXT.issuperset(map(type, column)) for column in (ids, inputs))
    if not (are_texts and all(TEXT_OR_NONE.issuperset(map(type, column)) for column in (outputs, tasks))):
        return None
    if {*map(type, fields)} != {dict} or not TEXT.issuperset(map(type, chain.from_iterable(fields))):
        return None
    return Demonstration.of_columns(ids, inputs, outputs, tasks, list(map(dict.copy, fields)))


def _show(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # what a type of the user's own raises, and Python where a number has thousands of digits
        return f"a {type(value).__name__}"


def _has_tuples(value: Any) -> bool:
    """Whether a tuple, or a key that is no text, stands anywhere inside."""
    if isinstance(value, Mapping):
        return any(not isinstance(key, str) or _has_tuples(inner) for key, inner in value.items())
    return isinstance(value, tuple) or (isinstance(value, list) and any(map(_has_tuples, value)))
