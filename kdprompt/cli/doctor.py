"""``kdprompt doctor``: what is wrong with a pool, before it costs answers."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kdprompt.cli.options import DeviceOption, EmbeddingModelOption, PoolOption
from kdprompt.cli.queries import read_queries
from kdprompt.cli.terminal import Terminal
from kdprompt.defaults import DEFAULT_K

__all__ = ["doctor"]

Option = typer.Option
SHOWN = 20
TrafficOption = Annotated[
    Path | None, Option(help="A sample of the traffic, one JSON object a line.", exists=True, dir_okay=False)
]


def doctor(
    pool: PoolOption,
    queries: TrafficOption = None,
    k: Annotated[int, Option(help="Nearest neighbours that a prompt would show.", min=1)] = DEFAULT_K,
    ignore_tags: Annotated[bool, Option("--ignore-tags", help="Look at the outputs alone.")] = False,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Say what a pool holds, whether it mixes tasks that conflict, and whether it covers the traffic."""
    from kdprompt import Pool, PoolError
    from kdprompt.cli.progress import ProgressEmbedder
    from kdprompt.diagnose import find_task_mixture
    from kdprompt.pool.embedding import embed_documents

    loaded = Pool.from_jsonl(pool)
    if not len(loaded):
        raise PoolError(f"{pool} holds no examples")
    asked = loaded.queries(*read_queries(queries))
    if ignore_tags:
        loaded = Pool((d.model_copy(update={"task": None}) for d in loaded), loaded.schema)
    console, embedder = Terminal(), ProgressEmbedder(model, device=device)
    console.print(_contents(loaded))
    vectors = embed_documents(embedder, [d.input for d in loaded])
    if len({(d.task, d.output) for d in loaded if d.output is not None}) > 1:
        console.print(str(find_task_mixture(loaded, vectors, k=k)))
    if asked:
        _traffic(console, embedder, vectors, [query.text for query in asked])


def _contents(pool: Any) -> Table:
    counts = Counter((d.task or "", d.output or "") for d in pool)
    table = Table(title=f"{len(pool):,} examples, {len(counts):,} outputs", title_justify="left", title_style="bold")
    table.add_column("task")
    table.add_column("output")
    table.add_column("examples", justify="right")
    for (task, output), count in counts.most_common(SHOWN):
        table.add_row(task, output, f"{count:,}")
    if len(counts) > SHOWN:
        table.caption = f"and {len(counts) - SHOWN:,} more outputs"
    return table


def _traffic(console: Terminal, embedder: Any, vectors: Any, texts: list[str]) -> None:
    from kdprompt.diagnose import measure_coverage
    from kdprompt.pool.embedding import embed_queries

    coverage = measure_coverage(vectors, embed_queries(embedder, texts))
    console.print(str(coverage))
    table = Table(title="Worst covered queries", title_justify="left", title_style="bold")
    table.add_column("witness", justify="right")
    table.add_column("nearest", justify="right")
    table.add_column("query", overflow="fold")
    for i in coverage.worst(5):
        table.add_row(f"{float(coverage.witness[i]):+.3f}", f"{float(coverage.similarity[i]):.2f}", texts[i])
    console.print(table)
    console.print("witness: the pool's mass there less that of the other queries; nearest: cosine", style="dim")
