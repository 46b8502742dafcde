"""Scores of answers: from an answer and the true output to a number in [0, 1]."""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

from kdprompt.pool.records import MOST_NATS, normalise_text
from kdprompt.readers.reader import Answer

__all__ = [
    "METRICS",
    "Metric",
    "choose_metric",
    "exact_match",
    "json_f1",
    "json_match",
    "label_accuracy",
    "measure_answer",
    "token_f1",
]

Metric = Callable[[str, str], float]
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def label_accuracy(answer: str, truth: str) -> float:
    """1 if the answer is the true label up to case and spacing, 0 otherwise.

    Example:
        >>> label_accuracy(" Card  arrival", "card arrival")
        1.0
    """
    return float(normalise_text(answer) == normalise_text(truth))


def exact_match(answer: str, truth: str) -> float:
    """1 if both are equal without case, punctuation and articles: Rajpurkar et al. (2016), arXiv 1606.05250.

    Example:
        >>> exact_match("The Eiffel Tower.", "eiffel tower")
        1.0
    """
    return float(_words(answer) == _words(truth))


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall of words, normalised as in ``exact_match``: arXiv 1606.05250.

    Example:
        >>> token_f1("the tall tower", "tower in Paris")
        0.4
    """
    given, true = _words(answer), _words(truth)
    if not given or not true:
        return float(given == true)
    return _f1(Counter(given), Counter(true))


def json_match(answer: str, truth: str) -> float:
    """1 if both are the same JSON value, whatever the order of keys and the spacing; 0 otherwise.

    An answer that is no JSON is wrong; where the truth is none, both must be the same text up to case and spacing.

    Example:
        >>> json_match('{"b": [1, 2], "a": "x"}', '{"a":"x","b":[1,2]}')
        1.0
    """
    expected = _parse_json(truth)
    if expected is None:
        return label_accuracy(answer, truth)
    given = _parse_json(answer)
    return float(given is not None and given.canonical == expected.canonical)


def json_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall of the fields of two JSON values.

    A field is a path with the value at its end, an empty object or list among them. An answer that is no JSON has no
    field right.

    Example:
        >>> json_f1('{"city": "Rome", "date": "May"}', '{"city": "Rome"}') == 2 / 3
        True
    """
    expected, given = _parse_json(truth), _parse_json(answer)
    if expected is None or given is None:
        return json_match(answer, truth)
    wanted, found = (Counter(_fields(parsed.value)) for parsed in (expected, given))
    return _f1(found, wanted)


def choose_metric(outputs: Iterable[str]) -> Metric:
    """The score that suits outputs: ``json_match`` where all are JSON objects or lists, else ``label_accuracy``."""
    parsed = [_parse_json(output) for output in outputs]
    structured = all(each is not None and isinstance(each.value, dict | list) for each in parsed)
    return json_match if parsed and structured else label_accuracy


@dataclass(frozen=True)
class _Json:
    """A JSON value, and the same as a text that does not depend on the order of keys."""

    value: Any
    canonical: str


def _parse_json(text: str) -> _Json | None:
    """The value; None where the text is no JSON, or nested too deeply to be compared."""
    try:
        value = json.loads(text, parse_float=_parse_number)
        return _Json(value, _canonical(value))
    except (ValueError, RecursionError):
        return None


def _parse_number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _fields(value: Any) -> list[tuple[tuple[str, ...], str]]:
    """Every path of a JSON value with what stands at its end; places in a list are no part of a path."""
    found = list[tuple[tuple[str, ...], str]]()
    open_values: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while open_values:
        path, inner = open_values.pop()
        if isinstance(inner, dict) and inner:
            open_values += [((*path, f".{key}"), each) for key, each in inner.items()]
        elif isinstance(inner, list) and inner:
            open_values += [((*path, "[]"), each) for each in inner]
        else:
            found.append((path, _canonical(inner)))
    return found


def _f1(given: Counter[Any], true: Counter[Any]) -> float:
    """Harmonic mean of precision and recall of what is counted, at least one of the two not empty."""
    return 2 * (given & true).total() / (given.total() + true.total())


def _words(text: str) -> list[str]:
    plain = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return _ARTICLES.sub(" ", plain).split()


def measure_answer(
    answer: Answer, truth: str, labels: Sequence[str] | None, metric: Metric
) -> tuple[float, float, float]:
    """Score, −log probability of the true label in nats, and probability of the most likely one; NaN where unknown.

    Args:
        answer: As ``check_answer`` lets it pass.
        truth: The true output.
        labels: What the reader chose among; None where the output is free text.
        metric: Gives the score.

    Raises:
        ValueError: The metric gives no number in [0, 1].
    """
    score = metric(answer.text, truth)
    if not isinstance(score, SupportsFloat) or not 0 <= float(score) <= 1:
        raise ValueError(
            f"the metric must give a number in [0, 1], got {score!r:.40} for the answer {answer.text!r:.60} and the "
            f"true output {truth!r:.60}; divide it by its greatest value, say"
        )
    if answer.log_probs is None or labels is None or truth not in labels:
        return float(score), math.nan, math.nan
    least, most = -MOST_NATS, 0.0  # an impossible label would make every mean infinite
    log_probs = [min(max(float(value), least), most) for value in answer.log_probs]
    return float(score), abs(log_probs[labels.index(truth)]), math.exp(max(log_probs))


METRICS: dict[str, Metric] = {
    "accuracy": label_accuracy,
    "exact-match": exact_match,
    "token-f1": token_f1,
    "json-match": json_match,
    "json-f1": json_f1,
}
