"""Reads queries, keys and values where the model attends, whatever attention it was loaded with.

transformers hands every attention layer's rotated queries, keys and values to one function that is looked up by
name. For the length of a forward pass the name is one of ours: it keeps what it is given and calls the model file's own
eager attention, so that grouped heads, soft caps and sliding windows are the model's own. A model loaded with flash
attention is therefore read exactly too.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Captured", "capture"]

NAME = "kdprompt_probe"


@dataclass(frozen=True)
class Captured:
    """One attention layer on one prompt.

    Attributes:
        q: Rotated queries ``[heads, n, d]``.
        k: Rotated keys, repeated for grouped heads ``[heads, n, d]``.
        v: Values, repeated likewise ``[heads, n, d]``.
        weights: The model's own attention ``[heads, n, n]``.
        output: The model's own head outputs ``[heads, n, d]``.
        scaling: Of ⟨q, k⟩.
        softcap: c of c·tanh(⟨q, k⟩/c), or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor
    output: Tensor
    scaling: float
    softcap: float | None


@torch.no_grad()
def capture(model: Any, ids: Tensor, *, last: int | None = None) -> list[Captured]:
    """Runs a causal LM on token ids ``[n]`` and returns its attention layers in order.

    Args:
        model: The causal LM.
        ids: Token ids ``[n]``.
        last: Position of the last token, at least n − 1; None takes n − 1. Limited by the context.

    Raises:
        ValueError: The model is not causal, the prompt does not fit its context, or it attends in a way of its own.
    """
    most = _check(model, ids)
    last = len(ids) - 1 if last is None else last
    last = last if most is None else min(last, most - 1)
    places = torch.arange(last - len(ids) + 1, last + 1, device=model.device)[None]
    kept: list[Captured] = []
    with _listening(model, kept):
        model(input_ids=ids[None].to(model.device), position_ids=places, use_cache=False, logits_to_keep=1)
    if not kept:
        raise ValueError(
            f"{type(model).__name__} does not attend through transformers' attention interface, so its keys and values "
            "cannot be read; Llama, Qwen, Gemma, GPT-2 and GPT-NeoX do"
        )
    return kept


def _check(model: Any, ids: Tensor) -> int | None:
    """The model's context, if it has one."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    causal = any(sign in type(model).__name__ for sign in ("CausalLM", "LMHead", "ConditionalGeneration"))
    if not causal or getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"the probe needs a causal language model, got {type(model).__name__}: in an encoder every token attends "
            "to the whole prompt, so none reads demonstrations the way a generated answer does"
        )
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and len(ids) > most:
        raise ValueError(
            f"the prompt has {len(ids)} tokens and {type(model).__name__} a context of {most}: show fewer or shorter "
            "demonstrations"
        )
    return most


@contextmanager
def _listening(model: Any, kept: list[Captured]) -> Iterator[None]:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        output, weights = eager(module, query, key, value, mask, **options)
        kept.append(_captured((query, key, value), weights, output, options))
        return output, weights

    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
    was_training = model.training
    model.eval()
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)


def _captured(qkv: tuple[Tensor, Tensor, Tensor], weights: Tensor, output: Tensor, options: dict[str, Any]) -> Captured:
    q, k, v = (part[0].detach() for part in qkv)
    groups = q.shape[0] // k.shape[0]
    scaling = options.get("scaling")
    return Captured(
        q=q,
        k=k.repeat_interleave(groups, 0),
        v=v.repeat_interleave(groups, 0),
        weights=weights[0].detach(),
        output=output[0].detach().transpose(0, 1),
        scaling=float(q.shape[-1] ** -0.5 if scaling is None else scaling),
        softcap=options.get("softcap"),
    )
