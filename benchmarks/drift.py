"""Alarms of ``kdprompt drift`` without drift and with some, on real texts.

    python benchmarks/drift.py ../data/trec ../data/banking77 --cache /tmp/vectors --markdown benchmarks/drift.md

References and windows are drawn anew in each round, disjoint, from the pool of the first data set; with drift a share
of the window comes from the second. Intervals are Wilson's, at 95 %.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from scipy.stats import binomtest

from kdprompt import Pool, SentenceTransformerEmbedder
from kdprompt.atomic_write import atomic_write
from kdprompt.diagnose import measure_drift
from kdprompt.evaluate.embedding_cache import EmbeddingCache


def wilson(hits, rounds):
    """A share in per cent with its Wilson interval."""
    interval = binomtest(hits, rounds).proportion_ci(method="wilson")
    return f"{100 * hits / rounds:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def main(  # noqa: PLR0913 - options of a script
    usual: Path,
    other: Path,
    rounds: Annotated[int, typer.Option(help="Windows of each kind.", min=1)] = 200,
    size: Annotated[int, typer.Option(help="Queries of a window.", min=2)] = 100,
    reference: Annotated[int, typer.Option(help="Texts of a reference.", min=2)] = 500,
    cache: Annotated[Path | None, typer.Option(help="Folder of embeddings.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Where the table is written.")] = None,
):
    """Counts alarms in windows with no, little and more drift."""
    console = Console(highlight=False)
    embed = EmbeddingCache(SentenceTransformerEmbedder(device="cpu"), name="minilm", folder=cache)
    vectors = [
        embed([d.input for d in Pool.from_jsonl(prefix.with_name(f"{prefix.name}.pool.jsonl"))])
        for prefix in (usual, other)
    ]
    lines = [
        f"{rounds} windows of {size} queries of {usual.name} against {reference} others, alarm at 0.05; alarms in per "
        "cent, with the 95 % interval.",
        "",
        f"| queries of {other.name} in the window | alarms | their share of 10 proposals |",
        "| ---: | ---: | ---: |",
    ]
    for share in (0.0, 0.02, 0.05, 0.1, 0.2):
        alarms, new = 0, round(share * size)
        proposed = 0
        for seed in range(rounds):
            generator = torch.Generator().manual_seed(1_000 * seed + new)
            rows = [torch.randperm(len(x), generator=generator) for x in vectors]
            known = vectors[0][rows[0][:reference]]
            window = torch.cat([vectors[0][rows[0][reference:][: size - new]], vectors[1][rows[1][:new]]])
            found = measure_drift(known, window, permutations=199, seed=seed)
            alarms += found.alarm
            proposed += sum(i >= size - new for i in found.label_next)
        label_share = f"{proposed / (10 * rounds):.0%}" if new else ""
        lines.append(f"| {share:.0%} | {wilson(alarms, rounds)} | {label_share} |")
        console.print(lines[-1], markup=False)
    if markdown is not None:
        atomic_write(markdown, "\n".join(["# Drift, measured", "", *lines, ""]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)
