"""Readers: the language models that answer a prompt.

``LabelReader`` asks a local causal language model which of several labels is likeliest; ``TextReader`` wraps any
function or LangChain model that writes text. Both follow the protocol ``Reader``, which ``calibrate``,
``select_static`` and the benchmark harness accept.
"""

from kdprompt.readers.causal_lm import CausalLM, load_causal_lm, smollm2
from kdprompt.readers.label_reader import LabelReader, LabelScoring
from kdprompt.readers.precision import Precision
from kdprompt.readers.reader import Answer, Reader
from kdprompt.readers.scores import LabelScores
from kdprompt.readers.text_reader import TextReader

__all__ = [
    "Answer",
    "CausalLM",
    "LabelReader",
    "LabelScores",
    "LabelScoring",
    "Precision",
    "Reader",
    "TextReader",
    "load_causal_lm",
    "smollm2",
]
