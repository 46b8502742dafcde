"""An embedder made of a causal language model's own keys, so that selection uses the geometry of that model."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.probe.capture import CapturedAttention, capture_attention

__all__ = ["KeyEmbedder"]

LAST_TOKEN_PLACE = 256  # counted from 1; the last token of every shorter text stands there
ROUNDING = 1e-5  # a head's distance from its mean, relative to the mean's norm, below which it is rounding

_Projection = Literal["keys", "values"]


class KeyEmbedder:
    """Embeds texts by the keys of a causal language model; accepted wherever an ``Embedder`` is.

    A text is written as a query is (``Input: …`` and ``Output:``). At its last token, where the answer begins, the keys
    of the chosen heads are centred, scaled to length one and concatenated. The cosine of two texts is then the mean
    over the heads of the cosine of their keys, and a Gaussian kernel on it is the softmax kernel of these heads at the
    temperature that calibration finds.

    Softmax attention ignores what all keys have in common, which is most of them: without centring, all texts are near
    duplicates. The last token of every text stands at the same position, so that rotary position embeddings make no
    difference between texts.

    Args:
        model: A causal language model of transformers, as ``probe`` takes it.
        tokenizer: Its tokenizer.
        sample: Texts like those to be embedded, at least 2. Keys and values are centred on their means.
        layers: Which layers; None takes the later half, where labels are matched.
        heads: Which heads of each of these layers; None takes all.
        template: How a query is written; None takes the default.

    Raises:
        ValueError: The sample is too small, or the model has no such layer or head.

    Example:
        ``DistillationSelector.from_examples(examples, KeyEmbedder(model, tokenizer, sample=texts))``
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        sample: Sequence[str],
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        template: PromptTemplate | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.layers = None if layers is None else tuple(layers)
        self.heads = None if heads is None else tuple(heads)
        self.template = template or PromptTemplate()
        if isinstance(sample, str) or len(sample) < 2:
            raise ValueError(f"sample must hold at least 2 texts, got {sample!r:.80}")
        captured = [self._capture(text) for text in sample]
        self._means: dict[_Projection, Tensor] = {
            "keys": torch.stack([self._select_heads(text, "keys") for text in captured]).mean(0),
            "values": torch.stack([self._select_heads(text, "values") for text in captured]).mean(0),
        }

    def embed_documents(self, texts: list[str]) -> Tensor:
        """Keys of each text ``[n, layers · heads · d]``, unit norm, on the model's device."""
        return torch.stack([self._embed(text, "keys") for text in texts])

    def embed_query(self, text: str) -> Tensor:
        """Keys of one text ``[layers · heads · d]``, unit norm, on the model's device."""
        return self.embed_documents([text])[0]

    def values(self, texts: Sequence[str]) -> Tensor:
        """Values of each text ``[n, layers · heads · d]``, each head's scaled to the same length, the whole to 1."""
        return torch.stack([self._embed(text, "values") for text in texts])

    def _embed(self, text: str, projection: _Projection) -> Tensor:
        mean = self._means[projection]
        centred = self._select_heads(self._capture(text), projection) - mean
        norm = centred.norm(dim=-1, keepdim=True)
        # A head that does not tell the text from the sample counts as 0; its rounding is not scaled to length one.
        informative = norm > ROUNDING * mean.norm(dim=-1, keepdim=True)
        scaled = torch.where(informative, centred / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0)
        embedding: Tensor = scaled.flatten() / informative.sum().clamp_min(1).sqrt()
        return embedding

    def _capture(self, text: str) -> list[CapturedAttention]:
        token_ids = torch.as_tensor(self.tokenizer(self.template.text((), text))["input_ids"])
        last_position = max(LAST_TOKEN_PLACE, len(token_ids)) - 1
        return capture_attention(self.model, token_ids, last_position=last_position)

    def _select_heads(self, captured: Sequence[CapturedAttention], projection: _Projection) -> Tensor:
        """Keys or values of the chosen heads at the last token ``[layers · heads, d]``, float32."""
        count = len(captured)
        layers = range(count // 2, count) if self.layers is None else self.layers
        if any(not -count <= layer < count for layer in layers):
            raise ValueError(f"layers must be among the {count} of the model, got {list(layers)}")
        chosen = []
        for layer in layers:
            vectors: Tensor = getattr(captured[layer], projection)[:, -1]
            if self.heads is not None and any(not 0 <= head < len(vectors) for head in self.heads):
                raise ValueError(f"heads must be among the {len(vectors)} of each layer, got {list(self.heads)}")
            chosen.append(vectors if self.heads is None else vectors[list(self.heads)])
        return torch.cat(chosen).float()
