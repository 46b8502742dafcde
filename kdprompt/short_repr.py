"""What objects print in a console or a notebook: one line that says what they are, not all that they hold."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

__all__ = ["ChangedFields", "OneLine", "shorten"]


def shorten(text: str, width: int = 60) -> str:
    r"""Text on one line, cut after ``width`` signs.

    Example:
        >>> shorten("where is  my\ncard?"), shorten("where is my card?", 9)
        ('where is my card?', 'where is…')
    """
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


class OneLine(BaseModel):
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
