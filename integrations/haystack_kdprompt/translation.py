"""Haystack's words into kdprompt's and into YAML: documents into records and vectors, settings into plain values.

Rejected: dictionaries of settings with the names of classes in them (a pipeline file is written by hand, too; what
has no plain value goes into a saved selector).
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from haystack import Document
from haystack.core.errors import SerializationError
from torch import Tensor

from kdprompt.errors import EmbeddingError, PoolError
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Schema
from kdprompt.settings import Settings

__all__ = [
    "DocumentStore",
    "Examples",
    "build_pool",
    "copy_examples",
    "examples_from_dict",
    "examples_to_dict",
    "pack_json",
    "settings_to_dict",
    "unpack_json",
]

PLAIN = (str, int, float, bool, type(None))


@runtime_checkable
class DocumentStore(Protocol):
    """What is needed of a Haystack document store."""

    def to_dict(self) -> dict[str, Any]:
        """The store as a dictionary."""
        ...

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """The documents that fit, all without filters."""
        ...


Examples = Sequence[Mapping[str, Any] | Document] | str | Path | DocumentStore


def copy_examples(examples: Iterable[Mapping[str, Any] | Document] | str | Path | DocumentStore) -> Examples:
    """What a component keeps of its examples: copies, the path, or the store.

    Raises:
        PoolError: An example is neither a mapping nor a document, or there are some of both.
    """
    if isinstance(examples, str | Path | DocumentStore):
        return examples
    given = list(examples)
    documents = [isinstance(example, Document) for example in given]
    for i, example in enumerate(given):
        if not isinstance(example, Mapping | Document):
            raise PoolError(
                f"example {i} must be a mapping or a Haystack Document, got {type(example).__name__}: {example!r:.80}"
            )
        if documents[i] != documents[0]:
            raise PoolError(
                f"examples must be mappings alone or Documents alone, but example {i} is a {type(example).__name__} "
                f"and example 0 a {type(given[0]).__name__}"
            )
    return [example if isinstance(example, Document) else copy.deepcopy(dict(example)) for example in given]


def build_pool(examples: Examples, schema: Schema | None) -> tuple[Pool, Tensor | None]:
    """The pool, and the embeddings ``[n, d]`` that its documents have.

    Raises:
        FileNotFoundError: There is no such file.
        MissingKeyError, PoolError: An example cannot be used.
        EmbeddingError: Some documents have an embedding and others have none.
    """
    if isinstance(examples, str | Path):
        return Pool.from_file(examples, schema), None
    given = examples.filter_documents() if isinstance(examples, DocumentStore) else examples
    documents = [example for example in given if isinstance(example, Document)]
    if not documents:
        return Pool.from_records(cast("Sequence[Mapping[str, Any]]", given), schema), None
    schema = schema or Schema()
    pool = Pool.from_records([_record(document, i, schema) for i, document in enumerate(documents)], schema)
    return pool, _embeddings(documents)


def _record(document: Document, i: int, schema: Schema) -> dict[str, Any]:
    if document.content is None:
        raise PoolError(f"document {i} (id {document.id!r}) has no content; give it text or leave it out")
    identity = {} if schema.id is None else {schema.id: document.id}
    return {**identity, **copy.deepcopy(document.meta), schema.inputs[0]: document.content}


def _embeddings(documents: Sequence[Document]) -> Tensor | None:
    vectors = [document.embedding for document in documents]
    bare = [i for i, vector in enumerate(vectors) if vector is None]
    if len(bare) == len(documents):
        return None
    if bare:
        raise EmbeddingError(
            f"document {bare[0]} (id {documents[bare[0]].id!r}) has no embedding and others have one; embed all of "
            "them with one model, or none"
        )
    widths = sorted({len(vector) for vector in vectors if vector is not None})
    if len(widths) > 1:
        raise EmbeddingError(f"the documents' embeddings have {widths} dimensions; embed all of them with one model")
    return torch.tensor(vectors)


# -- into YAML and back ---------------------------------------------------------------------------------------------


def examples_to_dict(examples: Examples | None) -> Any:
    """Examples as plain values: records and documents as JSON, a store as its dictionary, a path as text.

    Raises:
        SerializationError: A value of an example has no plain form.
    """
    if examples is None or isinstance(examples, str):
        return examples
    if isinstance(examples, Path):
        return str(examples)
    if isinstance(examples, DocumentStore):
        return examples.to_dict()
    return [_example_to_dict(example, f"example {i}") for i, example in enumerate(examples)]


def _example_to_dict(example: Mapping[str, Any] | Document, where: str) -> dict[str, str]:
    if not isinstance(example, Document):
        return pack_json(example, where)
    return {
        "document": pack_json({**example.to_dict(flatten=False), "meta": example.meta}, where, example.meta)["json"]
    }


def examples_from_dict(examples: Any) -> Any:
    """Examples again of what ``examples_to_dict`` made; mappings written by hand stay as they are."""
    if not isinstance(examples, list):
        return examples
    return [_example_from_dict(example) for example in examples]


def _example_from_dict(example: Any) -> Any:
    if isinstance(example, Mapping) and example.keys() == {"document"}:
        return Document.from_dict(json.loads(example["document"]))
    return unpack_json(example)


def pack_json(record: Mapping[str, Any], where: str, values: Mapping[str, Any] | None = None) -> dict[str, str]:
    """A record as JSON in one value: YAML, as Haystack writes it, would sort its keys.

    Args:
        record: The record.
        where: Names it in errors.
        values: What is checked of it; None: everything.

    Raises:
        SerializationError: JSON would not give a value back as it is.
    """
    for key, value in (record if values is None else values).items():
        if not isinstance(key, str) or not _plain(value):
            raise SerializationError(
                f"{where} cannot be written into a pipeline file: its {key!r} is {value!r:.80}, which would not come "
                "back as it is. Use text, numbers, lists and dictionaries with text keys, or keep the examples in a "
                "JSONL file and give its path."
            )
    return {"json": json.dumps(record, ensure_ascii=False)}


def unpack_json(value: Any) -> Any:
    """The record of ``pack_json``; anything else stays as it is."""
    if isinstance(value, Mapping) and value.keys() == {"json"} and isinstance(value["json"], str):
        return json.loads(value["json"])
    return value


def _plain(value: Any) -> bool:
    if type(value) is list:
        return all(map(_plain, value))
    if type(value) is dict:
        return all(type(key) is str and _plain(inner) for key, inner in value.items())
    return type(value) in PLAIN


def settings_to_dict(settings: Settings | None) -> dict[str, Any] | None:
    """The settings that are not the defaults, as plain values that ``Settings`` takes.

    Raises:
        SerializationError: One of them has no plain value (a function, an order or a kernel of your own).
    """
    if settings is None:
        return None
    default = Settings()
    changed: dict[str, Any] = {}
    for name, value in settings:
        if value == getattr(default, name):
            continue
        try:
            plain = json.loads(settings.model_dump_json(include={name}))
            restored = Settings.model_validate(plain)
        except ValueError:  # of pydantic: no JSON, or not valid
            restored = None
        if restored is None or getattr(restored, name) != value:
            raise SerializationError(
                f"the setting {name} cannot be written into a pipeline file: {value!r:.80}. Leave it out, or save the "
                "selector once it is warm (component.selector.save(path)) and give the file: saved=path."
            )
        changed |= plain
    return changed
