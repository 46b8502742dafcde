"""LangChain's messages in examples, as JSON and back; all else in an example is JSON already, or is refused.

A message is written as LangChain writes it, a dictionary with the key ``lc``. A dictionary of the user's own that has
that key goes into an envelope, so that it is never taken for a message.

Rejected: ``dumpd`` of whole examples (it writes what it does not know as a note that cannot be read again, and tuples
as lists).
"""

import json
from typing import Any

from langchain_core.load import dumpd, load
from langchain_core.messages import BaseMessage

from kdprompt.pool.records import Demonstration

__all__ = ["decode_value", "encode_value", "escape_fields"]

ENVELOPE = "__lc_escaped__"  # LangChain's own word for it


def escape_fields(shown: Demonstration) -> Demonstration:
    """The demonstration with envelopes around what looks like a message and is none; messages stay as they are."""
    return shown.model_copy(update={"fields": {key: _escape(value) for key, value in shown.fields.items()}})


def _escape(value: Any) -> Any:
    if isinstance(value, list):
        return [_escape(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    inside = {key: _escape(inner) for key, inner in value.items()}
    return {ENVELOPE: inside} if "lc" in value or value.keys() == {ENVELOPE} else inside


def encode_value(value: Any) -> Any:
    """A message as JSON has it, for ``default`` of ``json.dumps``.

    Raises:
        TypeError: It is no message, or one that would come back as another.
    """
    kind = type(value).__name__
    if not isinstance(value, BaseMessage):
        raise TypeError(f"JSON has no form for a {kind}")
    try:
        written = json.loads(json.dumps(dumpd(value), allow_nan=False))
        is_same = bool(_revive(written) == value)
    except Exception as error:  # whatever LangChain, or a value inside that it does not know, raises
        raise TypeError(f"LangChain cannot write this {kind} so that it can be read again: {error!s:.200}") from error
    if not is_same:
        raise TypeError(f"LangChain writes this {kind} so that it comes back as another (a tuple or a set in it, say)")
    return written


def decode_value(value: Any) -> Any:
    """What ``escape_fields`` and ``encode_value`` made of a value as it was, messages wherever in it they stand."""
    if isinstance(value, list):
        return [decode_value(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {ENVELOPE} and isinstance(value[ENVELOPE], dict):
        return {key: decode_value(inner) for key, inner in value[ENVELOPE].items()}
    if "lc" in value:
        message = _revive(value)
        return message if isinstance(message, BaseMessage) else value
    return {key: decode_value(inner) for key, inner in value.items()}


def _revive(value: Any) -> Any:
    return load(value, allowed_objects="messages")
