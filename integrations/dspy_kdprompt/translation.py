"""DSPy's words into kdprompt's: signatures into schemas, examples and calls into records, and demonstrations back.

An example fits a predictor if it has every input field of its signature and at least one output field. Outputs may
be missing, because DSPy shows such demonstrations ("not supplied for this particular example") and because a trainset
never has the reasoning of a ``dspy.ChainOfThought``; but then they must be missing everywhere, since DSPy moves
incomplete demonstrations in front of complete ones, out of the order that was chosen.

Rejected: inputs that may be missing (a query can only be compared with examples that say what it says); texts of
``str`` values alone (numbers, lists and pydantic objects are compared by their JSON).
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import dspy

from dspy_kdprompt.values import Fields, Signature, list_defaults, to_record
from kdprompt.errors import MissingKeyError, PoolError, QueryError
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Schema
from kdprompt.pool.value_text import is_missing
from kdprompt.selection.result import Selection
from kdprompt.settings import Settings

__all__ = [
    "assign_examples",
    "assign_queries",
    "build_demos",
    "build_pool",
    "build_query",
    "build_settings",
    "check_task",
    "check_used",
    "copy_examples",
    "copy_fields",
    "drop_repeated",
    "find_missing_fields",
    "find_output_fields",
]

DEFAULT_K = 8  # that of kdprompt's settings


def copy_fields(example: Any, where: str) -> Fields:
    """A deep copy of the fields, so that what the caller does to an example later changes nothing here.

    Raises:
        PoolError: What ``where`` names is neither a ``dspy.Example`` nor a mapping.
    """
    if isinstance(example, dspy.Example):
        return copy.deepcopy(dict(example.items(include_dspy=True)))
    if isinstance(example, Mapping):
        return copy.deepcopy(dict(example))
    raise PoolError(f"{where} must be a dspy.Example or a mapping, got {type(example).__name__}: {example!r:.80}")


def copy_examples(trainset: Iterable[Any]) -> list[Fields]:
    """The fields of all examples.

    Raises:
        PoolError: There are none, or one is neither a ``dspy.Example`` nor a mapping.
    """
    examples = [copy_fields(example, f"example {i}") for i, example in enumerate(trainset)]
    if not examples:
        raise PoolError("trainset is empty; give it at least one example")
    return examples


# -- which example is for which predictor -----------------------------------------------------------------------------


def find_missing_fields(fields: Mapping[str, Any], signature: Signature) -> list[str]:
    """Fields that keep an example from being a demonstration: inputs it lacks, and all outputs if it has none."""
    absent = list_defaults(signature)
    inputs = [name for name in signature.input_fields if name not in fields and name not in absent]
    outputs = list(signature.output_fields)
    return inputs if not all(is_missing(fields.get(name)) for name in outputs) else inputs + outputs


def assign_examples(examples: Sequence[Fields], signatures: Mapping[str, Signature]) -> dict[str, dict[int, Fields]]:
    """For each predictor the examples that fit it, by their index."""
    return {
        name: {i: fields for i, fields in enumerate(examples) if not find_missing_fields(fields, signature)}
        for name, signature in signatures.items()
    }


def check_used(
    examples: Sequence[Fields], pools: Mapping[str, Mapping[int, Fields]], signatures: Mapping[str, Signature]
) -> None:
    """Checks that each example fits a predictor.

    Raises:
        MissingKeyError: One fits none.
    """
    for i, fields in enumerate(examples):
        if not any(i in pool for pool in pools.values()):
            signature = min(signatures.values(), key=lambda candidate: len(find_missing_fields(fields, candidate)))
            missing = find_missing_fields(fields, signature)
            raise MissingKeyError(
                f"example {i} fits no predictor: for {signature.signature!r} it has no {_named(missing, fields)}; it "
                f"has {sorted(map(str, fields))}. Add the field or leave the example out; what stands between the "
                "program's inputs and outputs comes from traces: compile(teacher=…)."
            )


def check_task(examples: Sequence[Fields], task: str | None) -> None:
    """Raises a ``MissingKeyError`` if no example has the key of the task tag."""
    if task is not None and not any(task in fields for fields in examples):
        held = sorted({str(key) for fields in examples for key in fields})
        raise MissingKeyError(f"task_key names the field {task!r}, which no example has; they have {held}")


def _named(names: Sequence[str], fields: Mapping[str, Any]) -> str:
    return " and ".join(f"{name!r} (it is {fields[name]!r:.40})" if name in fields else repr(name) for name in names)


def assign_queries(
    queries: Iterable[Any] | None, signatures: Mapping[str, Signature], task: str | None
) -> dict[str, list[Fields]]:
    """For each predictor the queries of the traffic that have its inputs, as records; outputs are not looked at.

    Args:
        queries: Examples or mappings with input fields, or texts for signatures with one input.
        signatures: The predictors' signatures.
        task: Key of the task tag.

    Raises:
        QueryError: A query is of another type, or there is one text in place of a list.
        MissingKeyError: A query has the inputs of no predictor.
    """
    if isinstance(queries, str | Mapping | dspy.Example):
        raise QueryError(f"queries must be a sequence of queries, got one {type(queries).__name__}; wrap it in a list")
    assigned: dict[str, list[Fields]] = {name: [] for name in signatures}
    for i, query in enumerate(queries or ()):
        if not isinstance(query, str | Mapping | dspy.Example):
            kind = type(query).__name__
            raise QueryError(f"query {i} must be text, a mapping or a dspy.Example, got {kind}: {query!r:.80}")
        records = {name: _query_record(query, signature, task) for name, signature in signatures.items()}
        fitting = {name: record for name, record in records.items() if record is not None}
        if not fitting:
            needed = " or ".join(dict.fromkeys(str(list(signature.input_fields)) for signature in signatures.values()))
            raise MissingKeyError(f"query {i} must have the input fields {needed} of a predictor, got {query!r:.80}")
        for name, record in fitting.items():
            assigned[name].append(record)
    return assigned


def _query_record(query: Any, signature: Signature, task: str | None) -> Fields | None:
    names = list(signature.input_fields)
    if isinstance(query, str):
        return {names[0]: query} if len(names) == 1 else None
    record = to_record({key: query[key] for key in (*names, task) if key is not None and key in query}, signature)
    return record if all(name in record for name in names) else None


def build_query(inputs: Mapping[str, Any], signature: Signature, schema: Schema) -> Fields:
    """The inputs of a call as a query.

    Raises:
        MissingKeyError: One is missing.
    """
    keys = [key for key in (*schema.inputs, schema.task) if key is not None and key in inputs]
    record = to_record({key: inputs[key] for key in keys}, signature)
    for name in schema.inputs:
        if name not in record:
            raise MissingKeyError(
                f"the call has no input field {name!r} of {signature.signature!r}; it has {sorted(inputs)}. Pass "
                f"{name}=…"
            )
    return record


# -- pools ------------------------------------------------------------------------------------------------------------


def find_output_fields(examples: Iterable[Fields], signature: Signature) -> tuple[str, ...]:
    """Output fields that any of the examples has."""
    held = {name for fields in examples for name in signature.output_fields if not is_missing(fields.get(name))}
    return tuple(name for name in signature.output_fields if name in held)


def build_pool(examples: Mapping[int, Fields], signature: Signature, task: str | None) -> Pool:
    """Examples that fit a signature as a pool whose demonstrations hold the originals.

    Args:
        examples: The examples by their index.
        signature: The predictor's.
        task: Key of the task tag; not used where no example has it.

    Raises:
        MissingKeyError: Some examples have an output field and some have not.
        PoolError: An input is empty.
    """
    outputs = find_output_fields(examples.values(), signature)
    tagged = task if any(task in fields for fields in examples.values()) else None
    schema = Schema(inputs=tuple(signature.input_fields), outputs=outputs, task=tagged, id=None)
    records = []
    for i, fields in examples.items():
        gaps = [name for name in outputs if is_missing(fields.get(name))]
        if gaps:
            raise MissingKeyError(
                f"example {i} has no {_named(gaps, fields)}, which other examples have; it has "
                f"{sorted(map(str, fields))}. DSPy shows such demonstrations before complete ones, whatever order was "
                "chosen: give the field to all of them or to none."
            )
        records.append(to_record(fields, signature))
        if not schema.input_text(records[-1], f"example {i}").strip():
            raise PoolError(f"example {i} has an empty input ({list(schema.inputs)}); give it text or leave it out")
    parsed = Pool.from_records(records, schema)
    originals = zip(parsed, examples.values(), strict=True)
    return Pool((shown.model_copy(update={"fields": fields}) for shown, fields in originals), schema)


def build_settings(pool: Pool, k: int | Literal["auto"] | None, settings: Settings | None) -> Settings:
    """The settings with ``k`` in them: as given, else the settings'; at most all distinct examples, as in DSPy."""
    settings = settings or Settings(k=DEFAULT_K)
    size = settings.k if k is None else k
    if isinstance(size, int):
        size = min(size, pool.distinct)
    return Settings.model_validate({**dict(settings), "k": size})


# -- back into DSPy ---------------------------------------------------------------------------------------------------


def build_demos(selection: Selection, schema: Schema) -> list[dspy.Example]:
    """Copies of the original examples in the chosen order, inputs marked."""
    return [dspy.Example(base=fields).with_inputs(*schema.inputs) for fields in selection.examples]


def drop_repeated(demos: Iterable[Any], selection: Selection, signature: Signature, schema: Schema) -> list[Any]:
    """The demonstrations whose input is none of the selected ones'."""
    shown = {demonstration.input for demonstration in selection.demonstrations}
    return [demo for demo in demos if _text(demo, signature, schema) not in shown]


def _text(demo: Any, signature: Signature, schema: Schema) -> str | None:
    record = to_record({key: demo[key] for key in demo}, signature)
    return schema.input_text(record, "a demo") if all(name in record for name in schema.inputs) else None
