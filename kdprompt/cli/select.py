"""``kdprompt select``: demonstrations for queries from a pool file."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from kdprompt.cli.clock import Clock
from kdprompt.cli.embeddings import NoCacheOption, open_embedder
from kdprompt.cli.options import DeviceOption, EmbeddingModelOption, PoolOption, QueriesOption
from kdprompt.cli.queries import read_queries
from kdprompt.cli.reader import CacheOption, count_answers, keep_answers, open_reader
from kdprompt.cli.terminal import Terminal
from kdprompt.defaults import DEFAULT_K, DEFAULT_STATIC_ROUNDS
from kdprompt.printable import to_json_line

__all__ = ["select"]

QueryOption = Annotated[list[str] | None, Option(help="A query; may be given several times.")]
StaticOption = Annotated[
    bool, Option("--static", help="One prompt for all queries (without queries: for inputs like the pool's).")
]
KOption = Annotated[str, Option(help="Demonstrations a prompt, or 'auto'.")]
BudgetOption = Annotated[int | None, Option(help="Most tokens that the demonstrations may take.", min=0)]
OutputOption = Annotated[Path | None, Option(help="Write selections here, one JSON object a line.")]
TaskOption = Annotated[str | None, Option(help="Choose from this task alone.")]
PermitOption = Annotated[list[str] | None, Option(help="Choose from examples with this output; repeatable.")]
OrderOption = Annotated[
    Literal["evidence-last", "likeliest-last", "nearest-last", "nearest-first", "by-objective"] | None,
    Option(help="Reading order. Default: evidence-last for labels, else likeliest-last; with --static by-objective."),
]
ReaderOption = Annotated[
    str | None,
    Option(
        help="The model that will read the prompts: 'smollm2', a Hugging Face name or folder, or python:MODULE:NAME "
        "(LangChain model, callable). It answers examples of the pool: with --static some 9,600 times, and the best "
        "of some 320 prompts is taken; else at most --max-answers times, to measure its profile and to choose the "
        "reading order and the prefix."
    ),
]
RoundsOption = Annotated[
    int, Option(help="With --reader: how often its best static prompt is changed, some 480 answers each.", min=0)
]
MaxAnswersOption = Annotated[
    int | None,
    Option(help="With --reader, for single queries: most answers. Default: no limit, some 11,000.", min=1),
]
ProfileOption = Annotated[
    Path | None,
    Option(help="The reader's profile, as kdprompt profile writes it: no answer is needed.", exists=True),
]
InputKeyOption = Annotated[list[str] | None, Option(help="Key of the input; repeatable. Default: input.")]
OutputKeyOption = Annotated[list[str] | None, Option(help="Key of the output; repeatable. Default: output.")]


@dataclass(frozen=True)
class _Request:
    """What is asked of the selector.

    Attributes:
        queries: As the user gave them.
        is_static: Whether one prompt is wanted for all of them.
        task: The task to choose from.
        outputs: Permitted outputs.
        max_answers: Most answers of the reader, for single queries.
    """

    queries: list[Any]
    is_static: bool
    task: str | None
    outputs: list[str] | None
    max_answers: int | None = None


def select(  # noqa: PLR0913 - a command's options are its interface
    pool: PoolOption,
    query: QueryOption = None,
    queries: QueriesOption = None,
    static: StaticOption = False,
    k: KOption = str(DEFAULT_K),
    budget: BudgetOption = None,
    output: OutputOption = None,
    task: TaskOption = None,
    permit: PermitOption = None,
    order: OrderOption = None,
    reader: ReaderOption = None,
    rounds: RoundsOption = DEFAULT_STATIC_ROUNDS,
    max_answers: MaxAnswersOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    profile: ProfileOption = None,
    input_key: InputKeyOption = None,
    output_key: OutputKeyOption = None,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Choose demonstrations for each query of a file, for single queries, or one prompt for all of them.

    One query is explained on the terminal; several give one JSON object a line, on standard output or in --output.
    """
    from kdprompt import Pool, Schema

    log = Terminal(stderr=True)
    schema = Schema(inputs=tuple(input_key or ("input",)), outputs=tuple(output_key or ("output",)))
    loaded = Pool.from_jsonl(pool, schema)
    request = _Request(
        _check_queries(loaded, query or [], queries, may_be_empty=static), static, task, permit, max_answers
    )
    settings = _read_settings(k, budget, order, rounds, profile)
    asked = open_reader(reader, log, device=device) if reader else None
    clock = Clock(log)
    with keep_answers(asked, cache) as kept:
        job = _Job(request, kept, clock)
        selector = job.build_selector(loaded, settings, open_embedder(model, device, cache, keep=not no_cache))
        if output is None and (static or len(request.queries) == 1):
            job.explain(selector)
        else:
            _write(job.select(selector), output, log)


def _check_queries(pool: Any, texts: list[str], path: Path | None, *, may_be_empty: bool) -> list[Any]:
    """All queries, each checked before anything costs time, so that a bad one at the end loses nothing."""
    from kdprompt import QueryError

    queries, names = read_queries(path, texts)
    if not queries and not may_be_empty:
        raise QueryError("nothing to select for: give --query, --queries, or --static")
    pool.queries(queries, names)
    return queries


def _read_settings(k: str, budget: int | None, order: str | None, rounds: int, profile: Path | None) -> Any:
    from kdprompt import ObjectiveSettings, Settings, StaticSettings
    from kdprompt.objective.reader_profile import read_profile
    from kdprompt.search.ordering import ORDERS

    if k != "auto" and not k.isdecimal():
        raise ValueError(f"--k must be a whole number from 0 or 'auto', got {k!r}")
    size: Any = "auto" if k == "auto" else int(k)
    chosen = ORDERS[order]() if order else None
    objective = ObjectiveSettings(profile=None if profile is None else read_profile(profile))
    return Settings(k=size, budget=budget, order=chosen, objective=objective, static=StaticSettings(rounds=rounds))


@dataclass(frozen=True)
class _Job:
    """A request, the reader that answers for it, and the clock that its steps are timed by."""

    request: _Request
    reader: Any
    clock: Clock

    def build_selector(self, pool: Any, settings: Any, embedder: Any) -> Any:
        """Embeds the pool and calibrates on it."""
        from kdprompt import DistillationSelector
        from kdprompt.pool.embedding import embed_documents

        request = self.request
        vectors = embed_documents(embedder, [example.input for example in pool]) if len(pool) else None
        self.clock.print_lap(f"embedded {len(pool):,} examples")
        traffic = request.queries if request.is_static or self.reader else None
        with self.clock.log.status("calibrating on the pool"):
            selector = DistillationSelector.from_examples(
                pool, embedder, queries=traffic, settings=settings, vectors=vectors
            )
        self.clock.print_lap("prepared the pool and calibrated")
        if self.reader and not request.is_static:
            plan = selector.plan_answers(request.max_answers)
            self.clock.log.print(f"asking {self.reader.name}: {plan}", style="dim", soft_wrap=True)
            with count_answers(self.reader, total=plan.answers) as reader:
                selector.calibrate(reader, max_answers=request.max_answers)
            self.clock.print_lap(f"calibrated by the answers of {self.reader.name}")
        return selector

    def explain(self, selector: Any) -> None:
        """Prints one selection with its reasons and the finished prompt."""
        from kdprompt.cli.selection_view import show

        request = self.request
        query = None if request.is_static else request.queries[0]
        with count_answers(self.reader if request.is_static else None) as reader:
            explanation = selector.explain(query, task=request.task, outputs=request.outputs, reader=reader)
        selection = explanation.selection
        text = selection.query.text if selection.query else "{the query}"
        show(Terminal(), explanation, selector.settings.template.text(selection.demonstrations, text))

    def select(self, selector: Any) -> list[Any]:
        """The selections that are asked for."""
        request = self.request
        if request.is_static:
            with self.clock.log.status("selecting one prompt"), count_answers(self.reader) as reader:
                selection = selector.select_static(task=request.task, outputs=request.outputs, reader=reader)
            self.clock.print_lap("selected one prompt")
            return [selection]
        return self._select_batch(selector)

    def _select_batch(self, selector: Any) -> list[Any]:
        from kdprompt.cli.progress import progress_bar
        from kdprompt.pool.embedding import embed_queries

        request = self.request
        texts = [query.text for query in selector.pool.queries(request.queries)]
        vectors = embed_queries(selector.embedder, texts)
        self.clock.print_lap(f"embedded {len(texts):,} queries")
        with progress_bar() as progress:
            bar = progress.add_task("selecting", total=len(texts))
            selections: list[Any] = selector.select_batch(
                request.queries,
                task=request.task,
                outputs=request.outputs,
                vectors=vectors,
                progress=lambda done: progress.advance(bar, done),
            )
        self.clock.print_lap(f"selected for {len(texts):,} queries")
        return selections


def _write(selections: Iterable[Any], output: Path | None, log: Terminal) -> None:
    from kdprompt.atomic_write import atomic_write

    records = [_to_json(selection) for selection in selections]
    lines = [to_json_line(record) + "\n" for record in records]
    if output is None:
        text = "".join(lines)
        if not _can_print(text):  # JSON has escapes for what the console has no sign for
            text = "".join(to_json_line(record, ascii_only=True) + "\n" for record in records)
        typer.echo(text, nl=False)
        return
    atomic_write(output, "".join(lines))
    log.print(f"wrote {len(lines):,} selections to {output}", style="dim")


def _can_print(text: str) -> bool:
    """Whether standard output has a sign for every sign of the text: a Windows console's code page has few."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _to_json(selection: Any) -> dict[str, Any]:
    """What is written of a selection: the query, the original examples in reading order, and the numbers."""
    whole = selection.model_dump(mode="json", exclude={"chosen"})
    chosen = [
        {"id": member.demonstration.id, **member.model_dump(mode="json", exclude={"demonstration"})}
        for member in selection.chosen
    ]
    return {"query": whole.pop("query"), "examples": selection.examples, "chosen": chosen, **whole}
