"""``kdprompt build``: a pool embedded and calibrated once, for every later ``kdprompt select``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from kdprompt.cli.checks import check_apart, check_device, check_file, check_streams
from kdprompt.cli.clock import Clock
from kdprompt.cli.embeddings import NoCacheOption, open_embedder
from kdprompt.cli.options import (
    BudgetOption,
    DeviceOption,
    EmbeddingModelOption,
    IdKeyOption,
    InputKeyOption,
    KOption,
    NoOutputsOption,
    OutputKeyOption,
    ProfileOption,
    QueriesOption,
    TaskKeyOption,
)
from kdprompt.cli.pools import Keys, read_pool
from kdprompt.cli.prompts import PromptOptions
from kdprompt.cli.queries import read_queries
from kdprompt.cli.terminal import Terminal

__all__ = ["build"]


def build(  # noqa: PLR0913 - a command's options are its interface
    pool: Annotated[
        Path,
        typer.Argument(
            help="Examples: JSON lines, JSON, CSV, TSV or Parquet, also with .gz.", exists=True, dir_okay=False
        ),
    ],
    output: Annotated[Path, Option("--output", "-o", help="The file to write, pool.kd say.")],
    queries: QueriesOption = None,
    k: KOption = None,
    budget: BudgetOption = None,
    profile: ProfileOption = None,
    input_key: InputKeyOption = None,
    output_key: OutputKeyOption = None,
    task_key: TaskKeyOption = None,
    id_key: IdKeyOption = None,
    no_outputs: NoOutputsOption = False,
    no_cache: NoCacheOption = False,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Embed a pool and calibrate on it, once, and write it to a file for ``kdprompt select --pool``.

    ``DistillationSelector.load`` reads the file too. What is not said here (k, budget) can be said to select.
    """
    from kdprompt import SentenceTransformerEmbedder
    from kdprompt.pool.fingerprint import remember_fingerprint, take_fingerprint

    options = PromptOptions(k=k, budget=budget, profile=profile)
    check_file(output)
    check_apart([output], {"the pool": pool, "--queries": queries, **options.files()})
    check_streams({"the pool": pool, "--queries": queries})
    check_device(device)
    log = Terminal(stderr=True)
    loaded = read_pool(pool, Keys(input_key, output_key, task_key, id_key, no_outputs))
    embedder = open_embedder(model, device, None, keep=not no_cache)
    traffic = loaded.queries(*read_queries(queries, schema=loaded.schema))
    selector = _build(loaded, traffic, options, embedder, Clock(log))
    named = SentenceTransformerEmbedder(model, device=device)  # what a file can name
    if fingerprint := take_fingerprint(embedder, selector.pool[0].input):  # from the cache: nothing is loaded for it
        remember_fingerprint(named, fingerprint)
    selector.embedder = named
    selector.save(output, default=str)
    log.print(f"wrote {len(loaded):,} examples to {output}; next: kdprompt select --pool {output} --query '…'")


def _build(pool: Any, traffic: Any, options: PromptOptions, embedder: Any, clock: Clock) -> Any:
    """Checks what can be checked, embeds and calibrates."""
    from kdprompt import DistillationSelector, Settings
    from kdprompt.pool.embedding import embed_documents
    from kdprompt.selection.pool_size import check_size

    settings = options.settings()(Settings())
    check_size(pool, pool.distinct, settings)
    vectors = embed_documents(embedder, [example.input for example in pool])
    clock.print_lap(f"embedded {len(pool):,} examples")
    with clock.log.status("calibrating on the pool"):
        selector = DistillationSelector.from_examples(
            pool, embedder, queries=traffic, settings=settings, vectors=vectors
        )
    clock.print_lap("prepared the pool and calibrated")
    return selector
