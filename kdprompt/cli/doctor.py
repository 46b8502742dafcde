"""``kdprompt doctor``: what is wrong with a pool, before it costs answers."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from kdprompt.cli.checks import check_apart, check_device, check_file, check_standard_output, check_streams
from kdprompt.cli.embeddings import NoCacheOption, open_embedder
from kdprompt.cli.options import (
    DeviceOption,
    EmbeddingModelOption,
    IdKeyOption,
    InputKeyOption,
    NoOutputsOption,
    OutputKeyOption,
    PoolOption,
    QueriesOption,
    TaskKeyOption,
)
from kdprompt.cli.output import print_json
from kdprompt.cli.pools import Keys, read_pool
from kdprompt.cli.queries import read_queries
from kdprompt.cli.terminal import Terminal
from kdprompt.defaults import DEFAULT_K

if TYPE_CHECKING:
    from kdprompt import Pool
    from kdprompt.diagnose import Diagnosis, DoctorSettings, EmbeddedTexts, Finding, TokenLimit

__all__ = ["doctor"]

Option = typer.Option
SHOWN = 20  # outputs
CASES = 5  # of a finding
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
EvaluationOption = Annotated[
    Path | None,
    Option(help="Inputs of an evaluation set, in a file as --queries takes it.", exists=True, dir_okay=False),
]


class Level(StrEnum):
    """From which severity on a finding makes the command fail."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEVER = "never"


def doctor(  # noqa: PLR0913
    pool: PoolOption,
    queries: QueriesOption = None,
    evaluation: EvaluationOption = None,
    k: Annotated[int, Option(help="Nearest neighbours that a prompt would show.", min=1)] = DEFAULT_K,
    cosine: Annotated[float, Option(help="From this cosine on inputs are nearly the same.", min=0.01, max=1)] = 0.95,
    injection: Annotated[bool, Option("--injection", help="Look for text that reads like an order.")] = False,
    ignore_tags: Annotated[bool, Option("--ignore-tags", help="Look at the outputs alone.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print all findings as JSON.")] = False,
    html: Annotated[Path | None, Option(help="Write the findings as an HTML page.", dir_okay=False)] = None,
    fail_on: Annotated[Level, Option(help="Exit with 1 on a finding of this severity or a worse one.")] = Level.ERROR,
    input_key: InputKeyOption = None,
    output_key: OutputKeyOption = None,
    task_key: TaskKeyOption = None,
    id_key: IdKeyOption = None,
    no_outputs: NoOutputsOption = False,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
    no_cache: NoCacheOption = False,
) -> None:
    """Look for what is wrong with a pool: repeats, conflicts, wrong outputs, leakage, gaps, mixed tasks."""
    from kdprompt.diagnose import DoctorSettings

    check_standard_output()
    inputs = {"--pool": pool, "--queries": queries, "--evaluation": evaluation}
    check_streams(inputs)
    if html is not None:
        check_file(html)
        check_apart([html], inputs)
    check_device(device)
    loaded = read_pool(pool, Keys(input_key, output_key, task_key, id_key, no_outputs))
    asked, held_out = _read(loaded, queries), _read(loaded, evaluation)
    settings = DoctorSettings(k=k, cosine=cosine, injection=injection)
    embedder = open_embedder(model, device, None, keep=not no_cache)
    diagnosis = _diagnose(_untagged(loaded) if ignore_tags else loaded, asked, held_out, settings, embedder)
    _report(diagnosis, as_json, html, {"pool": pool.name, "embedding model": model or "the default"})
    if diagnosis.fails(fail_on):
        raise typer.Exit(1)


def _report(diagnosis: "Diagnosis", as_json: bool, html: Path | None, about: dict[str, object]) -> None:
    """Prints a diagnosis, and writes its page where one is asked for."""
    if as_json:
        print_json(diagnosis.model_dump_json(indent=2) + "\n")
    else:
        show_diagnosis(Terminal(), diagnosis)
    if html is not None:
        from kdprompt.report import write_diagnosis

        write_diagnosis(diagnosis, html, about)


def _untagged(pool: "Pool") -> "Pool":
    from kdprompt import Pool

    return Pool((d.model_copy(update={"task": None}) for d in pool), pool.schema)


def _diagnose(
    pool: "Pool",
    asked: list[str],
    held_out: list[str],
    settings: "DoctorSettings",
    embedder: Any,
) -> "Diagnosis":
    """Embeds what was read, and looks."""
    from kdprompt import PoolError
    from kdprompt.diagnose import diagnose_pool
    from kdprompt.pool.embedding import embed_documents

    if not len(pool):
        raise PoolError("the pool holds no examples")
    return diagnose_pool(
        pool,
        embed_documents(embedder, [d.input for d in pool]),
        traffic=_embed(embedder, asked),
        evaluation=_embed(embedder, held_out),
        tokens=_token_limit(embedder),
        settings=settings,
    )


def _read(pool: "Pool", path: Path | None) -> list[str]:
    """The input texts of a file, rendered as the pool's are."""
    return [query.text for query in pool.queries(*read_queries(path, schema=pool.schema))]


def _embed(embedder: Any, texts: list[str]) -> "EmbeddedTexts | None":
    from kdprompt.diagnose import EmbeddedTexts
    from kdprompt.pool.embedding import embed_queries

    return EmbeddedTexts(texts, embed_queries(embedder, texts)) if texts else None


def _token_limit(embedder: Any) -> "TokenLimit | None":
    """What the model reads; None where it has no limit, or no tokenizer of the usual kind."""
    from kdprompt.diagnose import TokenLimit

    model = getattr(embedder, "embedder", embedder).model  # the one whose vectors are kept on disk
    limit, tokenizer = model.max_seq_length, model.tokenizer
    if limit is None or not callable(tokenizer):
        return None

    def count(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]

    return TokenLimit(int(limit), count)


def show_diagnosis(console: Terminal, diagnosis: "Diagnosis") -> None:
    """Prints a diagnosis: the outputs, each finding with its first cases, what the other checks say, and a count."""
    console.print(_contents(diagnosis))
    for finding in diagnosis.findings:
        _show_finding(console, finding)
    for sentence in diagnosis.said.values():
        console.print(sentence)
    counts = [f"{sum(f.severity == name for f in diagnosis.findings)} {name}s" for name in STYLES]
    console.print(", ".join(counts) if diagnosis.findings else "Nothing found.", style="bold")


def _show_finding(console: Terminal, finding: "Finding") -> None:
    from rich.padding import Padding

    from kdprompt.cli.terminal import plain

    console.print(plain(f"{finding.severity} {finding.check}", STYLES[finding.severity]), end=": ")
    console.print(finding.summary)
    for case in finding.instances[:CASES]:
        names = f" ({', '.join(case.ids[:3])}{', …' if len(case.ids) > 3 else ''})" if case.ids else ""
        score = "" if case.score is None else f"{case.score:.2f}  "
        other = "" if case.other is None or case.other == case.text else f"\n{case.other:.160}"
        console.print(Padding(plain(f"{score}{case.text:.160}{other}\n{case.detail}{names}"), (0, 0, 0, 4)))
    if len(finding.instances) > CASES:
        console.print(f"    and {len(finding.instances) - CASES:,} more; --json has all", style="dim")
    console.print(f"  → {finding.remedy}", style="dim")


def _contents(diagnosis: "Diagnosis") -> Table:
    title = f"{diagnosis.examples:,} examples, {len(diagnosis.outputs):,} outputs"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("task")
    table.add_column("output")
    table.add_column("examples", justify="right")
    for task, output, count in diagnosis.outputs[:SHOWN]:
        table.add_row(task, f"{output:.80}", f"{count:,}")
    if len(diagnosis.outputs) > SHOWN:
        table.caption = f"and {len(diagnosis.outputs) - SHOWN:,} more outputs"
    return table
