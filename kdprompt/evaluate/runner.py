"""Runs selectors on data sets with a reader: from a ``Plan`` to one ``Cell`` a data set, k and selector.

Answers and selections are kept in a ``Store``, so that a run that was killed continues where it stopped.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch

from kdprompt.defaults import DEFAULT_DETAILS
from kdprompt.errors import DamagedFileError
from kdprompt.evaluate.answer_table import AnswerRecord, AnswerTable
from kdprompt.evaluate.benchmark_pool import BenchmarkPool, EmbeddingFunction, QueryBatch
from kdprompt.evaluate.cell import NO_READER, AnsweredPrompt, Cell, Latency
from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.evaluate.description import describe
from kdprompt.evaluate.metrics import Metric, choose_metric, measure_answer
from kdprompt.evaluate.predictors import Predictor
from kdprompt.evaluate.results_file import explain_error
from kdprompt.evaluate.selectors import BenchmarkSelector, Demonstrations, ShuffledSelector
from kdprompt.evaluate.statistics import calibration_error
from kdprompt.evaluate.store import Store, code_fingerprint, digest
from kdprompt.pool.prompt import PromptTemplate
from kdprompt.readers.reader import Answer, Reader

__all__ = ["Plan", "Progress", "count_prompts", "run"]

Progress = Callable[[int, str], object]
TIMED_QUERIES = 100  # queries that are selected for one by one, for the latency


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        datasets: Data sets, under their stress suites.
        selectors: What is compared; a ``Predictor`` among them answers without the reader.
        ks: Numbers of demonstrations.
        reader: The model that answers prompts.
        embed: The embedding that every selector works on.
        template: How prompts are written.
        metric: Score of an answer; None takes what suits the outputs of a data set (``choose_metric``).
        limit: Most test queries of each data set, the first ones; None takes all.
        split: ``test`` for reporting, ``dev`` for choosing settings.
        seed: Seed of every random draw; the seeds of draws count up from it.
        details: Queries of each data set, evenly spaced, whose prompts and answers are kept as text.
    """

    datasets: Sequence[Dataset]
    selectors: Sequence[BenchmarkSelector | Predictor]
    ks: Sequence[int]
    reader: Reader
    embed: EmbeddingFunction
    template: PromptTemplate = field(default_factory=PromptTemplate)
    metric: Metric | None = None
    limit: int | None = None
    split: str = "test"
    seed: int = 0
    details: int = DEFAULT_DETAILS

    def cases(self, dataset: Dataset) -> tuple[Case, ...]:
        """The queries of a data set that are asked, with their true outputs."""
        return (dataset.dev if self.split == "dev" else dataset.test)[: self.limit]


def count_prompts(plan: Plan) -> int:
    """Number of prompts that a plan asks for, those included whose answers are known."""
    queries = sum(len(plan.cases(dataset)) for dataset in plan.datasets)
    draws = sum(selector.draws for selector in plan.selectors if not isinstance(selector, Predictor))
    return queries * len(plan.ks) * draws


def run(plan: Plan, store: Store, progress: Progress | None = None) -> Iterator[Cell]:
    """Runs a plan cell by cell, data set by data set.

    Args:
        plan: What to run.
        store: Keeps answers and selections; what it knows is not asked for again.
        progress: Called with the number of prompts done since the last call and a description of the cell.

    Yields:
        A cell as soon as it is complete.
    """
    for dataset in plan.datasets:
        benchmark = dataset.to_benchmark_pool(plan.embed, plan.seed)
        context = _Context(plan, store, dataset, replace(benchmark, reader=store.cached_reader(plan.reader)))
        for k, selector in product(plan.ks, plan.selectors):
            if isinstance(selector, Predictor):
                yield _predict(context, selector, k)
                continue
            draws = [_select(context, selector, k, plan.seed + draw) for draw in range(selector.draws)]
            description = f"{dataset.name} {dataset.suite} k={k} {selector.name}"
            prompts = _write_prompts(context, [draw.demonstrations for draw in draws])
            records, answered = {}, []
            for prompt, answer in _ask(context, prompts):
                records[prompt.draw, prompt.query] = record = _record(context, prompt, answer)
                answered += _keep_text(context, prompt, answer, record)
                if progress is not None:
                    progress(1, description)
            table = AnswerTable([[records[i, j] for j in range(len(context.cases))] for i in range(len(draws))])
            latency = Latency.mean([draw.latency for draw in draws])
            yield _cell(dataset, selector.name, k, table, latency, plan.reader.name).with_answers(answered)


@dataclass(frozen=True)
class _Context:
    """What all cells of one data set have in common."""

    plan: Plan
    store: Store
    dataset: Dataset
    benchmark: BenchmarkPool

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        return self.plan.cases(self.dataset)

    @cached_property
    def metric(self) -> Metric:
        return self.plan.metric or choose_metric(str(d.output) for d in self.dataset.pool)

    @property
    def batch(self) -> QueryBatch:
        queries = tuple(case.query for case in self.cases)
        return QueryBatch(queries, self.plan.embed([query.text for query in queries]))

    def selection_key(self, selector: BenchmarkSelector, k: int, seed: int) -> str:
        """A hash of everything that a selection depends on."""
        queries = [[c.query.text, c.query.task, sorted(c.query.outputs or ())] for c in self.cases]
        environment = (self.plan.embed.name, self.plan.reader.name, code_fingerprint())
        return digest(self.dataset.fingerprint, queries, describe(selector), k, seed, *environment)


@dataclass(frozen=True)
class _TimedSelection:
    """The demonstrations of each query's prompt, and how long the selection took."""

    demonstrations: Sequence[Demonstrations]
    latency: Latency


@dataclass(frozen=True, order=True)
class _Prompt:
    """A prompt to ask; prompts compare by text, draw and query."""

    text: str
    draw: int
    query: int
    demonstrations: Demonstrations = field(compare=False)


def _select(context: _Context, selector: BenchmarkSelector, k: int, seed: int) -> _TimedSelection:
    if isinstance(selector, ShuffledSelector):  # the demonstrations are selected once, whatever the number of orders
        original = _select(context, selector.selector, k, context.plan.seed)
        return replace(original, demonstrations=selector.shuffle(original.demonstrations, seed))
    key = context.selection_key(selector, k, seed)
    saved = context.store.load_selection(key)
    if saved is None:
        selection = _select_now(context, selector, k, seed)
        prompt_ids = [[demonstration.id for demonstration in prompt] for prompt in selection.demonstrations]
        saved = {"ids": prompt_ids, **selection.latency.model_dump()}
        context.store.save_selection(key, saved)
    return _read_selection(context, key, saved)


def _read_selection(context: _Context, key: str, saved: Any) -> _TimedSelection:
    """A selection as it is kept.

    Raises:
        DamagedFileError: It does not fit the data set.
    """
    pool = context.dataset.pool
    try:
        demonstrations = [tuple(pool[pool.index(identifier)] for identifier in ids) for ids in saved["ids"]]
        latency = Latency(p50=saved["p50"], p99=saved["p99"], prepare=saved["prepare"])
        if len(demonstrations) != len(context.cases):
            raise ValueError(f"it holds {len(demonstrations)} prompts for {len(context.cases)} queries")
    except (ValueError, KeyError, TypeError) as error:
        path = context.store.selection_path(key)
        message = (
            f"{path} does not fit the data set: {explain_error(error):.160}. Delete it; the selection is made again."
        )
        raise DamagedFileError(message) from error
    return _TimedSelection(demonstrations, latency)


def _select_now(context: _Context, selector: BenchmarkSelector, k: int, seed: int) -> _TimedSelection:
    batch = context.batch
    start = time.perf_counter()
    choose = selector.prepare(replace(context.benchmark, seed=seed), k)
    prepare = time.perf_counter() - start
    demonstrations = choose(batch)
    milliseconds = []
    for single in batch.first(TIMED_QUERIES):
        start = time.perf_counter()
        choose(single)
        milliseconds.append(1000 * (time.perf_counter() - start))
    levels = torch.tensor([0.5, 0.99], dtype=torch.float64)
    p50, p99 = torch.tensor(milliseconds, dtype=torch.float64).quantile(levels).tolist()
    return _TimedSelection(demonstrations, Latency(p50=p50, p99=p99, prepare=prepare))


def _predict(context: _Context, predictor: Predictor, k: int) -> Cell:
    """The cell of a predictor, with the time that it took for all queries together."""
    batch, labels = context.batch, context.dataset.labels
    start = time.perf_counter()
    predict = predictor.fit(context.benchmark, k, labels)
    fitted = time.perf_counter()
    answers = predict(batch)
    each = 1000 * (time.perf_counter() - fitted) / max(len(answers), 1)
    prompts = [_Prompt("", 0, i, ()) for i in range(len(answers))]
    records = [_record(context, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    together = zip(prompts, answers, records, strict=True)
    answered = [kept for parts in together for kept in _keep_text(context, *parts)]
    latency = Latency(p50=each, p99=each, prepare=fitted - start)
    cell = _cell(context.dataset, predictor.name, k, AnswerTable([records]), latency, NO_READER)
    return cell.with_answers(answered)


def _write_prompts(context: _Context, draws: Sequence[Sequence[Demonstrations]]) -> list[_Prompt]:
    """The prompts of all draws and queries, sorted by text.

    Prompts that begin alike stand side by side: a local model computes their common prefix once.
    """
    template, cases = context.plan.template, context.cases
    return sorted(
        _Prompt(template.text(demonstrations, case.query.text), draw, query, demonstrations)
        for draw, selections in enumerate(draws)
        for query, (case, demonstrations) in enumerate(zip(cases, selections, strict=True))
    )


def _ask(context: _Context, prompts: Sequence[_Prompt]) -> Iterator[tuple[_Prompt, Answer]]:
    texts = [prompt.text for prompt in prompts]
    answers = context.store.answers(context.plan.reader, texts, context.dataset.labels)
    return zip(prompts, answers, strict=True)


def _keep_text(context: _Context, prompt: _Prompt, answer: Answer, record: AnswerRecord) -> list[AnsweredPrompt]:
    """The query with prompt and answer where it is one of those that are kept, else nothing."""
    step = -(-len(context.cases) // max(context.plan.details, 1))
    if prompt.draw or prompt.query % step or not context.plan.details:
        return []
    case = context.cases[prompt.query]
    return [
        AnsweredPrompt(
            query=prompt.query,
            text=case.query.text,
            output=case.output,
            prompt=prompt.text,
            answer=answer.text.encode("utf-8", "backslashreplace").decode(),  # files have no lone surrogates
            score=record.score,
            log_loss=None if math.isnan(record.log_loss) else record.log_loss,
        )
    ]


def _record(context: _Context, prompt: _Prompt, answer: Answer) -> AnswerRecord:
    case, labels = context.cases[prompt.query], context.dataset.labels
    score, log_loss, confidence = measure_answer(answer, case.output, labels, context.metric)
    tasks = [d.fields.get("task", case.task) for d in prompt.demonstrations]
    return AnswerRecord(
        score=score,
        log_loss=log_loss,
        confidence=confidence,
        tokens=float(context.plan.reader.count_tokens(prompt.text)) if prompt.text else 0.0,
        shown=float(len(prompt.demonstrations)),
        off_task=float(sum(task != case.task for task in tasks)) if case.task is not None else 0.0,
        one_output=float(len(prompt.demonstrations) > 1 and len({d.output for d in prompt.demonstrations}) == 1),
    )


def _cell(dataset: Dataset, selector: str, k: int, table: AnswerTable, latency: Latency, reader: str) -> Cell:
    known = table.has_log_probs
    confidence, score = table.column("confidence"), table.column("score")
    return Cell(
        dataset=dataset.name,
        suite=dataset.suite,
        selector=selector,
        k=k,
        score=table.mean("score"),
        log_loss=table.mean("log_loss") if known else [],
        confidence=table.mean("confidence") if known else [],
        tokens=table.mean("tokens"),
        shown=table.mean("shown"),
        off_task=table.mean("off_task"),
        draws=[round(value, 5) for value in score.mean(-1).tolist()],
        calibration_error=calibration_error(confidence.flatten(), score.flatten()) if known else None,
        latency=latency,
        reader=reader,
        one_output=[] if reader == NO_READER else table.mean("one_output"),
    )
