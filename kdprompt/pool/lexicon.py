"""Words beside meaning: TF-IDF features of texts that stand next to their embeddings.

An embedding knows that two questions are alike; that both name the same table, code or product it often does not. With
a share h of the words the inner product of two joint vectors is (1 − h)·dense + h·TF-IDF, so every kernel of it is
still a kernel. Words are hashed with a sign into a fixed number of buckets (Weinberger et al. 2009, arXiv 0902.2206),
which leaves inner products of short texts nearly as they are.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Lexicon"]

BUCKETS = 1024
WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Lexicon:
    """The words of a pool's inputs, and the share that they have in joint vectors.

    Attributes:
        share: h, in [0, 1].
        weights: Inverse document frequency of each word; others do not count.
    """

    share: float
    weights: Mapping[str, float]

    @classmethod
    def build(cls, texts: Sequence[str], share: float) -> "Lexicon":
        """The words of some texts, weighted by log((1 + n)/(1 + texts with it)) + 1."""
        counts = Counter(word for text in texts for word in set(_words(text)))
        return cls(share, {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in counts.items()})

    def encode(self, texts: Sequence[str]) -> Tensor:
        """TF-IDF features ``[m, 1024]`` of unit norm, float32 on the CPU; zero for a text without a known word."""
        places: list[tuple[int, int]] = []
        values: list[float] = []
        for row, text in enumerate(texts):
            for word, count in Counter(_words(text)).items():
                if word in self.weights:
                    code = zlib.crc32(word.encode())
                    places.append((row, code % BUCKETS))
                    values.append((1 + math.log(count)) * self.weights[word] * (1 if code >> 31 else -1))
        features = torch.zeros(len(texts), BUCKETS)
        if places:
            index = torch.tensor(places).T
            features.index_put_((index[0], index[1]), torch.tensor(values), accumulate=True)
        return torch.nn.functional.normalize(features, dim=-1)

    def join(self, dense: Tensor, texts: Sequence[str]) -> Tensor:
        """Joint vectors ``[m, d + 1024]`` of unit norm.

        Args:
            dense: Unit-norm embeddings of the texts ``[m, d]``.
            texts: The texts.
        """
        words = self.encode(texts).to(dense) * self.share**0.5
        joint = torch.cat([dense * (1 - self.share) ** 0.5, words], -1)
        return torch.nn.functional.normalize(joint, dim=-1, eps=1e-30)


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())
