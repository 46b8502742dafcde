"""Checks of the theory's predictions: on synthetic linear attention, and on a real language model."""

from kdprompt.reproduce.language_model import (
    LanguageModelSetup,
    measure_bias_and_loss,
    measure_interference_and_share,
    measure_length_and_loss,
    measure_order_and_spread,
)
from kdprompt.reproduce.phenomenon import Phenomenon, Verdict, fit_line, rank_correlation
from kdprompt.reproduce.synthetic import measure_bias_and_mmd, measure_gap_and_length

__all__ = [
    "LanguageModelSetup",
    "Phenomenon",
    "Verdict",
    "fit_line",
    "measure_bias_and_loss",
    "measure_bias_and_mmd",
    "measure_gap_and_length",
    "measure_interference_and_share",
    "measure_length_and_loss",
    "measure_order_and_spread",
    "rank_correlation",
]
