"""The benchmark harness: data sets, contenders, readers, paired statistics; ``kdprompt bench`` is its command."""

from kdprompt.evaluate.datasets import Asked, Case, Dataset, EmbeddingCache, Problem
from kdprompt.evaluate.metrics import exact_match, label_accuracy, token_f1
from kdprompt.evaluate.runner import Cell, Plan, run
from kdprompt.evaluate.selectors import (
    Contender,
    Distillation,
    FromLangChain,
    PerQuery,
    Shuffled,
    Static,
    contender,
    contenders,
)
from kdprompt.evaluate.store import Store
from kdprompt.evaluate.stress import duplicates, imbalance, label_noise, mixed, stress
from kdprompt.evaluate.tables import Results, joined, summarise
from kdprompt.readers import Answer, LabelReader, Reader, TextReader, smollm2
from kdprompt.readers import CausalLM as HuggingFaceModel

__all__ = [
    "Answer",
    "Asked",
    "Case",
    "Cell",
    "Contender",
    "Dataset",
    "Distillation",
    "EmbeddingCache",
    "FromLangChain",
    "HuggingFaceModel",
    "LabelReader",
    "PerQuery",
    "Plan",
    "Problem",
    "Reader",
    "Results",
    "Shuffled",
    "Static",
    "Store",
    "TextReader",
    "contender",
    "contenders",
    "duplicates",
    "exact_match",
    "imbalance",
    "joined",
    "label_accuracy",
    "label_noise",
    "mixed",
    "run",
    "smollm2",
    "stress",
    "summarise",
    "token_f1",
]
