"""LlamaIndex's embedding models as kdprompt's embedders."""

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from kdprompt.pool.embedding import Embedder

__all__ = ["LlamaIndexEmbedder", "as_embedder"]


class LlamaIndexEmbedder:
    """A LlamaIndex embedding model as a kdprompt embedder: pool in batches, queries by the model's query side.

    Attributes:
        model: The embedding model.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> LlamaIndexEmbedder(MockEmbedding(embed_dim=2)).embed_query("a text")
        [0.5, 0.5]
    """

    def __init__(self, model: BaseEmbedding) -> None:
        self.model = model

    def embed_documents(self, texts: list[str]) -> Any:
        """Texts to ``[n, d]``, in batches of the model's ``embed_batch_size``."""
        return self.model.get_text_embedding_batch(texts)

    def embed_query(self, text: str) -> Any:
        """One text to ``[d]``."""
        return self.model.get_query_embedding(text)


def as_embedder(embeddings: object) -> Embedder | None:
    """What the caller gave as a kdprompt embedder; None stays None.

    Raises:
        TypeError: It is neither a LlamaIndex embedding model nor an embedder.
    """
    if isinstance(embeddings, BaseEmbedding):
        return LlamaIndexEmbedder(embeddings)
    if embeddings is None or (isinstance(embeddings, Embedder) and not isinstance(embeddings, type)):
        return embeddings
    raise TypeError(
        "embeddings must be a LlamaIndex embedding model (a BaseEmbedding), a kdprompt Embedder (embed_documents and "
        f"embed_query), or None, got {embeddings!r:.80}; wrap a function from texts to vectors in "
        "kdprompt.CallableEmbedder"
    )
