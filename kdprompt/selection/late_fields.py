"""Records some of whose fields are computed when somebody looks."""

from typing import TYPE_CHECKING, Any, Protocol, Self

from pydantic import BaseModel, PrivateAttr

from kdprompt.short_repr import Record

__all__ = ["FieldSource", "LateFields"]

STORED = BaseModel.__dict__["__dict__"]  # the fields that a record holds now, whatever ``__dict__`` says


class FieldSource(Protocol):
    """What a record gets its late fields from."""

    def compute_fields(self) -> dict[str, Any]:
        """The late fields, the same objects at every call; none after ``release``."""

    def release(self) -> None:
        """Lets go of what they are computed from."""


class LateFields(Record):
    """A record that may come without some of its fields; they are computed when the first of them is looked at.

    Nobody sees it incomplete: one field is looked up by ``__getattr__`` where it is missing, and all that takes the
    whole (comparison, copies, pickles, JSON, ``vars``) reads ``__dict__``. Any thread may look.
    """

    _source: FieldSource | None = PrivateAttr(default=None)

    @classmethod
    def without_late_fields(cls, source: FieldSource, **known: Any) -> Self:
        """A record with the fields that are known, which are trusted; all others come from the source."""
        record = cls.__new__(cls)
        record.__setstate__(
            {
                "__dict__": known,
                "__pydantic_extra__": None,
                "__pydantic_fields_set__": set(cls.model_fields),
                "__pydantic_private__": {"_source": source},
            }
        )
        return record

    def holds(self, name: str) -> bool:
        """Whether a field is there without a computation."""
        return name in STORED.__get__(self)

    @property
    def __dict__(self) -> dict[str, Any]:
        stored: dict[str, Any] = STORED.__get__(self)
        private = getattr(self, "__pydantic_private__", None)
        source = private.get("_source") if private else None
        if source is not None and len(stored) < len(type(self).model_fields):
            for name, value in source.compute_fields().items():
                stored.setdefault(name, value)
            source.release()
        return stored

    @__dict__.setter
    def __dict__(self, stored: dict[str, Any]) -> None:
        STORED.__set__(self, stored)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields and name in self.__dict__:
                return STORED.__get__(self)[name]
            return super().__getattr__(name)
