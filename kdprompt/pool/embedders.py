"""Whatever people have that makes texts into vectors, as an ``Embedder``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from kdprompt.pool.embedding import CallableEmbedder, Embedder, TextsToVectors
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["AnyEmbedder", "as_embedder"]

AnyEmbedder = Union[Embedder, TextsToVectors, "SentenceTransformer", str, Path]
"""An embedder; a function from texts to vectors; a sentence-transformers model, or the name or folder of one."""


def as_embedder(embeddings: AnyEmbedder | None, name: str = "embeddings") -> Embedder:
    """The embedder itself, or one around what was given.

    Args:
        embeddings: An object with ``embed_documents`` and ``embed_query``, as LangChain's ``Embeddings``; a function
            from a list of texts to ``[n, d]``; a loaded ``SentenceTransformer``; the name or folder of such a model;
            None: the default model, all-MiniLM-L6-v2.
        name: Names the argument in errors.

    Raises:
        TypeError: It is none of these.

    Example:
        >>> as_embedder(lambda texts: [[1.0, float(len(text))] for text in texts]).embed_query("four")
        [1.0, 4.0]
    """
    if embeddings is None or isinstance(embeddings, str | Path):
        return SentenceTransformerEmbedder(embeddings)
    if isinstance(embeddings, type):
        raise TypeError(f"{name} must be an embedder, got the class {embeddings.__name__}; make an object of it")
    if isinstance(embeddings, Embedder):
        return embeddings
    model: Any = embeddings
    if any(base.__name__ == "SentenceTransformer" for base in type(model).__mro__):
        return SentenceTransformerEmbedder(model)
    if callable(model):
        return CallableEmbedder(model)
    raise TypeError(
        f"{name} must be an embedder (embed_documents and embed_query, as LangChain's have them), a function from a "
        f"list of texts to vectors, a SentenceTransformer, or the name of its model, got {embeddings!r:.80}"
    )
