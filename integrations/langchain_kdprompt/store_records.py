"""An example as the metadata of a document in a vector store, and back.

A store's metadata gets the example as one JSON text, since some stores change what they are given, and beside it the
example's plain values, for the store's own filters.
"""

import json
import warnings
from typing import Any

from langchain_core.documents import Document

from kdprompt.pool.records import Demonstration, Schema
from kdprompt.storage import demonstration_from_record, demonstration_to_record
from langchain_kdprompt.serialization import decode_value, encode_value, escape_fields
from langchain_kdprompt.translation import parse_example

__all__ = ["build_metadata", "read_demonstration"]

RECORD = "kdprompt"  # the metadata key of the example's JSON


def build_metadata(shown: Demonstration) -> dict[str, Any]:
    """What a store keeps with an example.

    Raises:
        PoolError: JSON cannot keep it as it is.
    """
    plain = {key: value for key, value in shown.fields.items() if isinstance(value, str | int | float | bool)}
    record = demonstration_to_record(escape_fields(shown), f"the example {shown.input!r:.60}", encode_value)
    return {**plain, RECORD: json.dumps(record, ensure_ascii=False)}


def read_demonstration(ident: str, document: Document, schema: Schema) -> Demonstration | None:
    """The example of a document: kdprompt's own JSON, else the metadata, as LangChain's selectors keep it.

    Args:
        ident: The store's id of the document.
        document: The document.
        schema: Which keys of an example hold what.

    Returns:
        None where kdprompt's JSON is damaged, with a warning that names the document: the others can be shown.

    Raises:
        MissingKeyError, PoolError: The metadata of another's document are no example; it is named.
    """
    record = document.metadata.get(RECORD)
    if record is not None:
        try:
            return demonstration_from_record(json.loads(record), decode_value)
        except Exception as error:  # whatever JSON, LangChain or pydantic make of damaged text
            _warn_damaged(ident, record, error)
            return None
    values = {key: value for key, value in document.metadata.items() if key not in ("_id", "_collection_name")}
    example = values or {key: document.page_content for key in schema.inputs}
    shown = parse_example(example, schema, f"the document {ident!r} of the store")
    return shown if schema.id in example else shown.model_copy(update={"id": ident})


def _warn_damaged(ident: str, record: object, error: Exception) -> None:
    warnings.warn(
        f"the document {ident!r} of the store is passed over: its {RECORD!r} must be an example's JSON, got "
        f"{record!r:.60} ({type(error).__name__}: {error!s:.80}). Delete it from the store, or add the example again.",
        stacklevel=2,
    )
