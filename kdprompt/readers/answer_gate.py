"""One gate for answers from anywhere: a reader of the user's own, or a file in which answers are kept."""

import math
from collections.abc import Sequence

from kdprompt.readers.reader import Answer

__all__ = ["check_answer"]

ROUNDING = 1e-3  # nats that a log-probability may lie above 0


def check_answer(answer: Answer, labels: Sequence[str] | None) -> None:
    """Refuses an answer that is none: a text, and log-probabilities in nats where they are known.

    Args:
        answer: Whatever stands in its fields.
        labels: What the reader chose among; None: the number of log-probabilities is not checked.

    Raises:
        ValueError: The text is none; log-probabilities are not one for each label, no numbers, NaN, above 0, or all −∞.
    """
    if not isinstance(answer.text, str):
        raise ValueError(f"an answer must have a text, got {answer.text!r:.60}")
    if answer.log_probs is None:
        return
    many = "for each label" if labels is None else f"for each of {len(labels)} labels"
    values = answer.log_probs
    if not isinstance(values, list | tuple) or (labels is not None and len(values) != len(labels)):
        raise ValueError(f"it must give a log-probability {many}, got {values!r:.80}")
    wrong = [value for value in values if not _is_log_prob(value)]
    if wrong or (values and max(values) == -math.inf):
        raise ValueError(
            f"it must give a log-probability, a number of at most 0 (one of them finite), {many}, got "
            f"{wrong or list(values)!r:.80}"
        )


def _is_log_prob(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= ROUNDING
