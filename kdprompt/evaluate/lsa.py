"""A second embedding without a network, to measure how results depend on the embedder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["LatentSemanticEmbedder"]


class LatentSemanticEmbedder:
    """Latent semantic analysis: TF-IDF of words and word pairs, reduced by a truncated SVD (Deerwester et al. 1990).

    Args:
        texts: Texts that words and the reduction are fitted on.
        dimensions: Dimension d of the embedding, at most; few texts have fewer words.
        seed: Seed of the SVD.

    Raises:
        ImportError: scikit-learn is not installed.
    """

    def __init__(self, texts: Sequence[str], *, dimensions: int = 256, seed: int = 0) -> None:
        try:
            from sklearn.decomposition import TruncatedSVD
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.pipeline import make_pipeline
        except ImportError as error:
            raise ImportError("latent semantic analysis needs scikit-learn: pip install 'kdprompt[bench]'") from error
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
        counts = words.fit_transform(list(texts))
        reduction = TruncatedSVD(min(dimensions, counts.shape[1]), random_state=seed)
        reduction.fit(counts)
        self._pipeline: Any = make_pipeline(words, reduction)

    def embed_documents(self, texts: list[str]) -> Tensor:
        """Texts to ``[n, d]``; a text without a known word becomes a vector of ones."""
        vectors = torch.as_tensor(self._pipeline.transform(texts), dtype=torch.float32)
        blank = vectors.norm(dim=-1, keepdim=True) < 1e-6
        return torch.where(blank, torch.ones_like(vectors), vectors)

    def embed_query(self, text: str) -> Tensor:
        """One text to ``[d]``."""
        return self.embed_documents([text])[0]
