"""LangChain's words into kdprompt's: keys into a schema, variables into records, chat history into text.

Also LangChain's rule for the case that no keys are named: all values, in the order of their keys, are the text. The
same function renders pool and queries.

Rejected: records that are the examples with an extra key (it would show in the answers and on disk); a second store
of the originals beside the pool (two states to keep in step). The pool's own ``fields`` hold the originals.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import BaseMessage, get_buffer_string

from kdprompt.errors import MissingKeyError, PoolError
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema
from kdprompt.pool.value_text import is_missing, render_value
from kdprompt.settings import Settings

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

__all__ = [
    "DEFAULT_K",
    "Example",
    "build_pool",
    "build_schema",
    "build_settings",
    "check_embeddings",
    "check_example_keys",
    "check_store",
    "copy_example",
    "keep_original",
    "limit_k",
    "parse_example",
    "parse_repeated",
    "to_key_tuple",
    "to_record",
    "to_records",
    "uses_all_values",
]

Example = Mapping[str, Any]
ALL_VALUES = "(all values)"
DEFAULT_K = 4  # LangChain's


def to_record(values: Any, schema: Schema) -> Any:
    """Variables of an example or a query as kdprompt takes them; a query that is no mapping stays as it is."""
    if not isinstance(values, Mapping):
        return values
    record = {key: _plain(value) for key, value in values.items()}
    if uses_all_values(schema):
        said = [record[key] for key in sorted(record) if key != schema.task and not is_missing(record[key])]
        record[ALL_VALUES] = " ".join(map(render_value, said))
    return record


def _plain(value: Any) -> Any:
    """Chat history as text, everything else as it is."""
    messages = [value] if isinstance(value, BaseMessage) else value
    if (
        isinstance(messages, list | tuple)
        and messages
        and all(isinstance(message, BaseMessage) for message in messages)
    ):
        return get_buffer_string(messages)
    return value


def to_records(queries: Any, schema: Schema) -> Any:
    """A sample of the traffic, each query as ``to_record`` makes it."""
    if queries is None or isinstance(queries, str | Mapping | Query):
        return queries
    return [to_record(query, schema) for query in queries]


def build_pool(originals: Sequence[Example], schema: Schema) -> Pool:
    """Examples as a pool whose demonstrations hold the originals.

    Raises:
        MissingKeyError, PoolError: An example cannot be used.
    """
    pool = Pool.from_records([to_record(original, schema) for original in originals], schema)
    return Pool(map(keep_original, pool, originals), schema)


def parse_example(original: Example, schema: Schema, where: str = "the example") -> Demonstration:
    """One example as a demonstration that holds the original.

    Raises:
        MissingKeyError, PoolError: It cannot be used; ``where`` names it.
    """
    return keep_original(Pool((), schema).parse(to_record(original, schema), where), original)


def parse_repeated(original: Example, schema: Schema, taken: Sequence[Demonstration]) -> Demonstration:
    """As ``parse_example``, of an example that repeats others: with an id that these have not.

    Raises:
        PoolError: The example brings its id.
    """
    try:
        pool = Pool(taken, schema).with_records([to_record(original, schema)])
    except PoolError as error:
        raise PoolError(
            f"the example has the id {taken[-1].id!r}, which another has already; ids must be unique. Change it, put "
            "the example in the other's place (update), or name no id key (id_key=None): ids are made from the "
            "content then."
        ) from error
    return keep_original(pool[len(taken)], original)


def keep_original(demonstration: Demonstration, original: Example) -> Demonstration:
    """The demonstration with the original example as its fields."""
    return demonstration.model_copy(update={"fields": original})


def copy_example(example: Example, where: str) -> Example:
    """A deep copy, so that what the caller does to an example later changes nothing here.

    Raises:
        PoolError: The example that ``where`` names is no mapping.
    """
    if not isinstance(example, Mapping):
        raise PoolError(f"{where} must be a mapping, got {type(example).__name__}: {example!r:.80}")
    return copy.deepcopy(dict(example))


def uses_all_values(schema: Schema) -> bool:
    """Whether all values of an example are its text."""
    return schema.inputs == (ALL_VALUES,)


def build_settings(pool: Pool, k: int | Literal["auto"] | None, settings: Settings | None) -> Settings:
    """The settings with ``k`` in them: as given, else the settings', else LangChain's 4 or all distinct examples."""
    if settings is None:
        return Settings(k=min(DEFAULT_K, pool.distinct) if k is None else k)
    return settings if k is None else Settings.model_validate({**dict(settings), "k": k})


def limit_k(settings: Settings, pool: Pool) -> Settings:
    """The settings with k no larger than what there is: then all of it is shown, as LangChain's selectors do."""
    if settings.k == "auto" or settings.k <= pool.distinct or not len(pool):
        return settings
    return settings.model_copy(update={"k": pool.distinct})


def build_schema(
    examples: Sequence[Example],
    input_keys: Sequence[str] | None,
    output_keys: Sequence[str] | None,
    task_key: str | None,
    id_key: str | None = "id",
) -> Schema:
    """Which keys hold what; warns where none is named.

    Args:
        examples: The examples.
        input_keys: Keys of the input; None or none: the keys that ``output_keys`` leaves, or all values.
        output_keys: Keys of the output; None: all that are no input, task or id.
        task_key: Key of the task tag.
        id_key: Key of the id, where an example has it and it holds nothing else; None: there is none.

    Raises:
        TypeError: Keys are given as one string.
        ValueError: A key is input and output, or no key is left for the input.
        MissingKeyError: No example has an output key or the task key.
    """
    inputs, outputs = to_key_tuple(input_keys, "input_keys") or (), to_key_tuple(output_keys, "output_keys")
    keys_of_examples = dict.fromkeys(key for example in examples for key in example)
    _check_keys(inputs, outputs or (), task_key, keys_of_examples)
    if not inputs and outputs is None:
        _warn_all_values()
        return Schema(inputs=(ALL_VALUES,), outputs=(), task=task_key, id=id_key)
    if not inputs:
        inputs = tuple(key for key in keys_of_examples if key not in {*(outputs or ()), task_key, id_key})
        if keys_of_examples and not inputs:
            raise ValueError(
                f"output_keys must leave at least one key for the input, got {outputs} of {list(keys_of_examples)}"
            )
    is_used = id_key in (*inputs, *(outputs or ()), task_key)
    return Schema(inputs=inputs, outputs=outputs, task=task_key, id=None if is_used else id_key)


def to_key_tuple(keys: Sequence[str] | None, name: str) -> tuple[str, ...] | None:
    """Keys as a tuple; ``name`` names the argument in errors.

    Raises:
        TypeError: One string is given instead of a list.
    """
    if isinstance(keys, str):
        raise TypeError(f"{name} must be a list of keys, got the string {keys!r}; write [{keys!r}]")
    return None if keys is None else tuple(keys)


def _check_keys(
    inputs: Sequence[str], outputs: Sequence[str], task: str | None, keys_of_examples: Mapping[str, None]
) -> None:
    both = [key for key in inputs if key in outputs]
    if both:
        raise ValueError(f"output_keys must not name an input key, got {both[0]!r} in both")
    for name, keys in (("output_keys", outputs), ("task_key", [task] if task is not None else [])):
        for key in keys:
            if keys_of_examples and key not in keys_of_examples:
                raise MissingKeyError(
                    f"{name} names the key {key!r}, which no example has; they have {list(keys_of_examples)}"
                )


def check_example_keys(example: Example, keys: Sequence[str] | None, where: str) -> None:
    """Raises a ``MissingKeyError`` if the example that ``where`` names lacks one of the keys."""
    for key in keys or ():
        if key not in example:
            raise MissingKeyError(
                f"{where} has no key {key!r}, which example_keys names; it has {sorted(map(str, example))}. Add the "
                "key, or leave it out of example_keys."
            )


def check_embeddings(embeddings: object) -> None:
    """Raises a ``TypeError`` if these are no embeddings: neither None nor an object with LangChain's two methods."""
    if embeddings is None or (isinstance(embeddings, Embedder) and not isinstance(embeddings, type)):
        return
    raise TypeError(
        "embeddings must be a LangChain Embeddings (embed_documents and embed_query), a kdprompt Embedder, or None, "
        f"got {embeddings!r:.80}; wrap a function from texts to vectors in kdprompt.CallableEmbedder"
    )


def check_store(store: "type[VectorStore] | None", search: Mapping[str, Any] | None, extra: Mapping[str, Any]) -> None:
    """Raises a ``ValueError`` if arguments for a vector store are given without one."""
    unused = [*(["vectorstore_kwargs"] if search else []), *extra]
    if store is None and unused:
        raise ValueError(f"{', '.join(unused)} is for a vector store, but vectorstore_cls is not given; give it")


def _warn_all_values() -> None:
    warnings.warn(
        "input_keys is not given: all values of an example are its text, as in LangChain's selectors, and outputs are "
        "unknown. Name input_keys, so that queries are compared with inputs alone and outputs are used.",
        stacklevel=4,
    )
