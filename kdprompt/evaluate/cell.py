"""The result of one selector on one data set: what benchmark files hold."""

from pydantic import BaseModel, ConfigDict

__all__ = ["NO_READER", "Cell", "Latency"]

NO_READER = "no language model"


class Latency(BaseModel):
    """Duration of the selection, the embedding of queries not included.

    Attributes:
        p50: Median of one query's selection in milliseconds.
        p99: 99th percentile in milliseconds.
        prepare: Seconds of what is done once for a pool.
    """

    model_config = ConfigDict(frozen=True)

    p50: float
    p99: float
    prepare: float


class Cell(BaseModel):
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
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    suite: str
    selector: str
    k: int
    score: list[float]
    log_loss: list[float]
    confidence: list[float]
    tokens: list[float]
    shown: list[float]
    off_task: list[float]
    draws: list[float]
    calibration_error: float | None
    latency: Latency
    reader: str = ""
    one_output: list[float] = []
