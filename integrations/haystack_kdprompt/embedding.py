"""Haystack's text embedders as kdprompt's embedders, and embedders as the YAML of a pipeline.

An embedder is written as what makes it again: kdprompt's default by its options, a function by its name, anything
else by Haystack's own rule (its ``to_dict``, or constructor arguments that are kept under their names).

Rejected: pickle (loading it runs code, which Haystack's allowlist of modules is there to prevent).
"""

import sys
from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

from haystack.core.errors import SerializationError
from haystack.core.serialization import component_from_dict, component_to_dict, import_class_by_name
from haystack.utils import deserialize_callable, serialize_callable

from kdprompt.pool.embedding import CallableEmbedder, Embedder, embed_each
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder

__all__ = [
    "HaystackEmbedder",
    "TextEmbedder",
    "as_embedder",
    "check_embedder",
    "embedder_from_dict",
    "embedder_to_dict",
]


@runtime_checkable
class TextEmbedder(Protocol):
    """A Haystack text embedder component."""

    def run(self, text: str) -> dict[str, Any]:
        """One text to a dictionary with its ``embedding``."""
        ...


class HaystackEmbedder:
    """A Haystack text embedder as a kdprompt embedder: one text at a time, as the component takes them.

    Attributes:
        component: The text embedder.

    Example:
        >>> from haystack.components.embedders import MockTextEmbedder
        >>> HaystackEmbedder(MockTextEmbedder(embedding=[0.5, 1.0])).embed_query("a text")
        [0.5, 1.0]
    """

    def __init__(self, component: TextEmbedder) -> None:
        self.component = component

    def embed_documents(self, texts: list[str]) -> Any:
        """Texts to ``[n, d]``."""
        return embed_each(self.embed_query, texts)

    def embed_query(self, text: str) -> Any:
        """One text to ``[d]``."""
        return self.component.run(text=text)["embedding"]


def check_embedder(embedder: object) -> None:
    """Raises a ``TypeError`` if this is no embedder: neither None, nor Haystack's, nor kdprompt's."""
    if embedder is None or (isinstance(embedder, Embedder | TextEmbedder) and not isinstance(embedder, type)):
        return
    raise TypeError(
        "embedder must be a Haystack text embedder, a kdprompt Embedder (embed_documents and embed_query), or None, "
        f"got {embedder!r:.80}; wrap a function from texts to vectors in kdprompt.CallableEmbedder"
    )


def as_embedder(embedder: Embedder | TextEmbedder | None) -> Embedder | None:
    """As a kdprompt embedder, ready to run."""
    if embedder is None or isinstance(embedder, Embedder):
        return embedder
    warm_up = getattr(embedder, "warm_up", None)
    if warm_up is not None:
        warm_up()
    return HaystackEmbedder(embedder)


def embedder_to_dict(embedder: Embedder | TextEmbedder | None) -> dict[str, Any] | None:
    """What makes the embedder again.

    Raises:
        SerializationError: Nothing that could be written would; says what to do.
    """
    if embedder is None:
        return None
    if isinstance(embedder, SentenceTransformerEmbedder):
        return _options(embedder)
    made = embedder.component if isinstance(embedder, HaystackEmbedder) else embedder
    try:
        if isinstance(made, CallableEmbedder):
            return {"function": serialize_callable(made.function)}
        _check_importable(type(made))
        return component_to_dict(made, "embedder")
    except (SerializationError, AttributeError) as error:
        raise SerializationError(
            f"the embedder {embedder!r:.80} cannot be written into a pipeline file: {error} Give a Haystack text "
            "embedder, a kdprompt.CallableEmbedder around a function of a module, or a class of a module that has "
            "to_dict and from_dict (or keeps its constructor's arguments under their names)."
        ) from error


def _options(embedder: SentenceTransformerEmbedder) -> dict[str, Any]:
    if not embedder.by_name:
        raise SerializationError(
            "the embedder holds a model that was loaded by the caller, so there is no name to write into a pipeline "
            "file; give SentenceTransformerEmbedder the model's name or folder"
        )
    return {
        "model": None if embedder.name is None else str(embedder.name),
        "device": None if embedder.device is None else str(embedder.device),
        "batch_size": embedder.batch_size,
        "progress": embedder.progress,
        "prompt_names": list(embedder.prompt_names),
    }


def _check_importable(cls: type) -> None:
    if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is not cls:
        raise SerializationError(f"its class {cls.__module__}.{cls.__qualname__} cannot be imported by that name.")


def embedder_from_dict(data: Mapping[str, Any] | None) -> Embedder | TextEmbedder | None:
    """The embedder that ``embedder_to_dict`` wrote.

    Raises:
        DeserializationError: Its module is not on Haystack's allowlist (``allowed_modules`` of ``Pipeline.loads``).
    """
    if data is None:
        return None
    if "function" in data:
        return CallableEmbedder(deserialize_callable(data["function"]))
    if "type" in data:
        made = component_from_dict(import_class_by_name(data["type"]), dict(data), "embedder")
        return cast("Embedder | TextEmbedder", made)
    names = tuple(data.get("prompt_names") or (None, None))
    return SentenceTransformerEmbedder(**{**data, "prompt_names": names})
