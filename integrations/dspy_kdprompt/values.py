"""Values of DSPy's fields as kdprompt takes them and as JSON keeps them, and back.

What is a text, what is missing and what is the same value, kdprompt says; here is what only pydantic knows to write.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_args

import dspy
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kdprompt.pool.pool import Pool
from kdprompt.pool.value_text import is_missing

__all__ = ["Fields", "Signature", "encode_value", "list_defaults", "restore_types", "to_record"]

Fields = dict[str, Any]
Signature = type[dspy.Signature]


def to_record(values: Mapping[str, Any], signature: Signature) -> Fields:
    """Values of an example or a call as kdprompt takes them, defaults and optional inputs filled in."""
    return {**list_defaults(signature), **{key: _plain(value) for key, value in values.items()}}


def list_defaults(signature: Signature) -> Fields:
    """What stands for inputs that need not be given."""
    defaults: Fields = {}
    for name, field in signature.input_fields.items():
        if not field.is_required():
            defaults[name] = _plain(field.get_default())
        elif type(None) in get_args(field.annotation):
            defaults[name] = None
    return defaults


def _plain(value: Any) -> Any:
    """Pydantic's objects, and what pydantic alone can write, as JSON has them; all else as it is."""
    if isinstance(value, str | set | frozenset) or is_missing(value):
        return value
    if isinstance(value, Mapping):
        return {_plain_key(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return _plain(_read_fields(value))
    try:
        return to_jsonable_python(value, bytes_mode="base64")
    except PydanticSerializationError:  # arrays, and objects that say nothing of themselves
        return value


def _plain_key(key: Any) -> Any:
    try:
        return next(iter(to_jsonable_python({key: None})))
    except PydanticSerializationError:
        return key


def _read_fields(value: Any) -> Any:
    """What a model says of itself, or a dataclass's fields."""
    if not isinstance(value, BaseModel):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    try:
        return value.model_dump()
    except TypeError:  # a set of models: the dictionaries that they become cannot be in one
        return {name: getattr(value, name) for name in type(value).model_fields}


# -- in files ---------------------------------------------------------------------------------------------------------


def encode_value(value: Any) -> Any:
    """A value that JSON has no form for as pydantic writes it, sets in order; for ``default`` of ``json.dumps``."""
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else to_jsonable_python(value)


def restore_types(pool: Pool, signature: Signature) -> Pool:
    """A pool that was stored, with values again of the types that the signature says, where the JSON fits them."""
    kinds = {name: kind for name, field in signature.fields.items() if (kind := _adapter(field)) is not None}
    if not kinds:
        return pool
    typed = ({key: _typed(value, kinds.get(key)) for key, value in shown.fields.items()} for shown in pool)
    return Pool(
        (shown.model_copy(update={"fields": fields}) for shown, fields in zip(pool, typed, strict=True)), pool.schema
    )


def _adapter(field: FieldInfo) -> TypeAdapter[Any] | None:
    kind: Any = field.annotation
    if kind in (None, str, int, float, bool, Any):
        return None
    try:
        return TypeAdapter(kind)
    except PydanticUserError:
        return None


def _typed(value: Any, kind: TypeAdapter[Any] | None) -> Any:
    if kind is None:
        return value
    try:
        made = kind.validate_json(json.dumps(value), strict=True)
        return made if json.dumps(made, default=encode_value) == json.dumps(value) else value
    except (TypeError, ValueError):
        return value
