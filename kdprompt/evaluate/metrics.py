"""Scores of answers: from an answer and the true output to a number in [0, 1]."""

import re
import string
from collections import Counter
from collections.abc import Callable

from kdprompt.pool.records import normalise_text

__all__ = ["METRICS", "Metric", "exact_match", "label_accuracy", "token_f1"]

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
    common = sum((Counter(given) & Counter(true)).values())
    return 2 * common / (len(given) + len(true))


def _words(text: str) -> list[str]:
    plain = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return _ARTICLES.sub(" ", plain).split()


METRICS: dict[str, Metric] = {"accuracy": label_accuracy, "exact-match": exact_match, "token-f1": token_f1}
