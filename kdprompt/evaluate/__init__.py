"""The benchmark harness: data sets, contenders, readers, paired statistics; ``kdprompt bench`` is its command."""

from kdprompt.evaluate.contenders import (
    Contender,
    Distillation,
    FromLangChain,
    PerQuery,
    Shuffled,
    Static,
    contender,
    contenders,
)
from kdprompt.evaluate.datasets import Asked, Case, Dataset, EmbeddingCache, Problem
from kdprompt.evaluate.metrics import exact_match, label_accuracy, token_f1
from kdprompt.evaluate.models import HuggingFaceModel, smollm2
from kdprompt.evaluate.readers import LabelReader, TextReader
from kdprompt.evaluate.runner import Cell, Plan, run
from kdprompt.evaluate.store import Store
from kdprompt.evaluate.suites import duplicates, imbalance, label_noise, mixed, stress
from kdprompt.evaluate.summary import Results, joined, summarise
from kdprompt.reading import Answer, Reader

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
