"""Scores of structured answers: equal as JSON, by field, and which score suits which outputs."""

import pytest

from kdprompt.evaluate.metrics import choose_metric, json_f1, json_match, label_accuracy


@pytest.mark.parametrize(
    ("answer", "truth", "match", "f1"),
    [
        ('{"a": 1, "b": "x"}', '{"b":"x","a":1.0}', 1, 1),
        ('{"a": 1}', '{"a": true}', 0, 0),
        ("{}", "{ }", 1, 1),
        ("{}", '{"a": 1}', 0, 0),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', 0, 1),
        ('{"a": {"b": 1, "c": 2}}', '{"a": {"b": 1, "c": 3}}', 0, 0.5),
        ('{"a": 1', '{"a": 1}', 0, 0),
        ("null", "null", 1, 1),
        ("SELECT  1", "select 1", 1, 1),
        ('{"a": 1, "a": 2}', '{"a": 2}', 1, 1),
        ("NaN", '{"a": 1}', 0, 0),
        ("[" * 5000, "[1]", 0, 0),
        ("[" * 5000 + "]" * 5000, "[1]", 0, 0),
        ("[" * 300 + "]" * 300, "[" * 300 + "]" * 300, 1, 1),
        ("[]", "{}", 0, 0),
        ('{"a": {}}', '{"a": []}', 0, 0),
        ('{"a": []}', '{"a": []}', 1, 1),
    ],
)
def test_json_is_compared_by_value(answer, truth, match, f1):
    assert json_match(answer, truth) == match
    assert json_f1(answer, truth) == pytest.approx(f1)


def test_the_score_suits_the_outputs():
    assert choose_metric(['{"a": 1}', "{}", "[]"]) is json_match
    for outputs in (["{}", "yes"], ["1", "2"], [], ["[" * 5000 + "]" * 5000]):
        assert choose_metric(outputs) is label_accuracy
