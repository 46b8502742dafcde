"""Embeddings of texts for benchmarks, of unit norm: kept in memory and, where a folder is given, on disk."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdprompt.pool.embedding import CallableEmbedder, Embedder
from kdprompt.pool.embedding_cache import CachedEmbedder

__all__ = ["EmbeddingCache"]


class EmbeddingCache:
    """Embeds each text once: known texts come from memory, and from the folder's ``CachedEmbedder``.

    Args:
        embedder: The embedder.
        name: Identifies the embedder on disk and in results.
        folder: Folder of the embeddings; None writes none.
    """

    def __init__(self, embedder: Embedder, *, name: str, folder: Path | None = None) -> None:
        self.embedder = embedder
        self.name = name
        self.folder = folder
        documents = CallableEmbedder(embedder.embed_documents)
        self._documents = documents if folder is None else CachedEmbedder(documents, folder, name=name)
        self._vectors: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit-norm ``[n, d]``, float32 on the CPU."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            vectors = torch.as_tensor(self._documents.embed_documents(new)).float().cpu()
            self._vectors.update(zip(new, torch.nn.functional.normalize(vectors, dim=-1), strict=True))
        return torch.stack([self._vectors[text] for text in texts])
