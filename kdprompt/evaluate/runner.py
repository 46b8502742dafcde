"""Runs contenders on data sets with a reader; every number that a report needs is in its cells."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from pydantic import BaseModel, ConfigDict

from kdprompt.evaluate.datasets import Asked, Case, Dataset, Embed, Problem
from kdprompt.evaluate.metrics import Metric, label_accuracy
from kdprompt.evaluate.selectors import Contender, Shuffled
from kdprompt.evaluate.statistics import calibration_error
from kdprompt.evaluate.store import Store, code_fingerprint, digest
from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.readers.reader import Answer, Reader

__all__ = ["Cell", "Latency", "Plan", "run", "size"]

Progress = Callable[[int, str], object]
TIMED = 100  # queries asked one by one for the latency


class Latency(BaseModel):
    """Milliseconds of one selection, embedding apart, and seconds of what is done once for a pool."""

    model_config = ConfigDict(frozen=True)

    p50: float
    p99: float
    prepare: float


class Cell(BaseModel):
    """One contender on one data set: numbers for each test query, means over the draws.

    Attributes:
        dataset: Name.
        suite: The stress.
        selector: The contender.
        k: Demonstrations asked for.
        score: Of the metric, in [0, 1], ``[m]``.
        log_loss: −log probability of the true label in nats ``[m]``; empty where unknown.
        confidence: Probability of the answer given ``[m]``; empty where unknown.
        tokens: Of the whole prompt ``[m]``.
        shown: Demonstrations shown ``[m]``.
        off_task: Of these, of another task than the query's ``[m]``.
        draws: Mean score of each draw.
        calibration_error: Expected calibration error over all draws; None where unknown.
        latency: Of the selection.
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


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        datasets: Under their suites.
        contenders: What is compared.
        ks: Numbers of demonstrations.
        reader: Who answers.
        embed: The embedding that every contender works on.
        template: How prompts are written.
        metric: What counts as right.
        limit: Most test queries of each data set, the first ones; None takes all.
        split: ``test`` for reporting, ``dev`` for choosing settings.
        seed: Of everything that samples; draws count up from it.
    """

    datasets: Sequence[Dataset]
    contenders: Sequence[Contender]
    ks: Sequence[int]
    reader: Reader
    embed: Embed
    template: PromptTemplate = field(default_factory=PromptTemplate)
    metric: Metric = label_accuracy
    limit: int | None = None
    split: str = "test"
    seed: int = 0

    def cases(self, dataset: Dataset) -> tuple[Case, ...]:
        """The queries that are asked."""
        return (dataset.dev if self.split == "dev" else dataset.test)[: self.limit]


def size(plan: Plan) -> int:
    """How many prompts a plan asks for, those that are known included."""
    prompts = sum(len(plan.cases(dataset)) for dataset in plan.datasets)
    return prompts * len(plan.ks) * sum(contender.draws for contender in plan.contenders)


def run(plan: Plan, store: Store, progress: Progress | None = None) -> Iterator[Cell]:
    """Runs a plan cell by cell, data set by data set.

    Args:
        plan: What to run.
        store: Where answers and selections are kept: what it knows is not asked for again.
        progress: Called with the number of prompts done since the last call and what is being done.

    Yields:
        A cell as soon as it is complete.
    """
    for dataset in plan.datasets:
        problem = replace(dataset.problem(plan.embed, plan.seed), reader=store.remembering(plan.reader))
        for k, contender in product(plan.ks, plan.contenders):
            drawn = [replace(problem, seed=plan.seed + draw) for draw in range(contender.draws)]
            chosen = [_selections(plan, store, dataset, each, (contender, k)) for each in drawn]
            what = f"{dataset.name} {dataset.suite} k={k} {contender.name}"
            tables = _asked(plan, store, dataset, [shown for shown, _ in chosen], what, progress)
            yield _cell(dataset, contender, k, tables, [latency for _, latency in chosen])


def _asked(
    plan: Plan,
    store: Store,
    dataset: Dataset,
    chosen: Sequence[Sequence[Sequence[Demonstration]]],
    what: str,
    progress: Progress | None,
) -> torch.Tensor:
    """Rows (score, log-loss, confidence, tokens, shown, off task) by draw and query ``[draws, m, 6]``; NaN unknown.

    Prompts are asked in the order of their texts: those that begin alike stand side by side, and a local model reads
    what they have in common once.
    """
    asked = [
        (plan.template.text(shown, case.query.text), draw, i, case, shown)
        for draw, selections in enumerate(chosen)
        for i, (case, shown) in enumerate(zip(plan.cases(dataset), selections, strict=True))
    ]
    asked.sort(key=lambda each: each[:3])
    table = torch.empty(len(chosen), len(chosen[0]), 6, dtype=torch.float64)
    answers = store.answers(plan.reader, [prompt for prompt, *_ in asked], dataset.labels)
    for (prompt, draw, i, case, shown), answer in zip(asked, answers, strict=True):
        table[draw, i] = torch.tensor(_row(plan, dataset, case, shown, prompt, answer), dtype=torch.float64)
        if progress is not None:
            progress(1, what)
    return table


def _row(
    plan: Plan,
    dataset: Dataset,
    case: Case,
    shown: Sequence[Demonstration],
    prompt: str,
    answer: Answer,
) -> list[float]:
    log_probs = answer.log_probs
    loss = confidence = float("nan")
    if log_probs is not None and dataset.labels is not None and case.output in dataset.labels:
        probs = torch.tensor(log_probs, dtype=torch.float64)
        loss, confidence = -float(probs[dataset.labels.index(case.output)]), float(probs.max().exp())
    off_task = sum(case.task is not None and d.fields.get("task", case.task) != case.task for d in shown)
    return [
        plan.metric(answer.text, case.output),
        loss,
        confidence,
        float(plan.reader.count_tokens(prompt)),
        float(len(shown)),
        float(off_task),
    ]


def _selections(
    plan: Plan, store: Store, dataset: Dataset, problem: Problem, what: tuple[Contender, int]
) -> tuple[list[tuple[Demonstration, ...]], Latency]:
    contender, k = what
    if isinstance(contender, Shuffled):  # orders of one choice, which is made once
        chosen, latency = _selections(plan, store, dataset, replace(problem, seed=plan.seed), (contender.of, k))
        return contender.arranged(chosen, problem.seed), latency
    queries = tuple(case.query for case in plan.cases(dataset))
    asked_for = [[q.text, q.task, sorted(q.outputs or ())] for q in queries]
    described = re.sub(r" at 0x[0-9a-f]+", "", repr(contender))  # its settings, without addresses of functions
    depends = (plan.embed.name, plan.reader.name, code_fingerprint())
    key = digest(dataset.fingerprint, asked_for, described, k, problem.seed, *depends)
    kept = store.selection(key)
    pool = dataset.pool
    if kept is None:
        asked = Asked(queries, plan.embed([query.text for query in queries]))
        begun = time.perf_counter()
        choose = contender.prepare(problem, k)
        prepared = time.perf_counter() - begun
        chosen = choose(asked)
        times = []
        for one in asked.first(TIMED):
            begun = time.perf_counter()
            choose(one)
            times.append(1000 * (time.perf_counter() - begun))
        p50, p99 = (
            torch.tensor(times, dtype=torch.float64).quantile(torch.tensor([0.5, 0.99], dtype=torch.float64)).tolist()
        )
        kept = {"ids": [[d.id for d in shown] for shown in chosen], "p50": p50, "p99": p99, "prepare": prepared}
        store.keep_selection(key, kept)
    shown = [tuple(pool[pool.index(ident)] for ident in ids) for ids in kept["ids"]]
    return shown, Latency(p50=kept["p50"], p99=kept["p99"], prepare=kept["prepare"])


def _cell(dataset: Dataset, contender: Contender, k: int, tables: torch.Tensor, times: Sequence[Latency]) -> Cell:
    mean = tables.mean(0)
    known = not bool(mean[:, 1:3].isnan().any())
    error = calibration_error(tables[..., 2].flatten(), tables[..., 0].flatten()) if known else None
    columns = [[round(value, 5) for value in column] for column in mean.T.tolist()]
    latency = {name: sum(getattr(each, name) for each in times) / len(times) for name in Latency.model_fields}
    return Cell(
        dataset=dataset.name,
        suite=dataset.suite,
        selector=contender.name,
        k=k,
        score=columns[0],
        log_loss=columns[1] if known else [],
        confidence=columns[2] if known else [],
        tokens=columns[3],
        shown=columns[4],
        off_task=columns[5],
        draws=[round(value, 5) for value in tables[..., 0].mean(-1).tolist()],
        calibration_error=error,
        latency=Latency(**latency),
    )
