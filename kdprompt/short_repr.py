"""What objects show in a console or a notebook: one line that says what they are, and the names that people use."""

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from kdprompt.deprecation import FormerAttribute

if TYPE_CHECKING:  # the type checker needs its name, which is private
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

__all__ = ["ChangedFields", "OneLine", "Record", "shorten"]

USED = {"model_copy", "model_dump", "model_dump_json"}  # of what pydantic gives to every record
MACHINERY = set(dir(BaseModel)) - set(dir(object))


def shorten(text: str, width: int = 60) -> str:
    r"""Text on one line, cut after ``width`` signs.

    Example:
        >>> shorten("where is  my\ncard?"), shorten("where is my card?", 9)
        ('where is my card?', 'where is…')
    """
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


class _RecordClass(ModelMetaclass):
    """The class of records: ``dir`` and ``help`` of a record say what it is for, not how pydantic makes it."""

    def __dir__(cls) -> list[str]:
        names = {name for name in super().__dir__() if not name.startswith("_") or name in dir(object)}
        former = {name for name in names if type(inspect.getattr_static(cls, name, None)) is FormerAttribute}
        return sorted(names - MACHINERY - former)


class Record(BaseModel, metaclass=_RecordClass):
    """A pydantic model whose ``dir`` and ``help`` are short; what they leave out works as ever."""

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *type(self).model_fields, *USED})


class OneLine(Record):
    """A record that ``print`` shows as a console does."""

    def __str__(self) -> str:
        return repr(self)


class ChangedFields(OneLine):
    """A record that prints only the fields that differ from their defaults; what it prints still makes it again."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value
