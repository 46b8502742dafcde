"""Rows of a benchmark that need no language model: what the demonstrations, or the pool, say by themselves.

A reader that does not beat the majority of the outputs that its prompts show has added nothing to them.
``kdprompt.evaluate.selector_specs`` makes these from text, as ``majority:kdprompt``.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kdprompt.evaluate.benchmark_pool import BenchmarkPool, QueryBatch
from kdprompt.evaluate.selectors import BenchmarkSelector
from kdprompt.pool.records import Query
from kdprompt.readers.reader import Answer

__all__ = ["LogisticRegression", "Majority", "NearestVote", "PredictFunction", "Predictor"]

PredictFunction = Callable[[QueryBatch], list[Answer]]
"""From m queries to m answers."""

PENALTIES = (0.1, 1.0, 10.0, 100.0)  # inverse ones of the logistic regression, on unit-norm vectors
FOLDS = 3


@runtime_checkable
class Predictor(Protocol):
    """A way to answer queries without a language model.

    Attributes:
        name: Name in tables.
    """

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    def fit(self, benchmark: BenchmarkPool, k: int, labels: Sequence[str] | None) -> PredictFunction:
        """Does what is needed once for a pool.

        Args:
            benchmark: The embedded pool.
            k: Demonstrations a prompt, where prompts are made.
            labels: All possible outputs, or None where outputs are free text.

        Returns:
            The function that answers queries; log-probabilities where there are labels.
        """
        ...


@dataclass(frozen=True)
class Majority:
    """The commonest output among the demonstrations of a selector; of several the one that stands last.

    Probabilities are shares among the demonstrations and one more that is spread over all labels.

    Attributes:
        name: Name in tables.
        selector: Whose demonstrations.
    """

    name: str
    selector: BenchmarkSelector

    def fit(self, benchmark: BenchmarkPool, k: int, labels: Sequence[str] | None) -> PredictFunction:
        """Prepares the selector."""
        choose = self.selector.prepare(benchmark, k)
        return lambda batch: [
            _vote([(str(d.output), 1.0) for d in reversed(demonstrations)], labels) for demonstrations in choose(batch)
        ]


@dataclass(frozen=True)
class NearestVote:
    """The vote of the nearest neighbours, each with the weight of its cosine; as many as suit prompts no more.

    Attributes:
        name: Name in tables.
        neighbours: How many vote.
    """

    name: str
    neighbours: int = 16

    def fit(self, benchmark: BenchmarkPool, k: int, labels: Sequence[str] | None) -> PredictFunction:
        """Does nothing before queries come."""
        outputs = [str(d.output) for d in benchmark.pool]

        def predict(batch: QueryBatch) -> list[Answer]:
            allowed = torch.tensor([_may_serve(benchmark, query) for query in batch.queries])
            similarity = (batch.q @ benchmark.x.T).masked_fill(~allowed.to(batch.q.device), -torch.inf)
            nearest = similarity.topk(min(self.neighbours, len(outputs)), dim=-1)
            pairs = zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True)
            return [
                _vote([(outputs[row], max(w, 0.0)) for row, w in zip(*pair, strict=True) if w > -math.inf], labels)
                for pair in pairs
            ]

        return predict


@dataclass(frozen=True)
class LogisticRegression:
    """Multinomial logistic regression on the selectors' own vectors, of scikit-learn; labels alone.

    Its penalty is chosen by three-fold cross-validation on the pool.

    Attributes:
        name: Name in tables.
    """

    name: str

    def fit(self, benchmark: BenchmarkPool, k: int, labels: Sequence[str] | None) -> PredictFunction:
        """Fits the regression.

        Raises:
            ValueError: Outputs are free text.
            ImportError: scikit-learn is not installed.
        """
        if labels is None:
            raise ValueError("logistic regression predicts labels, and these outputs are free text; leave the row out")
        try:
            from sklearn.linear_model import LogisticRegression as Regression
            from sklearn.model_selection import GridSearchCV
        except ImportError as error:
            raise ImportError("logistic regression needs scikit-learn: pip install 'kdprompt[bench]'") from error
        x, outputs = benchmark.x.cpu().double().numpy(), [str(d.output) for d in benchmark.pool]
        counts = Counter(outputs).values()
        regression = Regression(max_iter=1000)
        if min(counts) >= FOLDS:
            grid = GridSearchCV(regression, {"C": PENALTIES}, cv=FOLDS, scoring="neg_log_loss")
            regression = grid.fit(x, outputs).best_estimator_
        else:
            regression.fit(x, outputs)
        columns = [list(regression.classes_).index(label) for label in labels]

        def predict(batch: QueryBatch) -> list[Answer]:
            shares = torch.from_numpy(regression.predict_proba(batch.q.cpu().double().numpy()))[:, columns]
            permitted = torch.tensor([_permits(benchmark, query, labels) for query in batch.queries])
            shares = torch.where(permitted, shares.clamp_min(1e-12), 1e-12)
            return [_answer(row / row.sum(), labels) for row in shares]

        return predict


def _may_serve(benchmark: BenchmarkPool, query: Query) -> list[bool]:
    """Which examples are of the query's task and have an output that it permits."""
    return [
        query.task in (None, example.task) and (query.outputs is None or example.output in query.outputs)
        for example in benchmark.pool
    ]


def _permits(benchmark: BenchmarkPool, query: Query, labels: Sequence[str]) -> list[bool]:
    """Which labels an example that may serve the query has."""
    if query.task is None and query.outputs is None:
        return [True] * len(labels)
    serving = zip(benchmark.pool, _may_serve(benchmark, query), strict=True)
    outputs = {str(example.output) for example, serves in serving if serves}
    return [label in outputs for label in labels]


def _vote(votes: Sequence[tuple[str, float]], labels: Sequence[str] | None) -> Answer:
    """The output with most votes; of equal ones the first. Votes: output and weight, the likeliest first."""
    weights: dict[str, float] = {}
    for output, weight in votes:
        weights[output] = weights.get(output, 0.0) + weight
    if labels is None:
        return Answer(max(weights, key=lambda output: weights[output], default=""))
    shares = torch.tensor([weights.get(label, 0.0) for label in labels], dtype=torch.float64) + 1 / len(labels)
    text = max(weights, key=lambda output: weights[output], default=labels[0])
    return Answer(text, tuple((shares / shares.sum()).log().tolist()))


def _answer(shares: Tensor, labels: Sequence[str]) -> Answer:
    return Answer(labels[int(shares.argmax())], tuple(shares.log().tolist()))
