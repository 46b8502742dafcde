"""Texts to vectors: the embedder protocol, its adapters, and the default model.

The protocol is LangChain's own shape, so any LangChain ``Embeddings`` is an ``Embedder`` as it is. Vectors
stay where the embedder puts them; this is the only module that takes a device.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from kdprompt.pool.vectors import check_vectors, read_vectors

__all__ = ["CallableEmbedder", "Embedder", "TextsToVectors", "embed_documents", "embed_queries", "embed_query_async"]

TextsToVectors = Callable[[list[str]], Any]
"""A function from a list of texts to ``[n, d]``."""


@runtime_checkable
class Embedder(Protocol):
    """Anything with LangChain's two embedding methods."""

    def embed_documents(self, texts: list[str]) -> Any:
        """Texts to ``[n, d]``: a tensor, an array, or a list of lists of numbers."""
        ...

    def embed_query(self, text: str) -> Any:
        """One text to ``[d]``."""
        ...


class CallableEmbedder:
    """An embedder around a function from a list of texts to ``[n, d]``.

    Example:
        >>> embedder = CallableEmbedder(lambda texts: [[float(len(t)), 1.0] for t in texts])
        >>> embedder.embed_query("four")
        [4.0, 1.0]
    """

    def __init__(self, function: TextsToVectors) -> None:
        self.function = function

    def embed_documents(self, texts: list[str]) -> Any:
        """The function's answer, ``[n, d]``."""
        return self.function(texts)

    def embed_query(self, text: str) -> Any:
        """The function's answer for one text, ``[d]``."""
        rows = self.function([text])
        return rows[0] if hasattr(rows, "__getitem__") else next(iter(rows))

    def embed_queries(self, texts: list[str]) -> Any:
        """The function's answer for many queries, ``[m, d]``."""
        return self.function(texts)


def embed_documents(embedder: Embedder, texts: Sequence[str]) -> Tensor:
    """Embeds texts once each and checks what came back.

    Args:
        embedder: The embedder.
        texts: Texts; equal ones are embedded once.

    Returns:
        ``[n, d]`` of a floating dtype.

    Raises:
        EmbeddingError: Wrong number of rows, ragged rows, NaN, infinite or zero rows; names the text.
    """
    return _embed_distinct(texts, embedder.embed_documents, "embed_documents")


def embed_queries(embedder: Embedder, texts: Sequence[str]) -> Tensor:
    """As ``embed_documents``, with the embedder's query side; in one pass where it has ``embed_queries``."""
    batched = getattr(embedder, "embed_queries", None)
    if batched is not None:
        return _embed_distinct(texts, batched, "embed_queries")

    def one_by_one(distinct: list[str]) -> list[Tensor]:
        return [_read_one(embedder.embed_query(text), text, "embed_query") for text in distinct]

    return _embed_distinct(texts, one_by_one, "embed_query")


async def embed_query_async(embedder: Embedder, text: str) -> Tensor | None:
    """One query's embedding ``[d]`` without holding up the event loop; None where many are better embedded together.

    An embedder with ``embed_queries`` takes a whole batch at once. The others are asked at the same time, by their own
    ``aembed_query`` where they have one, so that those behind a network wait together and not one after the other.

    Raises:
        EmbeddingError: As ``embed_documents``.
    """
    if hasattr(embedder, "embed_queries"):
        return None
    embed_async = getattr(embedder, "aembed_query", None)
    name = "embed_query" if embed_async is None else "aembed_query"
    vector = await (asyncio.to_thread(embedder.embed_query, text) if embed_async is None else embed_async(text))
    return check_vectors([_read_one(vector, text, name)], [text], f"{name} of the embedder")[0]


def _read_one(vector: Any, text: str, name: str) -> Tensor:
    """One vector as a tensor of its own: an embedder may use its buffer again for the next text."""
    return read_vectors(vector, [text], f"{name} of the embedder")


def _embed_distinct(texts: Sequence[str], function: TextsToVectors, name: str) -> Tensor:
    distinct = list(dict.fromkeys(texts))
    vectors = check_vectors(function(list(distinct)), distinct, f"{name} of the embedder")  # it may sort its list
    row = {text: i for i, text in enumerate(distinct)}
    return vectors[torch.tensor([row[text] for text in texts], dtype=torch.long, device=vectors.device)]
