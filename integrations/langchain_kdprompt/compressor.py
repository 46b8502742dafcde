"""``DistillationCompressor``: which of the retrieved documents go into the prompt, and in which order, by J."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from pydantic import ConfigDict, Field, PrivateAttr
from torch import Tensor

from kdprompt.pool.embedding import Embedder, embed_documents, embed_queries
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings

__all__ = ["DistillationCompressor"]

REMEMBERED = 10_000


class DistillationCompressor(BaseDocumentCompressor):
    """Picks and orders retrieved documents by the objective that chooses demonstrations.

    Documents have no outputs, so J is the MMD of their texts to the query: what is near to it, without saying the same
    twice. Wrap a retriever that returns more than the prompt shall hold, with ``ContextualCompressionRetriever``.

    Attributes:
        embeddings: Any LangChain ``Embeddings`` or kdprompt ``Embedder``; None takes kdprompt's default.
        k: Documents to keep, or ``"auto"``; all of them where fewer are retrieved.
        settings: Budget, order and the rest; ``k`` is not used, nor ``search.exclude_query_text``, for a document may
            be the query.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> compressor = DistillationCompressor(embeddings=DeterministicFakeEmbedding(size=8), k=1)
        >>> found = compressor.compress_documents([Document("tea"), Document("coffee")], "tea")
        >>> [document.page_content for document in found]
        ['tea']
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    embeddings: Any = None
    k: int | Literal["auto"] = 4
    settings: Settings = Field(default_factory=lambda: Settings(calibrate=False))
    _embedder: Embedder | None = PrivateAttr(default=None)
    _known: dict[str, Tensor] = PrivateAttr(default_factory=dict)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The documents to show, in reading order; ids, metadata and texts are untouched.

        Args:
            documents: The retrieved ones; each text is embedded once and its vector kept.
            query: The user's query; one that says nothing leaves all as they are.
            callbacks: Not used.

        Raises:
            EmbeddingError: The embeddings do not fit.
        """
        with_text = [i for i, document in enumerate(documents) if document.page_content.strip()]
        if not with_text or not query.strip():
            return list(documents)
        pool = Pool(Demonstration(id=f"{i:06d}", input=documents[i].page_content) for i in with_text)
        k = self.k if self.k == "auto" else min(self.k, pool.distinct)
        search = self.settings.search.model_copy(update={"exclude_query_text": False})
        settings = Settings.model_validate({**dict(self.settings), "k": k, "search": search})
        vectors = self._vectors([shown.input for shown in pool])
        selector = DistillationSelector(EmbeddedPool.build(pool, vectors, self._used(), settings), settings)
        asked = embed_queries(self._used(), [query])
        found = selector.select_batch([query], vectors=asked)[0]
        return [documents[int(shown.id)] for shown in found.demonstrations]

    def _used(self) -> Embedder:
        if self._embedder is None:
            self._embedder = self.embeddings or SentenceTransformerEmbedder()
        return self._embedder

    def _vectors(self, texts: list[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            if len(self._known) + len(new) > REMEMBERED:
                self._known = {text: self._known[text] for text in texts if text in self._known}
            self._known.update(zip(new, embed_documents(self._used(), new), strict=True))
        return torch.stack([self._known[text] for text in texts])
