"""The benchmark harness: data sets, selectors, readers, paired statistics; ``kdprompt bench`` is its command."""

import sys
from typing import TYPE_CHECKING

from kdprompt.deprecation import resolve_renamed
from kdprompt.evaluate.benchmark_pool import BenchmarkPool, QueryBatch
from kdprompt.evaluate.cell import Cell
from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.evaluate.embedding_cache import EmbeddingCache
from kdprompt.evaluate.metrics import exact_match, json_f1, json_match, label_accuracy, token_f1
from kdprompt.evaluate.predictors import Predictor
from kdprompt.evaluate.results_file import read_results, write_results_text
from kdprompt.evaluate.runner import Plan, count_prompts, run
from kdprompt.evaluate.selector_specs import make_selector, make_selectors
from kdprompt.evaluate.selectors import (
    BenchmarkSelector,
    DistillationBenchmarkSelector,
    LangChainSelector,
    PerQuerySelector,
    ShuffledSelector,
    StaticSelector,
)
from kdprompt.evaluate.store import Store
from kdprompt.evaluate.suites import add_duplicates, add_label_noise, apply_suite, mix_datasets, unbalance_outputs
from kdprompt.evaluate.tables import Results, join_results, summarise
from kdprompt.readers import Answer, CausalLM, LabelReader, Reader, TextReader, smollm2

__all__ = [
    "Answer",
    "BenchmarkPool",
    "BenchmarkSelector",
    "Case",
    "CausalLM",
    "Cell",
    "Dataset",
    "DistillationBenchmarkSelector",
    "EmbeddingCache",
    "LabelReader",
    "LangChainSelector",
    "PerQuerySelector",
    "Plan",
    "Predictor",
    "QueryBatch",
    "Reader",
    "Results",
    "ShuffledSelector",
    "StaticSelector",
    "Store",
    "TextReader",
    "add_duplicates",
    "add_label_noise",
    "apply_suite",
    "count_prompts",
    "exact_match",
    "join_results",
    "json_f1",
    "json_match",
    "label_accuracy",
    "make_selector",
    "make_selectors",
    "mix_datasets",
    "read_results",
    "run",
    "smollm2",
    "summarise",
    "token_f1",
    "unbalance_outputs",
    "write_results_text",
]

RENAMED = {
    "Asked": "QueryBatch",
    "Contender": "BenchmarkSelector",
    "Distillation": "DistillationBenchmarkSelector",
    "FromLangChain": "LangChainSelector",
    "HuggingFaceModel": "CausalLM",
    "PerQuery": "PerQuerySelector",
    "Problem": "BenchmarkPool",
    "Shuffled": "ShuffledSelector",
    "Static": "StaticSelector",
    "contender": "make_selector",
    "contenders": "make_selectors",
    "duplicates": "add_duplicates",
    "imbalance": "unbalance_outputs",
    "joined": "join_results",
    "label_noise": "add_label_noise",
    "mixed": "mix_datasets",
    "stress": "apply_suite",
}

if not TYPE_CHECKING:  # type checkers shall not know the old names

    def __getattr__(name: str) -> object:
        return resolve_renamed(sys.modules[__name__], name, RENAMED)
