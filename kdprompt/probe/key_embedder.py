"""Selection in the geometry of the model that will read the prompt: its own keys as an embedding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.probe.capture import Captured, capture

__all__ = ["AttentionKernel"]

PLACE = 256  # where the last token stands, whatever a text's length


class AttentionKernel:
    """κ and v from a causal LM's own keys and values, wherever an ``Embedder`` is accepted.

    A text is written as a query is (``Input: …`` and ``Output:``); at its last token, where the answer begins, the keys
    of the chosen heads are centred, scaled to length one and set side by side. The cosine of two texts is then the mean
    over the heads of the cosine of their keys, and a Gaussian kernel on it is the softmax kernel of these heads at the
    temperature that calibration finds. Softmax attention does not see what all keys share, and that is much of them:
    without centring all texts are near duplicates. Rotary positions are taken out by letting every last token stand at
    one place.

    Args:
        model: A causal LM of transformers, as ``probe`` takes it.
        tokenizer: Its tokenizer.
        sample: Texts like those to be embedded, at least 2: their mean key is what is taken out.
        layers: Which layers; None takes the later half, where labels are matched.
        heads: Which heads of each of them; None takes all.
        template: How a query is written.

    Example:
        ``DistillationSelector.from_examples(examples, AttentionKernel(model, tokenizer, sample=texts))``
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
        captured = [self._read(text) for text in sample]
        self._centre = {part: torch.stack([self._heads(one, part) for one in captured]).mean(0) for part in ("k", "v")}

    def embed_documents(self, texts: list[str]) -> Tensor:
        """Keys of each text ``[n, layers · heads · d]``, unit norm, on the model's device."""
        return torch.stack([self._embedded(text, "k") for text in texts])

    def embed_query(self, text: str) -> Tensor:
        """Keys of one text ``[layers · heads · d]``."""
        return self.embed_documents([text])[0]

    def values(self, texts: Sequence[str]) -> Tensor:
        """Values of each text ``[n, layers · heads · d]``, each head's scaled to length one, the whole to unit norm."""
        return torch.stack([self._embedded(text, "v") for text in texts])

    def _embedded(self, text: str, part: str) -> Tensor:
        own, centre = self._heads(self._read(text), part), self._centre[part]
        size = (own - centre).norm(dim=-1, keepdim=True)
        # A head that does not tell the text from the sample says nothing: its rounding is not blown up to length one.
        told = size > 1e-5 * centre.norm(dim=-1, keepdim=True)
        scaled = torch.where(told, (own - centre) / size.clamp_min(torch.finfo(size.dtype).tiny), 0)
        found: Tensor = scaled.flatten() / told.sum().clamp_min(1).sqrt()
        return found

    def _read(self, text: str) -> list[Captured]:
        ids = torch.as_tensor(self.tokenizer(self.template.text((), text))["input_ids"])
        return capture(self.model, ids, last=max(PLACE, len(ids)) - 1)

    def _heads(self, captured: Sequence[Captured], part: str) -> Tensor:
        """Keys or values of the chosen heads at the last token ``[layers · heads, d]``, float32."""
        count = len(captured)
        layers = range(count // 2, count) if self.layers is None else self.layers
        if any(not -count <= layer < count for layer in layers):
            raise ValueError(f"layers must be among the {count} of the model, got {list(layers)}")
        parts = []
        for layer in layers:
            every: Tensor = getattr(captured[layer], part)[:, -1]
            if self.heads is not None and any(not 0 <= head < len(every) for head in self.heads):
                raise ValueError(f"heads must be among the {len(every)} of each layer, got {list(self.heads)}")
            parts.append(every if self.heads is None else every[list(self.heads)])
        return torch.cat(parts).float()
