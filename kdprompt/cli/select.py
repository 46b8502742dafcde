"""``kdprompt select``: demonstrations for queries from a pool file."""

import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from kdprompt.cli.reader import opened, watched

__all__ = ["select"]

Option = typer.Option
Reads = Annotated[
    str | None,
    Option(
        help="The model that will read the prompts, 'smollm2', a Hugging Face name or folder, or python:MODULE:NAME "
        "(LangChain model, callable). It answers examples of the pool: with --static some 9,600 times, and the best of "
        "some 320 prompts is taken; else some 10,600 times, and what stands first and in which order is calibrated."
    ),
]


@dataclass(frozen=True)
class _Asked:
    """What is asked of the selector."""

    queries: list[Any]
    static: bool
    task: str | None
    outputs: list[str] | None
    reader: Any = None


def select(  # noqa: PLR0913 - a command's options are its interface
    pool: Annotated[Path, Option(help="Examples, one JSON object a line.", exists=True, dir_okay=False)],
    query: Annotated[list[str] | None, Option(help="A query; may be given several times.")] = None,
    queries: Annotated[
        Path | None, Option(help="Queries, one JSON object a line with the input keys.", exists=True, dir_okay=False)
    ] = None,
    static: Annotated[
        bool, Option("--static", help="One prompt for all queries (without queries: for inputs like the pool's).")
    ] = False,
    k: Annotated[str, Option(help="Demonstrations a prompt, or 'auto'.")] = "8",
    budget: Annotated[int | None, Option(help="Most tokens that the demonstrations may take.", min=0)] = None,
    output: Annotated[Path | None, Option(help="Write selections here, one JSON object a line.")] = None,
    task: Annotated[str | None, Option(help="Choose from this task alone.")] = None,
    permit: Annotated[list[str] | None, Option(help="Choose from examples with this output; repeatable.")] = None,
    order: Annotated[
        Literal["likeliest-last", "nearest-last", "nearest-first", "by-objective"] | None,
        Option(help="Reading order. Default: likeliest-last; with --static by-objective."),
    ] = None,
    reader: Reads = None,
    rounds: Annotated[
        int, Option(help="With --reader: how often its best static prompt is changed, some 480 answers each.", min=0)
    ] = 16,
    input_key: Annotated[list[str] | None, Option(help="Key of the input; repeatable. Default: input.")] = None,
    output_key: Annotated[list[str] | None, Option(help="Key of the output; repeatable. Default: output.")] = None,
    model: Annotated[str | None, Option(help="sentence-transformers model. Default: all-MiniLM-L6-v2.")] = None,
    device: Annotated[str | None, Option(help="cpu, cuda, mps, … Default: the best there is.")] = None,
) -> None:
    """Choose demonstrations for each query of a file, for single queries, or one prompt for all of them.

    One query is explained on the terminal; several give one JSON object a line, on standard output or in --output.
    """
    from kdprompt import Pool, QueryError, Schema, read_jsonl

    log = Console(stderr=True, highlight=False)
    schema = Schema(inputs=tuple(input_key or ("input",)), outputs=tuple(output_key or ("output",)))
    loaded = Pool.from_jsonl(pool, schema)
    asked = _Asked([*(query or ()), *(read_jsonl(queries) if queries else ())], static, task, permit)
    if not asked.queries and not static:
        raise QueryError("nothing to select for: give --query, --queries, or --static")
    _check(loaded, asked)
    settings = _settings(k, budget, order, rounds)
    asked = replace(asked, reader=opened(reader, log, device=device) if reader else None)
    clock = _Clock(log)
    selector = _build(loaded, asked, settings, (model, device), clock)
    if output is None and (static or len(asked.queries) == 1):
        _explain(selector, asked)
    else:
        _write(_run(selector, asked, clock), output, log)


def _build(loaded: Any, asked: _Asked, settings: Any, model: tuple[str | None, str | None], clock: "_Clock") -> Any:
    """Embeds the pool with a (model, device) and calibrates on it."""
    from kdprompt import DistillationSelector
    from kdprompt.cli.progress import ProgressEmbedder
    from kdprompt.pool.embedding import embed_documents

    embedder = ProgressEmbedder(model[0], device=model[1])
    vectors = embed_documents(embedder, [example.input for example in loaded]) if len(loaded) else None
    clock.lap(f"embedded {len(loaded):,} examples")
    traffic = asked.queries if asked.static or asked.reader else None
    with clock.log.status("calibrating on the pool"):
        selector = DistillationSelector.from_examples(
            loaded, embedder, queries=traffic, settings=settings, vectors=vectors
        )
    clock.lap("prepared the pool and calibrated")
    if asked.reader and not asked.static:
        with watched(asked.reader) as reader:
            selector.calibrate(reader)
        clock.lap(f"calibrated by what {asked.reader.name} answers")
    return selector


def _check(pool: Any, asked: _Asked) -> None:
    """Reads every query before anything costs time, so that a bad one at the end loses nothing."""
    for i, query in enumerate(asked.queries):
        line = getattr(query, "line", None)
        pool.query(query, f"query {i}" + (f" (line {line})" if line else ""))


def _settings(k: str, budget: int | None, order: str | None, rounds: int) -> Any:
    from kdprompt import Settings
    from kdprompt.search.ordering import ORDERS

    if k != "auto" and not k.isdecimal():
        raise ValueError(f"--k must be a whole number from 0 or 'auto', got {k!r}")
    size: Any = "auto" if k == "auto" else int(k)
    return Settings(k=size, budget=budget, order=ORDERS[order]() if order else None, static_rounds=rounds)


class _Clock:
    """Says on standard error how long each step took."""

    def __init__(self, log: Console) -> None:
        self.log = log
        self.last = time.perf_counter()

    def lap(self, what: str) -> None:
        now = time.perf_counter()
        self.log.print(f"{what} in {now - self.last:.2f} s", style="dim")
        self.last = now


def _explain(selector: Any, asked: _Asked) -> None:
    from kdprompt.cli.selection_view import show

    query, asks = (None, asked.reader) if asked.static else (asked.queries[0], None)
    with watched(asks) as reader:
        explanation = selector.explain(query, task=asked.task, outputs=asked.outputs, reader=reader)
    selection = explanation.selection
    text = selection.query.text if selection.query else "{the query}"
    show(Console(), explanation, selector.settings.template.text(selection.demonstrations, text))


def _run(selector: Any, asked: _Asked, clock: _Clock) -> list[Any]:
    from kdprompt.cli.progress import progress_bar
    from kdprompt.pool.embedding import embed_queries

    if asked.static:
        with clock.log.status("selecting one prompt"), watched(asked.reader) as reader:
            found = [selector.select_static(task=asked.task, outputs=asked.outputs, reader=reader)]
        clock.lap("selected one prompt")
        return found
    texts = [selector.pool.query(query).text for query in asked.queries]
    vectors = embed_queries(selector.embedder, texts)
    clock.lap(f"embedded {len(texts):,} queries")
    with progress_bar() as progress:
        bar = progress.add_task("selecting", total=len(texts))
        selections: list[Any] = selector.select_batch(
            asked.queries,
            task=asked.task,
            outputs=asked.outputs,
            vectors=vectors,
            progress=lambda done: progress.advance(bar, done),
        )
    clock.lap(f"selected for {len(texts):,} queries")
    return selections


def _write(selections: Iterable[Any], output: Path | None, log: Console) -> None:
    lines = [json.dumps(_row(selection), ensure_ascii=False) + "\n" for selection in selections]
    if output is None:
        typer.echo("".join(lines), nl=False)
        return
    # Beside the file first, then in its place: a run that dies leaves the old file whole.
    handle, name = tempfile.mkstemp(dir=output.resolve().parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(lines)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, output)
    except BaseException:
        os.unlink(name)
        raise
    log.print(f"wrote {len(lines):,} selections to {output}", style="dim")


def _row(selection: Any) -> dict[str, Any]:
    """What is written of a selection: the query, the original examples in reading order, and the numbers."""
    whole = selection.model_dump(mode="json", exclude={"chosen"})
    chosen = [
        {"id": item.demonstration.id, **item.model_dump(mode="json", exclude={"demonstration"})}
        for item in selection.chosen
    ]
    return {"query": whole.pop("query"), "examples": selection.examples, "chosen": chosen, **whole}
