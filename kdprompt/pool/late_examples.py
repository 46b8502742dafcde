"""Examples of a stored pool, each made when somebody asks for it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kdprompt.errors import PoolError
from kdprompt.pool.records import Demonstration
from kdprompt.pool.text_column import Numbers, TextColumn

__all__ = ["Choices", "LateExamples"]


@dataclass(frozen=True)
class Choices:
    """A column of few texts that repeat: outputs, tasks.

    Attributes:
        texts: The distinct texts.
        codes: Which of them stands at each example ``[n]``; −1: none.
    """

    texts: Sequence[str]
    codes: Numbers

    def __getitem__(self, i: int) -> str | None:
        code = int(self.codes[i])
        return None if code < 0 else self.texts[code]

    def to_list(self) -> list[str | None]:
        """The text of each example."""
        choices = [*self.texts, None]
        return [choices[code] for code in self.codes.tolist()]


@dataclass(frozen=True)
class LateExamples:
    """Columns of ``n`` examples, checked but for their fields, which are read with the example.

    Attributes:
        ids: Unique ids.
        inputs: Inputs as text.
        outputs: Outputs as text.
        tasks: Task tags.
        fields: The original examples, JSON each.
        order: Places of the examples in the order of their ids ``[n]``.
    """

    ids: TextColumn
    inputs: TextColumn
    outputs: Choices
    tasks: Choices
    fields: TextColumn
    order: Numbers
    _made: dict[int, Demonstration] = field(default_factory=dict, init=False, repr=False, compare=False)

    def make(self, i: int) -> Demonstration:
        """One example, the same object at every call and to every thread.

        Raises:
            PoolError: What the file holds as its fields is no JSON object: it was made by hand.
        """
        made = self._made.get(i)
        if made is None:
            texts = self.ids[i], self.inputs[i], self.outputs[i], self.tasks[i]
            made = self._made.setdefault(i, Demonstration.of_texts(*texts, self._read_fields(i)))
        return made

    def _read_fields(self, i: int) -> dict[str, Any]:
        try:
            fields = json.loads(self.fields.take_bytes(i))
        except (ValueError, RecursionError) as error:
            raise PoolError(self._fault(i, f"{type(error).__name__}: {error!s:.120}")) from error
        if type(fields) is not dict:
            raise PoolError(self._fault(i, f"they must be an object, got {fields!r:.60}"))
        return fields

    def _fault(self, i: int, what: str) -> str:
        return (
            f"the fields of example {i} (id {self.ids[i]!r}) of the stored selector cannot be read: {what}. Load a "
            "copy of the file, or build the selector again and save it."
        )

    @cached_property
    def id_list(self) -> list[str]:
        """All ids; one list, for all that hold them."""
        return self.ids.to_list()

    def has_distinct(self, count: int) -> bool:
        """Whether there are so many distinct examples; looks at no more than needed."""
        found = set[tuple[bytes, int, int]]()
        for i in range(len(self)):
            if len(found) >= count:
                return True
            found.add((self.inputs.take_bytes(i), int(self.outputs.codes[i]), int(self.tasks.codes[i])))
        return len(found) >= count

    def __len__(self) -> int:
        return len(self.ids)
