"""``kdprompt doctor``: what is wrong with a pool, before it costs answers."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["doctor"]

Option = typer.Option


def doctor(
    pool: Annotated[Path, Option(help="Examples, one JSON object a line.", exists=True, dir_okay=False)],
    k: Annotated[int, Option(help="Nearest neighbours that a prompt would show.", min=1)] = 8,
    ignore_tags: Annotated[bool, Option("--ignore-tags", help="Look at the outputs alone.")] = False,
    model: Annotated[str | None, Option(help="sentence-transformers model. Default: all-MiniLM-L6-v2.")] = None,
    device: Annotated[str | None, Option(help="cpu, cuda, mps, … Default: the best there is.")] = None,
) -> None:
    """Say what a pool holds, and whether it mixes tasks that conflict and what that costs."""
    from kdprompt import Pool
    from kdprompt.cli.embedding import ProgressEmbedder
    from kdprompt.diagnose import mixture
    from kdprompt.embedding import embed_documents

    loaded = Pool.from_jsonl(pool)
    if ignore_tags:
        loaded = Pool((d.model_copy(update={"task": None}) for d in loaded), loaded.schema)
    vectors = (
        embed_documents(ProgressEmbedder(model, device=device), [d.input for d in loaded]) if len(loaded) else None
    )
    console = Console(highlight=False)
    counts = Counter((d.task or "", d.output or "") for d in loaded)
    table = Table(title=f"{len(loaded):,} examples, {len(counts):,} outputs", title_justify="left", title_style="bold")
    for name, justify in (("task", "left"), ("output", "left"), ("examples", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left")
    for (task, output), count in counts.most_common(20):
        table.add_row(escape(task), escape(output), f"{count:,}")
    console.print(table)
    if len(counts) > 20:
        console.print(f"and {len(counts) - 20:,} more outputs", style="dim")
    if vectors is not None:
        console.print(escape(str(mixture(loaded, vectors, k=k))))
