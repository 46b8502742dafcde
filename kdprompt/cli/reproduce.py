"""``kdprompt reproduce``: the theory's phenomena, measured, as a page with pictures and a JSON beside it."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kdprompt.cli.checks import check_folder
from kdprompt.cli.options import SeedOption
from kdprompt.cli.terminal import Terminal
from kdprompt.paths import expand_home

__all__ = ["reproduce"]

Option = typer.Option


def reproduce(
    output: Annotated[Path, Option(help="Folder for phenomena.html and phenomena.json.")],
    data: Annotated[
        list[Path] | None,
        Option(help="Prefix of PREFIX.pool.jsonl, .dev.jsonl and .test.jsonl; repeatable. Default: the shipped pool."),
    ] = None,
    model: Annotated[str, Option(help="'smollm2', or a Hugging Face name or folder.")] = "smollm2",
    prompts: Annotated[int, Option(help="Random prompts for the correlation of bias and loss.", min=10)] = 200,
    seed: SeedOption = 0,
) -> None:
    """Measure what the theory predicts, on synthetic attention and on a real small LM; a verdict for each claim."""
    from kdprompt.atomic_write import atomic_write
    from kdprompt.report import write_phenomena
    from kdprompt.reproduce import measure_bias_and_mmd, measure_gap_and_length

    output = expand_home(output)
    check_folder(output)
    log = Terminal(stderr=True)
    output.mkdir(parents=True, exist_ok=True)
    datasets = _datasets(data)
    phenomena = [measure_bias_and_mmd(seed=seed), measure_gap_and_length(seed=seed)]
    about = {"command": " ".join(["kdprompt", *sys.argv[1:]]), "model": model, "seed": seed}
    for phenomenon in _measured(datasets, model, prompts, seed, log):
        phenomena.append(phenomenon)
        record = {"about": about, "phenomena": [asdict(measured) for measured in phenomena]}
        atomic_write(output / "phenomena.json", json.dumps(record, ensure_ascii=False))
    write_phenomena(phenomena, output / "phenomena.html", about)
    table = Table(title="The theory, measured", title_justify="left", title_style="bold")
    for name in ("phenomenon", "claim", "verdict", "measured"):
        table.add_column(name, overflow="fold")
    for phenomenon in phenomena:
        for verdict in phenomenon.verdicts:
            interval = f"{verdict.value:.2f} [{verdict.low:.2f}, {verdict.high:.2f}]"
            table.add_row(phenomenon.name, verdict.claim, verdict.word, interval)
    Terminal().print(table)
    log.print(f"wrote phenomena.html and phenomena.json to {output}", style="dim")


def _measured(datasets: list[Any], model: str, prompts: int, seed: int, log: Terminal) -> Any:
    from kdprompt import SentenceTransformerEmbedder
    from kdprompt.evaluate import EmbeddingCache
    from kdprompt.readers import load_causal_lm
    from kdprompt.reproduce import (
        LanguageModelSetup,
        measure_bias_and_loss,
        measure_interference_and_share,
        measure_length_and_loss,
        measure_order_and_spread,
    )

    with log.status(f"loading {model}"):
        reader = load_causal_lm(model, device="cpu")
    embed = EmbeddingCache(SentenceTransformerEmbedder(), name="minilm")
    for i, dataset in enumerate(datasets):
        setup = LanguageModelSetup(reader, dataset, embed, seed=seed)
        other = list(datasets[i - 1].pool)
        steps = (
            partial(measure_bias_and_loss, prompts=prompts),
            partial(measure_bias_and_loss, prompts=prompts, attention=True),
            partial(measure_order_and_spread, prompts=max(4, prompts // 5)),
            partial(measure_interference_and_share, other=other, queries=max(3, prompts // 10)),
            partial(measure_length_and_loss, queries=max(4, prompts // 5)),
        )
        for step in steps:
            with log.status(f"{dataset.name}: measuring"):
                phenomenon = step(setup)
            for verdict in phenomenon.verdicts:
                log.print(f"{phenomenon.name}: {verdict}", style="dim")
            yield phenomenon


def _datasets(prefixes: list[Path] | None) -> list[Any]:
    from kdprompt import Pool, Query
    from kdprompt.evaluate import Case, Dataset
    from kdprompt.resources import support_desk

    if prefixes:
        return [Dataset.from_prefix(prefix) for prefix in prefixes]
    parts = []
    for task in ("support", "tone"):
        members = [d for d in support_desk() if d.task == task]
        cases = tuple(Case(Query(text=d.input), str(d.output), task) for d in members[::5])
        kept = Pool(d for i, d in enumerate(members) if i % 5)
        parts.append(Dataset(task, kept, tuple(case.query for case in cases), cases, cases))
    return parts
