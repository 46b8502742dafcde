"""A stored selector as parts that JSON has, and tensors beside them.

What JSON would change (a tuple, a key that is no string) is refused by name, so that an example comes back as it went
in. Settings and calibration are written and checked by pydantic. Rejected: pickle (loading it runs code).
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.errors import PoolError
from kdprompt.pool.members import Members
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema
from kdprompt.selection.traffic import Traffic
from kdprompt.settings import Settings
from kdprompt.storage.columns import build_columns, read_columns
from kdprompt.storage.format_1 import upgrade_calibration, upgrade_settings
from kdprompt.storage.gate import (
    REMEDY,
    check_embedder,
    check_mapping,
    check_rows,
    check_stored,
    explain_error,
    reading,
)
from kdprompt.storage.records import (
    Recode,
    demonstration_from_record,
    demonstration_to_record,
    demonstrations_from_records,
)
from kdprompt.storage.stored import Stored

__all__ = ["FORMAT", "build_parts", "read_parts"]

FORMAT = 4
SETTINGS = TypeAdapter(Settings)
CALIBRATION = TypeAdapter(Calibration)


def build_parts(
    stored: Stored, default: Recode | None, *, columns: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The parts and the tensors of a selector.

    Args:
        stored: The selector.
        default: Called for a value of an example that JSON has no form for.
        columns: Whether examples become columns, else records of JSON.

    Raises:
        PoolError: JSON cannot keep an example as it is.
    """
    records = [demonstration_to_record(shown, f"example {i}", default) for i, shown in enumerate(stored.pool)]
    tensors = {"vectors": stored.vectors}
    if stored.outputs:
        tensors["outputs"] = torch.stack(list(stored.outputs.values()))
    if stored.traffic is not None:
        tensors["queries"] = stored.traffic.vectors
    parts = {
        "schema": stored.pool.schema.model_dump(mode="json"),
        "outputs": list(stored.outputs),
        "queries": [query.model_dump(mode="json") for query in stored.traffic.queries] if stored.traffic else [],
        "settings": _to_json(SETTINGS, stored.settings),
        "calibration": _to_json(CALIBRATION, stored.calibration),
        "embedder": dict(stored.embedder),
        "about": dict(stored.about),
    }
    examples, more = build_columns(records) if columns else ({"records": records}, {})
    parts, tensors = {**parts, **examples}, {**tensors, **more}
    return parts, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_parts(parts: Mapping[str, Any], tensors: Mapping[str, Tensor], decode: Recode | None, version: int) -> Stored:
    """What ``build_parts`` made, or what former formats held.

    Raises:
        PoolError: A part is missing, is not one of this version, or does not fit the others; it is named.
    """
    with reading("the schema"):
        schema = Schema.model_validate({k: tuple(v) if isinstance(v, list) else v for k, v in parts["schema"].items()})
    with reading("the records"):
        pool = _read_pool(parts, tensors, schema, decode, version)
        vectors = tensors["vectors"]
    with reading("the outputs"):
        outputs = _read_outputs(parts["outputs"], tensors)
    with reading("the queries"):
        queries = tuple(Query.model_validate(query) for query in parts["queries"])
        traffic = Traffic(queries, tensors["queries"]) if queries else None
    settings, calibration = _read_settings(parts, version)
    with reading("the embedder"):
        embedder = check_embedder(parts["embedder"])
    with reading("what is stored beside them"):
        about = check_mapping(parts["about"], "about")
    check_stored(pool, vectors, traffic, settings, calibration)
    return Stored(pool, vectors, outputs, traffic, settings, calibration, embedder, about)


def _read_pool(
    parts: Mapping[str, Any], tensors: Mapping[str, Tensor], schema: Schema, decode: Recode | None, version: int
) -> Pool:
    """The examples: records, or columns, which are left unread unless their values are to be made again."""
    if version < 4 or "records" in parts:  # a dictionary has records
        return Pool(_read_records(list(parts["records"]), decode), schema)
    examples = read_columns(parts, tensors)
    if decode is None:
        return Pool.of_members(Members.of_file(examples), schema)
    return Pool(_read_records([dict(examples.make(i)) for i in range(len(examples))], decode), schema)


def _read_records(records: list[Any], decode: Recode | None) -> list[Demonstration]:
    plain = None if decode else demonstrations_from_records(records)
    if plain is not None:
        return plain
    made: list[Demonstration] = []
    try:
        for record in records:
            made.append(demonstration_from_record(check_mapping(record, "it"), decode))
    except Exception:
        with reading(f"example {len(made)}"):
            raise
    return made


def _read_outputs(texts: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"they must be a list of texts, got {texts!r:.60}")
    if not texts:
        return {}
    check_rows(tensors["outputs"], [f"output {text!r:.60}" for text in texts], "outputs")
    return dict(zip(texts, tensors["outputs"], strict=True))


def _read_settings(parts: Mapping[str, Any], version: int) -> tuple[Settings | None, Calibration | None]:
    with reading("the settings or the calibration"):
        settings, calibration = parts["settings"], parts["calibration"]
        if version == 1:
            settings, calibration = upgrade_settings(settings), upgrade_calibration(calibration)
    return _from_json(SETTINGS, settings, "settings"), _from_json(CALIBRATION, calibration, "calibration")


def _to_json(adapter: TypeAdapter[Any], value: Any) -> Any:
    """The value as JSON; None where it holds an object or a function that is not kdprompt's own."""
    try:
        return None if value is None else json.loads(adapter.dump_json(value, warnings="error"))
    except PydanticSerializationError:
        return None


def _from_json(adapter: TypeAdapter[Any], value: Any, name: str) -> Any:
    if value is None:
        return None
    try:
        return adapter.validate_python(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise PoolError(
            f"the {name} of the stored selector are not ones that this version of kdprompt knows: "
            f"{explain_error(error)}. {REMEDY.capitalize()}."
        ) from error
