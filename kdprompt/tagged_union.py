"""Families of small frozen objects that pydantic reads and writes as JSON: kernels, reading orders, position profiles.

The members of a family are frozen dataclasses that derive from its base class and have a field ``kind`` of their own.
A field that is annotated with the base class takes any instance of it, and JSON with the ``kind`` of a member. A class
of a user's own may be used everywhere, but it cannot be stored.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Union

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, SerializerFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema

__all__ = ["TaggedUnion"]


class TaggedUnion:
    """Base of a family whose members are told apart by their field ``kind``."""

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings", arbitrary_types_allowed=True)

    @classmethod
    def members(cls) -> tuple[type, ...]:
        """Kdprompt's own classes of the family, in the order of their definition: those that can be stored."""
        return tuple(dict.fromkeys(member for member in _subclasses(cls) if _is_member(member)))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of a member, or of the whole family where its base class is asked for."""
        if _is_member(cls):
            return handler(source)
        members = cls.members()
        family = handler.generate_schema(Annotated[Union[members], Field(discriminator="kind")])  # noqa: UP007

        def write(value: Any, serialise: SerializerFunctionWrapHandler) -> Any:
            if type(value) not in members:  # a subclass may compute otherwise than its base class
                raise ValueError(f"{type(value).__name__} is no class of kdprompt's, so it cannot be stored")
            return serialise(value)

        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), family],
            mode="left_to_right",
            serialization=core_schema.wrap_serializer_function_ser_schema(write, schema=family),
        )


def _subclasses(base: type) -> Iterator[type]:
    child: type
    for child in base.__subclasses__():
        yield child
        yield from _subclasses(child)


def _is_member(cls: type) -> bool:
    return cls.__module__.startswith("kdprompt.") and "kind" in getattr(cls, "__dataclass_fields__", {})
