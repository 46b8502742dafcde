"""Records that users bring: demonstrations, queries, and the schema that says which keys hold what.

What comes in is whatever people have (mappings with any keys, strings); what goes on are frozen records with rendered
texts and stable ids. Every error names the example and the key.
"""

import copy
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ConfigDict, Field

from kdprompt.errors import MissingKeyError, PoolError
from kdprompt.pool.value_text import can_be_written, check_text, is_missing, render_value
from kdprompt.short_repr import Record

__all__ = [
    "MOST_NATS",
    "Demonstration",
    "Query",
    "Schema",
    "check_demonstrations",
    "copy_fields",
    "normalise_text",
    "render_field",
    "suggest",
]

ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]{6,}>")  # as Python writes objects that say nothing of themselves
TEXT, TEXT_OR_NONE = frozenset({str}), frozenset({str, type(None)})
IMMUTABLE = frozenset({str, int, float, bool, type(None)})
FROZEN = ConfigDict(frozen=True, extra="forbid")
MOST_NATS = 1e4  # of what a reader knows, or how it leans; more would drown everything in rounding


def copy_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with copies of its values, so that what the caller does to them later does not reach the pool.

    A value that cannot be copied, an open file say, stays as it is.
    """
    if IMMUTABLE.issuperset(map(type, record.values())):
        return dict(record)
    return {key: _copy_value(value) for key, value in record.items()}


def _copy_value(value: Any) -> Any:
    if isinstance(value, str | int | float | None):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # whatever a type of the user's own raises
        return value


def normalise_text(text: str) -> str:
    """Text without case and spacing, accents composed: what counts as *the same text* where duplicates are sought."""
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    normalised = " ".join(composed.casefold().split())
    return text if normalised == text else normalised  # one text in memory, not two alike


class Demonstration(Record):
    """One example that may be shown to the model.

    Attributes:
        id: Stable id, unique in its pool.
        input: The input as text.
        output: The output as text, or None where the example has none.
        task: Task tag, or None.
        fields: The original example, untouched.
    """

    model_config = FROZEN

    id: str
    input: str
    output: str | None = None
    task: str | None = None
    fields: Mapping[str, Any] = Field(default_factory=dict, repr=False)

    @classmethod
    def of_texts(
        cls, ident: str, text: str, output: str | None, task: str | None, fields: dict[str, Any]
    ) -> "Demonstration":
        """The same as by keyword, at a third of the cost where texts are texts: there is nothing to validate.

        Args:
            ident: The id.
            text: The input.
            output: The output.
            task: The task tag.
            fields: The original example; not copied.
        """
        are_texts = TEXT.issuperset(map(type, (ident, text, *fields)))
        if not are_texts or type(output) not in TEXT_OR_NONE or type(task) not in TEXT_OR_NONE:
            return cls(id=ident, input=text, output=output, task=task, fields=fields)
        return cls.of_columns([ident], [text], [output], [task], [fields])[0]

    @classmethod
    def of_columns(
        cls,
        ids: Sequence[str],
        inputs: Sequence[str],
        outputs: Sequence[str | None],
        tasks: Sequence[str | None],
        fields: Sequence[dict[str, Any]],
    ) -> "list[Demonstration]":
        """Many at once, of columns that hold nothing but texts; arguments as ``of_texts`` takes them."""
        new, put, made = cls.__new__, object.__setattr__, list[Demonstration]()
        for ident, text, output, task, original in zip(ids, inputs, outputs, tasks, fields, strict=True):
            one = new(cls)
            values = {"id": ident, "input": text, "output": output, "task": task, "fields": original}
            put(one, "__dict__", values)
            put(one, "__pydantic_fields_set__", _ALL_FIELDS)
            put(one, "__pydantic_extra__", None)
            put(one, "__pydantic_private__", None)
            made.append(one)
        return made


def check_demonstrations(demonstrations: Sequence[Demonstration], name: Callable[[int], str]) -> None:
    """Refuses demonstrations that nothing can work with; ``name`` names the i-th in errors.

    Raises:
        PoolError: An input is empty, or a text cannot be written as UTF-8.
    """
    texts = [text for shown in demonstrations for text in (shown.id, shown.input, shown.output, shown.task) if text]
    if all(shown.input.strip() for shown in demonstrations) and can_be_written(texts):
        return
    for i, shown in enumerate(demonstrations):
        if not shown.input.strip():
            raise PoolError(f"{name(i)} (id {shown.id!r}) has an empty input; give it text or leave it out")
        check_text("\n".join((shown.id, shown.input, shown.output or "", shown.task or "")), name(i), PoolError)


_ALL_FIELDS = set(Demonstration.model_fields)  # one for all that are made of texts: 700 bytes each, and never changed


class Query(Record):
    """What the product was asked.

    Attributes:
        text: The input as text, rendered as the pool's inputs are.
        task: Restricts the demonstrations to this task tag.
        outputs: Restricts the demonstrations to these outputs.
        own: What the reader answers without the pool's help, log-probabilities of the outputs in nats (ℓ₀ of R9, up
            to a constant); None where it was not asked.
    """

    model_config = FROZEN

    text: str
    task: str | None = None
    outputs: frozenset[str] | None = None
    own: Mapping[str, float] | None = None


class Schema(Record):
    """Which keys of an example hold what.

    Attributes:
        inputs: Keys of the input. One key is rendered as its value, several as ``key: value`` lines.
        outputs: Keys of the output. None takes every key that is no input, task or id; empty: no outputs.
        task: Key of the task tag; used where an example has it, None ignores it.
        id: Key of the id; used where an example has it, else ids come from the content.
    """

    model_config = FROZEN

    inputs: tuple[str, ...] = ("input",)
    outputs: tuple[str, ...] | None = ("output",)
    task: str | None = "task"
    id: str | None = "id"

    def input_text(self, record: Mapping[str, Any], where: str) -> str:
        """The rendered input of a record; ``where`` names the record in errors."""
        text = _join(record, self.inputs, where, "input")
        if _all_missing(record, self.inputs):
            raise MissingKeyError(
                f"{where} has no input: {self.inputs[0]!r} is {record[self.inputs[0]]!r}. Give it text or leave it out."
            )
        return text

    def output_text(self, record: Mapping[str, Any], where: str) -> str | None:
        """The rendered output of a record, or None where schema or record have none or its values are missing."""
        keys = self.outputs
        if keys is None:
            known = {*self.inputs, self.task, self.id}
            keys = tuple(key for key in record if key not in known)
        if _all_missing(record, keys):
            self._refuse_misspelt(record, keys, where)
            return None
        return _join(record, keys, where, "output")

    def _refuse_misspelt(self, record: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
        """Tells a record without an output from one whose key of the output is written otherwise."""
        others = [str(key) for key in record if key not in {*self.inputs, *keys, self.task, self.id}]
        for key in keys:
            near = suggest(key, others) if key not in record else None
            if near and abs(len(near) - len(key)) <= 2:
                raise MissingKeyError(
                    f"{where} has no output: it has no key {key!r}, but {near!r}. Rename it, or name it in the schema "
                    f"(output keys are {list(keys)})."
                )


def suggest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one is likely to be, or None.

    Example:
        >>> suggest("lable", ["label", "text"]), suggest("output", ["input"])
        ('label', None)
    """
    near = get_close_matches(name, list(known), n=1, cutoff=0.75)
    return near[0] if near else None


def _all_missing(record: Mapping[str, Any], keys: Sequence[str]) -> bool:
    for key in keys:  # a generator would cost as much as all the rest
        if not is_missing(record.get(key)):
            return False
    return True


def _join(record: Mapping[str, Any], keys: Sequence[str], where: str, role: str) -> str:
    for key in keys:
        if key not in record:
            near = suggest(key, map(str, record))
            raise MissingKeyError(
                f"{where} has no {role} key {key!r}; it has {sorted(map(str, record))}. "
                + (f"Did you mean {near!r}? " if near else "")
                + f"Add the key, or name the right one in the schema ({role} keys are {list(keys)})."
            )
    if len(keys) == 1:
        return render_field(record, keys[0], where)
    return "\n".join(f"{key}: {render_field(record, key, where)}" for key in keys if not is_missing(record[key]))


def render_field(record: Mapping[str, Any], key: str, where: str) -> str:
    """What stands under a key of a record, as text; ``where`` names the record in errors.

    Raises:
        MissingKeyError: It has no text of its own.
    """
    value = record[key]
    if isinstance(value, bytes | bytearray | memoryview):
        raise MissingKeyError(f"{where} has bytes under {key!r}; decode them: value.decode('utf-8')")
    try:
        text = render_value(value)
    except ValueError as error:
        raise MissingKeyError(
            f"{where} has no text under {key!r}: a {type(value).__name__} there cannot be written ({error}); give text"
        ) from error
    if text is not value and ADDRESS.search(text):  # another text in every process, so another id
        raise MissingKeyError(
            f"{where} has no text under {key!r}: {text[:80]} is a {type(value).__name__} that has no text of its own. "
            "Give text, a number, or a list or mapping of these."
        )
    return text
