"""A stored selector as a JSON document and tensors beside it.

What JSON would change (a tuple, a key that is no string) is refused by name, so that an example comes back as it went
in. Settings and calibration are written and checked by pydantic. Rejected: pickle (loading it runs code).
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.errors import PoolError
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Query, Schema
from kdprompt.selection.traffic import Traffic
from kdprompt.settings import Settings
from kdprompt.storage.format_1 import upgrade_calibration, upgrade_settings
from kdprompt.storage.records import Recode, demonstration_from_record, demonstration_to_record
from kdprompt.storage.stored import Stored

__all__ = ["build_document", "read_document"]

FORMAT = 2
SETTINGS = TypeAdapter(Settings)
CALIBRATION = TypeAdapter(Calibration)


def build_document(stored: Stored, default: Recode | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and the tensors of a selector.

    Args:
        stored: The selector.
        default: Called for a value of an example that JSON has no form for.

    Raises:
        PoolError: JSON cannot keep an example as it is.
    """
    records = [demonstration_to_record(shown, f"example {i}", default) for i, shown in enumerate(stored.pool)]
    tensors = {"vectors": stored.vectors}
    if stored.outputs:
        tensors["outputs"] = torch.stack(list(stored.outputs.values()))
    if stored.traffic is not None:
        tensors["queries"] = stored.traffic.vectors
    document = {
        "format": FORMAT,
        "schema": stored.pool.schema.model_dump(mode="json"),
        "records": records,
        "outputs": list(stored.outputs),
        "queries": [query.model_dump(mode="json") for query in stored.traffic.queries] if stored.traffic else [],
        "settings": _to_json(SETTINGS, stored.settings),
        "calibration": _to_json(CALIBRATION, stored.calibration),
        "embedder": dict(stored.embedder),
        "about": dict(stored.about),
    }
    return document, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_document(document: Mapping[str, Any], tensors: Mapping[str, Tensor], decode: Recode | None) -> Stored:
    """What ``build_document`` made, or what format 1 held.

    Raises:
        PoolError: It is of another format, or its settings or its calibration are not ones of this version.
    """
    version = document.get("format") if isinstance(document, Mapping) else None
    if version not in (1, FORMAT):
        raise PoolError(
            f"a stored selector of format 1 or {FORMAT} is expected, got {version!r}; it was written by another "
            "version of kdprompt, or is no stored selector"
        )
    settings, calibration = document["settings"], document["calibration"]
    if version == 1:
        settings, calibration = upgrade_settings(settings), upgrade_calibration(calibration)
    schema = Schema.model_validate({k: tuple(v) if isinstance(v, list) else v for k, v in document["schema"].items()})
    queries = tuple(Query.model_validate(query) for query in document["queries"])
    return Stored(
        pool=Pool((demonstration_from_record(record, decode) for record in document["records"]), schema),
        vectors=tensors["vectors"],
        outputs=dict(zip(document["outputs"], tensors["outputs"], strict=True)) if document["outputs"] else {},
        traffic=Traffic(queries, tensors["queries"]) if queries else None,
        settings=None if settings is None else _from_json(SETTINGS, settings, "settings"),
        calibration=None if calibration is None else _from_json(CALIBRATION, calibration, "calibration"),
        embedder=document["embedder"],
        about=document["about"],
    )


def _to_json(adapter: TypeAdapter[Any], value: Any) -> Any:
    """The value as JSON; None where it holds an object or a function that is not kdprompt's own."""
    try:
        return None if value is None else json.loads(adapter.dump_json(value, warnings="error"))
    except PydanticSerializationError:
        return None


def _from_json(adapter: TypeAdapter[Any], value: Any, name: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise PoolError(
            f"the {name} of the stored selector are not ones that this version of kdprompt knows: {error}"
        ) from error
