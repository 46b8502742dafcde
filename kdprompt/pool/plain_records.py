"""Many examples at once that need no rendering: dictionaries whose input, output, task and id are texts.

Nearly all pools are of that kind. Their columns are looked at one after the other, which costs a quarter of looking at
each example. Where anything else is among them, all are left to ``Pool.parse``, whose errors name the example.
"""

from collections.abc import Callable, Container, Sequence
from itertools import chain
from typing import Any

from kdprompt.pool.content_ids import make_content_ids
from kdprompt.pool.records import IMMUTABLE, TEXT, TEXT_OR_NONE, Demonstration, Schema, copy_fields
from kdprompt.pool.value_text import can_be_written

__all__ = ["MakeFresh", "read_plain_records"]

MakeFresh = Callable[[str, tuple[Container[str], Container[str]]], str]


def read_plain_records(
    records: Sequence[Any], schema: Schema, taken: Container[str], make_fresh: MakeFresh
) -> list[Demonstration] | None:
    """The examples as demonstrations, or None where they are not all plain and without fault.

    Args:
        records: The examples.
        schema: Which keys of an example hold what.
        taken: Ids that are in the pool.
        make_fresh: Makes an id of one that is among those given.
    """
    keys = (*schema.inputs, *(schema.outputs or ()))
    if len(schema.inputs) != 1 or len(keys) != 2 or {*map(type, records)} != {dict}:
        return None
    inputs, outputs = ([record.get(key) for record in records] for key in keys)
    tasks, given = (
        [None] * len(records) if key is None else [record.get(key) for record in records]
        for key in (schema.task, schema.id)
    )
    are_texts = all(TEXT.issuperset(map(type, column)) for column in (inputs, outputs, chain.from_iterable(records)))
    if not (are_texts and all(TEXT_OR_NONE.issuperset(map(type, column)) for column in (tasks, given))):
        return None
    named = [text for text in (*tasks, *given) if text]
    if not (all(map(str.strip, inputs)) and all(map(can_be_written, (inputs, outputs, named)))):
        return None
    if IMMUTABLE.issuperset(map(type, chain.from_iterable(map(dict.values, records)))):
        fields = list(map(dict.copy, records))
    else:
        fields = list(map(copy_fields, records))
    ids = _list_ids(given, make_content_ids(inputs, outputs, tasks), taken, make_fresh)
    return Demonstration.of_columns(ids, inputs, outputs, tasks, fields)


def _list_ids(
    given: Sequence[str | None], of_content: Sequence[str], taken: Container[str], make_fresh: MakeFresh
) -> list[str]:
    """The ids given; where there is none that of the content, other than those before it."""
    all_made = given.count(None) == len(given) and len(set(of_content)) == len(of_content)
    if all_made and not any(map(taken.__contains__, of_content)):
        return list(of_content)
    ids, before = list[str](), set[str]()
    for ident, made in zip(given, of_content, strict=True):
        ids.append(make_fresh(made, (before, taken)) if ident is None else ident)
        before.add(ids[-1])
    return ids
