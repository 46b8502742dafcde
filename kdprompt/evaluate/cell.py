"""The result of one selector on one data set: what benchmark files hold."""

from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Self

from pydantic import ConfigDict, Field

from kdprompt.short_repr import Record

__all__ = ["NO_READER", "AnsweredPrompt", "Cell", "Latency"]

NO_READER = "no language model"


Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e12)]  # JSON may hold numbers whose sum is infinite


class Latency(Record):
    """Duration of the selection, the embedding of queries not included.

    Attributes:
        p50: Median of one query's selection in milliseconds.
        p99: 99th percentile in milliseconds.
        prepare: Seconds of what is done once for a pool.
    """

    model_config = ConfigDict(frozen=True)

    p50: Amount
    p99: Amount
    prepare: Amount

    @classmethod
    def mean(cls, latencies: Sequence[Self]) -> Self:
        """The mean of each duration over several selections."""
        return cls(**{name: fmean(getattr(one, name) for one in latencies) for name in cls.model_fields})


class AnsweredPrompt(Record):
    """One query of a cell with its prompt and its answer, as text.

    Attributes:
        query: Its number among the queries.
        text: The query.
        output: The true output.
        prompt: What the reader was asked; empty where none was.
        answer: What it answered.
        score: Score of the answer by the metric, in [0, 1].
        log_loss: −log probability of the true label in nats; None where unknown.
    """

    model_config = ConfigDict(frozen=True)

    query: Annotated[int, Field(ge=0)]
    text: str
    output: str
    prompt: str
    answer: str
    score: Share
    log_loss: Amount | None = None


class Cell(Record):
    """One selector on one data set, suite and k, with one reader: numbers of each of m queries, means over the draws.

    Attributes:
        dataset: Name of the data set.
        suite: The stress suite; ``clean`` for none.
        selector: Name of the selector.
        k: Demonstrations asked for.
        score: Score by the metric, in [0, 1], ``[m]``.
        log_loss: −log probability of the true label in nats ``[m]``; empty where unknown.
        confidence: Probability of the most likely label ``[m]``; empty where unknown.
        tokens: Length of the whole prompt in tokens ``[m]``.
        shown: Number of demonstrations in the prompt ``[m]``.
        off_task: Number of these that are of another task than the query ``[m]``.
        draws: Mean score of each draw.
        calibration_error: Expected calibration error over all draws, in [0, 1]; None where unknown.
        latency: Duration of the selection.
        reader: Who answered; ``NO_READER`` where a prediction was made without one, empty in files of before.
        one_output: Share of the draws in which the prompt shows one output only ``[m]``; empty where unknown.
        answered: Some of the queries with prompt and answer, of the first draw; empty in files of before.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    suite: str
    selector: str
    k: Annotated[int, Field(ge=0)]
    score: list[Share]
    log_loss: list[Amount]
    confidence: list[Share]
    tokens: list[Amount]
    shown: list[Amount]
    off_task: list[Amount]
    draws: list[Share]
    calibration_error: Share | None
    latency: Latency
    reader: str = ""
    one_output: list[Share] = Field(default_factory=list)
    answered: list[AnsweredPrompt] = Field(default_factory=list)

    def with_answers(self, answered: Sequence[AnsweredPrompt]) -> Self:
        """The same cell with some of its queries as text, in the order of the queries."""
        return self.model_copy(update={"answered": sorted(answered, key=lambda one: one.query)})
