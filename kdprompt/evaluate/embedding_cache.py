"""Embeddings of texts, computed once: kept in memory and, where a folder is given, in files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdprompt.atomic_write import atomic_write
from kdprompt.evaluate.store import digest
from kdprompt.pool.embedding import Embedder

__all__ = ["EmbeddingCache"]


class EmbeddingCache:
    """Embeds each text once: known texts come from memory, lists of texts embedded before from files.

    Args:
        embedder: The embedder.
        name: Identifies the embedder in file names and results.
        folder: Folder of the embedding files; None writes none.
    """

    def __init__(self, embedder: Embedder, *, name: str, folder: Path | None = None) -> None:
        self.embedder = embedder
        self.name = name
        self.folder = folder
        self._vectors: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit-norm ``[n, d]``, float32 on the CPU."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._load_or_embed(new), strict=True))
        return torch.stack([self._vectors[text] for text in texts])

    def _load_or_embed(self, texts: list[str]) -> Tensor:
        from safetensors.torch import load_file, save

        path = self.folder / f"{digest(self.name, texts)}.safetensors" if self.folder else None
        if path is not None and path.is_file():
            return load_file(path)["vectors"]
        vectors = torch.as_tensor(self.embedder.embed_documents(texts)).float().cpu()
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
        if path is not None and len(texts) > 1:
            atomic_write(path, save({"vectors": vectors.contiguous()}))
        return vectors
