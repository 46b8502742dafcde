"""Records queries, keys, values and attention of every layer in one forward pass of a causal language model.

transformers hands the rotated queries, keys and values of every attention layer to a function that it looks up by name.
For the length of one forward pass that name is ours: the function records what it is given and calls the eager
attention of the model's own file, so that grouped heads, soft caps and sliding windows are the model's own. This works
whatever attention the model was loaded with, flash attention included.

Rejected: ``output_attentions=True``, which gives the attention but neither queries nor keys, and hooks on the
projections, which see queries and keys before they are rotated.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["CapturedAttention", "capture_attention"]

ATTENTION_NAME = "kdprompt_probe"  # under which our function is registered in transformers


@dataclass(frozen=True)
class CapturedAttention:
    """One attention layer on one prompt of ``n`` tokens.

    Attributes:
        queries: Rotated queries ``[heads, n, d]``.
        keys: Rotated keys, repeated for grouped heads ``[heads, n, d]``.
        values: Values, repeated likewise ``[heads, n, d]``.
        weights: The model's own attention ``[heads, n, n]``; each row sums to 1.
        outputs: The model's own head outputs ``[heads, n, d]``.
        scaling: Factor of ⟨q, k⟩.
        softcap: c of c·tanh(⟨q, k⟩/c), or None.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    weights: Tensor
    outputs: Tensor
    scaling: float
    softcap: float | None


@dataclass(frozen=True)
class _LayerCall:
    """One call of an attention layer for one prompt, in the shapes of transformers.

    Attributes:
        query: ``[1, heads, n, d]``.
        key: ``[1, key heads, n, d]``; the heads are a multiple of the key heads.
        value: ``[1, key heads, n, d]``.
        weights: ``[1, heads, n, n]``.
        output: ``[1, n, heads, d]``.
        scaling: Factor of ⟨q, k⟩; None stands for 1/√d.
        softcap: As in ``CapturedAttention``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor
    output: Tensor
    scaling: float | None
    softcap: float | None

    def to_captured(self) -> CapturedAttention:
        """The same without the batch dimension, keys and values repeated for every head."""
        heads, key_heads, width = self.query.shape[1], self.key.shape[1], self.query.shape[-1]
        return CapturedAttention(
            queries=self.query[0].detach(),
            keys=self.key[0].detach().repeat_interleave(heads // key_heads, 0),
            values=self.value[0].detach().repeat_interleave(heads // key_heads, 0),
            weights=self.weights[0].detach(),
            outputs=self.output[0].detach().transpose(0, 1),
            scaling=float(width**-0.5 if self.scaling is None else self.scaling),
            softcap=self.softcap,
        )


@torch.no_grad()
def capture_attention(model: Any, token_ids: Tensor, *, last_position: int | None = None) -> list[CapturedAttention]:
    """Runs a causal language model on a prompt and returns its attention layers in order.

    Args:
        model: A causal language model of transformers.
        token_ids: The prompt ``[n]``.
        last_position: Position of the last token, at least n − 1; None takes n − 1. The model's context limits it.

    Raises:
        ValueError: The model is not causal, the prompt does not fit its context, or it does not attend through the
            interface of transformers.
    """
    context = _check_model(model, token_ids)
    last = len(token_ids) - 1 if last_position is None else last_position
    last = last if context is None else min(last, context - 1)
    positions = torch.arange(last - len(token_ids) + 1, last + 1, device=model.device)[None]
    layers: list[CapturedAttention] = []
    with _record_attention(model, layers):
        model(input_ids=token_ids[None].to(model.device), position_ids=positions, use_cache=False, logits_to_keep=1)
    if not layers:
        raise ValueError(
            f"{type(model).__name__} does not attend through transformers' attention interface, so its keys and values "
            "cannot be read; Llama, Qwen, Gemma, GPT-2 and GPT-NeoX do"
        )
    return layers


def _check_model(model: Any, token_ids: Tensor) -> int | None:
    """Checks that the model is causal and that the prompt fits; returns the model's context, None where it has none."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    causal = any(suffix in type(model).__name__ for suffix in ("CausalLM", "LMHead", "ConditionalGeneration"))
    if not causal or getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"the probe needs a causal language model, got {type(model).__name__}: in an encoder every token attends "
            "to the whole prompt, so none reads demonstrations the way a generated answer does"
        )
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and len(token_ids) > context:
        raise ValueError(
            f"the prompt has {len(token_ids)} tokens and {type(model).__name__} a context of {context}: show fewer or "
            "shorter demonstrations"
        )
    return context


@contextmanager
def _record_attention(model: Any, layers: list[CapturedAttention]) -> Iterator[None]:
    """Within it, each attention layer that the model computes is appended to ``layers``; then all is as before."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        eager_attention = sys.modules[type(module).__module__].eager_attention_forward
        output, weights = eager_attention(module, query, key, value, mask, **options)
        call = _LayerCall(query, key, value, weights, output, options.get("scaling"), options.get("softcap"))
        layers.append(call.to_captured())
        return output, weights

    attention_before, training_before = model.config._attn_implementation, model.training
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, eager_mask)
    model.eval()
    try:
        model.set_attn_implementation(ATTENTION_NAME)
        yield
    finally:
        model.set_attn_implementation(attention_before)
        model.train(training_before)
