"""LangChain objects in examples, messages above all, as JSON and back."""

from typing import Any

from langchain_core.load import dumpd, load

__all__ = ["decode_value", "encode_value"]


def encode_value(value: Any) -> Any:
    """A LangChain object, such as a message, as JSON has it."""
    return dumpd(value)


def decode_value(value: Any) -> Any:
    """The messages in a value again as messages, wherever in it they stand."""
    return load(value, allowed_objects="messages")
