"""A kdprompt ``Embedder`` as LangChain's vector stores want it."""

from langchain_core.embeddings import Embeddings

from kdprompt.pool.embedding import Embedder, embed_documents, embed_queries

__all__ = ["StoreEmbeddings"]


class StoreEmbeddings(Embeddings):
    """A kdprompt ``Embedder`` as stores want it: lists of numbers."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Texts to ``[n, d]``."""
        rows: list[list[float]] = embed_documents(self.embedder, texts).tolist() if texts else []
        return rows

    def embed_query(self, text: str) -> list[float]:
        """One text to ``[d]``."""
        row: list[float] = embed_queries(self.embedder, [text])[0].tolist()
        return row
