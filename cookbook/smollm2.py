"""SmolLM2-135M-Instruct on the CPU: a real language model for the recipes, with neither network nor key.

Import this module before torch: it sets a few environment variables that are read once.
"""

import os
import warnings
from functools import lru_cache

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait cost much on shared cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")
warnings.filterwarnings("ignore", message="IProgress not found")  # no progress bars, so no ipywidgets

from torch import Tensor  # noqa: E402
from transformers.utils import logging  # noqa: E402

from kdprompt.readers import CausalLM, smollm2  # noqa: E402

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
