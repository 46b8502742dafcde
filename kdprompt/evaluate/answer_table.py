"""The answers of a reader to one selector's prompts, as named numbers by draw and query."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor

__all__ = ["AnswerRecord", "AnswerTable"]


@dataclass(frozen=True)
class AnswerRecord:
    """Numbers of one answer.

    Attributes:
        score: Score of the answer by the metric, in [0, 1].
        log_loss: −log probability of the true label in nats; NaN where unknown.
        confidence: Probability of the most likely label; NaN where unknown.
        tokens: Length of the whole prompt in tokens.
        shown: Number of demonstrations in the prompt.
        off_task: Number of these that are of another task than the query.
        one_output: 1 where there are at least two and all show one output, else 0.
    """

    score: float
    log_loss: float
    confidence: float
    tokens: float
    shown: float
    off_task: float
    one_output: float


COLUMNS = tuple(field.name for field in fields(AnswerRecord))


class AnswerTable:
    """Answer records by draw and query.

    Args:
        records: One sequence of m records a draw, in the order of the queries.
    """

    def __init__(self, records: Sequence[Sequence[AnswerRecord]]) -> None:
        values = [[astuple(record) for record in draw] for draw in records]
        self._values = torch.tensor(values, dtype=torch.float64).reshape(len(values), len(records[0]), len(COLUMNS))

    def column(self, name: str) -> Tensor:
        """One number of every record ``[draws, m]``, by the name of its field in ``AnswerRecord``."""
        return self._values[..., COLUMNS.index(name)]

    def mean(self, name: str) -> list[float]:
        """Mean over the draws of one number ``[m]``, to five decimals."""
        means: list[float] = self._values.mean(0)[:, COLUMNS.index(name)].tolist()
        return [round(value, 5) for value in means]

    @property
    def has_log_probs(self) -> bool:
        """Whether log-loss and confidence are known for every answer."""
        return not bool(self.column("log_loss").isnan().any() or self.column("confidence").isnan().any())
