"""SmolLM2-135M-Instruct on the CPU: a real language model for the recipes, with neither network nor key.

Import this module before torch, as ``quiet`` wants it.
"""

from functools import lru_cache

import quiet  # noqa: F401  before torch

from torch import Tensor
from transformers.utils import logging

from kdprompt.readers import CausalLM, smollm2

__all__ = ["SmolLM2", "load"]


class SmolLM2:
    """The model, with the few calls that the recipes make."""

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self.tokenizer = model.tokenizer

    def count_tokens(self, text: str) -> int:
        """Length of a text in the model's own tokens."""
        return self.model.count_tokens(text)

    def label_log_probs(self, prompt: str, labels: list[str], *, per_token: bool = True) -> Tensor:
        """Log-likelihood of each label after the prompt, a token (the usual length normalisation) or as a whole."""
        return self.model.label_scores(prompt, labels) if per_token else self.model.label_log_probs(prompt, labels)

    def generate(self, prompt: str, max_new_tokens: int = 8) -> str:
        """The greedy continuation of a prompt, to its first line break."""
        return self.model.generate(prompt, max_new_tokens=max_new_tokens)


@lru_cache(maxsize=1)
def load() -> SmolLM2:
    """Loads the model, once a process; parsing its file takes some twenty seconds."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return SmolLM2(smollm2())
