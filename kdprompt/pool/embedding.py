"""Texts to vectors: the embedder protocol, its adapters, and the default model.

The protocol is LangChain's own shape, so any LangChain ``Embeddings`` is an ``Embedder`` as it is. Vectors
stay where the embedder puts them; this is the only module that takes a device.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from kdprompt.errors import EmbeddingError

if TYPE_CHECKING:
    pass

__all__ = ["CallableEmbedder", "Embedder", "check_vectors", "embed_documents", "embed_queries", "embed_query_async"]


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

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self.function = function

    def embed_documents(self, texts: list[str]) -> Any:
        """The function's answer, ``[n, d]``."""
        return self.function(texts)

    def embed_query(self, text: str) -> Any:
        """The function's answer for one text, ``[d]``."""
        return self.function([text])[0]

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

    def one_by_one(distinct: list[str]) -> Tensor:
        rows = [_tensor(embedder.embed_query(text), "embed_query") for text in distinct]
        return _tensor([row.tolist() for row in rows], "embed_query") if _ragged(rows) else torch.stack(rows)

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
    return check_vectors(_tensor(vector, name)[None], [text], f"{name} of the embedder")[0]


def _embed_distinct(texts: Sequence[str], function: Callable[[list[str]], Any], name: str) -> Tensor:
    distinct = list(dict.fromkeys(texts))
    vectors = check_vectors(_tensor(function(distinct), name), distinct, f"{name} of the embedder")
    row = {text: i for i, text in enumerate(distinct)}
    return vectors[torch.tensor([row[text] for text in texts], dtype=torch.long, device=vectors.device)]


def _tensor(vectors: Any, name: str) -> Tensor:
    try:
        if isinstance(vectors, list) and vectors and isinstance(vectors[0], np.ndarray):
            vectors = np.stack(vectors)
        tensor = torch.as_tensor(vectors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EmbeddingError(
            f"{name} of the embedder must return an array of numbers, got {type(vectors).__name__}: {error}"
        ) from error
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)


def _ragged(rows: Sequence[Tensor]) -> bool:
    return len({row.shape for row in rows}) > 1


def check_vectors(vectors: Tensor, texts: Sequence[str], name: str) -> Tensor:
    """Returns the vectors if there is one finite, non-zero row a text.

    Args:
        vectors: ``[n, d]``.
        texts: The texts embedded, to be named in errors.
        name: Where the vectors come from.

    Raises:
        EmbeddingError: As ``embed_documents``.
    """
    if vectors.ndim != 2 or vectors.shape[0] != len(texts):
        raise EmbeddingError(
            f"{name} must return one row a text, shape [{len(texts)}, d], got shape {list(vectors.shape)}; "
            "nothing was changed"
        )
    for what, bad in (
        ("NaN or infinite values", ~torch.isfinite(vectors).all(-1)),
        ("zeros only", ~(vectors != 0).any(-1)),
    ):
        if bool(bad.any()):
            i = int(bad.nonzero()[0, 0])
            raise EmbeddingError(
                f"{name}: the row of text {i} ({texts[i]!r:.80}) has {what}; check the embedder on that text, or "
                "leave the text out. Nothing was changed."
            )
    return vectors
