"""``kdprompt drift``: whether the traffic has left a reference, and what to label next."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from kdprompt.cli.checks import check_device, check_standard_output, check_streams
from kdprompt.cli.embeddings import NoCacheOption, open_embedder
from kdprompt.cli.options import DeviceOption, EmbeddingModelOption, SeedOption
from kdprompt.cli.output import print_json
from kdprompt.cli.queries import read_queries
from kdprompt.cli.terminal import Terminal

if TYPE_CHECKING:
    from kdprompt.diagnose import Drift

__all__ = ["drift"]

Option = typer.Option
ReferenceArgument = Annotated[
    Path, typer.Argument(help="The pool, or earlier traffic: one JSON object a line.", exists=True, dir_okay=False)
]
WindowArgument = Annotated[
    Path, typer.Argument(help="Recent queries, one JSON object a line.", exists=True, dir_okay=False)
]


def drift(  # noqa: PLR0913 - a command's options are its interface
    reference: ReferenceArgument,
    window: WindowArgument,
    level: Annotated[float, Option(help="Share of windows without drift that raise an alarm.")] = 0.05,
    count: Annotated[int, Option(help="Queries to propose for labelling.", min=0)] = 10,
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
    seed: SeedOption = 0,
    no_cache: NoCacheOption = False,
) -> None:
    """Say whether recent queries have left a reference, and which to label next. Exit code 1 is an alarm."""
    from kdprompt import Pool
    from kdprompt.diagnose import measure_drift
    from kdprompt.pool.embedding import embed_queries

    check_standard_output()
    check_streams({"the reference": reference, "the window": window})
    check_device(device)
    old, new = ([query.text for query in Pool(()).queries(*read_queries(path))] for path in (reference, window))
    embedder = open_embedder(model, device, None, keep=not no_cache)
    vectors = [embed_queries(embedder, texts) for texts in (old, new)]
    result = measure_drift(*vectors, level=level, count=count, seed=seed)
    if as_json:
        print_json(json.dumps(_to_dict(result, new), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        _show(Terminal(), result, new)
    if result.alarm:
        raise typer.Exit(1)


def _to_dict(result: "Drift", texts: list[str]) -> dict[str, object]:
    proposals = [
        {"query": i, "text": texts[i], "witness": float(result.witness[i]), "nearest": float(result.similarity[i])}
        for i in result.label_next
    ]
    return {"alarm": result.alarm, "p_value": result.test.p_value, "level": result.level, "label_next": proposals}


def _show(console: Terminal, result: "Drift", texts: list[str]) -> None:
    console.print(str(result))
    if not result.label_next:
        return
    table = Table(title="Label next", title_justify="left", title_style="bold")
    table.add_column("witness", justify="right")
    table.add_column("nearest", justify="right")
    table.add_column("query", overflow="fold")
    for i in result.label_next:
        table.add_row(f"{float(result.witness[i]):+.3f}", f"{float(result.similarity[i]):.2f}", f"{texts[i]:.200}")
    console.print(table)
    console.print("witness: the window's mass there less that of the reference; nearest: cosine", style="dim")
