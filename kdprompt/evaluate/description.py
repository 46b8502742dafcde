"""Everything that an object is set to, in a form that JSON holds: what a stored selection is found again by."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

__all__ = ["describe"]


def describe(value: Any) -> Any:
    """A value, field by field and to any depth; equal settings have equal descriptions, in every process.

    Args:
        value: A record of fields (dataclass or pydantic), a container, a function, a plain value, or anything whose
            ``repr`` says what it is set to; addresses of objects are left out of it.

    Returns:
        Lists, mappings, texts and numbers.

    Example:
        >>> from kdprompt.theory.kernels import Gaussian
        >>> describe([Gaussian(0.5), len])
        [['kdprompt.theory.kernels.Gaussian', {'temperature': 0.5, 'kind': 'gaussian'}], 'builtins.len']
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, partial):
        return ["partial", describe(value.func), describe(value.args), describe(value.keywords)]
    if isinstance(value, BaseModel):
        return [_name(type(value)), {name: describe(getattr(value, name)) for name in type(value).model_fields}]
    if is_dataclass(value) and not isinstance(value, type):
        return [_name(type(value)), {field.name: describe(getattr(value, field.name)) for field in fields(value)}]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, map(describe, value)))
    return _name(value) if hasattr(value, "__qualname__") else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
