"""Answers as named numbers: columns, means over draws, and what is unknown."""

import math
import random

import pytest

from kdprompt.evaluate.answer_table import AnswerRecord, AnswerTable


def record(rng, log_loss=None):
    loss = rng.random() if log_loss is None else log_loss
    return AnswerRecord(rng.random(), loss, rng.random(), rng.random() * 99, 3.0, 1.0, 0.5)


def test_columns_and_means_are_those_of_the_records():
    rng = random.Random(0)
    records = [[record(rng) for _ in range(4)] for _ in range(3)]
    table = AnswerTable(records)
    for name in ("score", "log_loss", "confidence", "tokens", "shown", "off_task", "one_output"):
        assert table.column(name).tolist() == [[getattr(r, name) for r in draw] for draw in records]
        means = [math.fsum(getattr(draw[i], name) for draw in records) / 3 for i in range(4)]
        assert table.mean(name) == pytest.approx(means, abs=6e-6)
    assert table.has_log_probs


def test_one_unknown_probability_makes_them_unknown():
    rng = random.Random(0)
    records = [[record(rng), record(rng)], [record(rng), record(rng, log_loss=float("nan"))]]
    assert not AnswerTable(records).has_log_probs
