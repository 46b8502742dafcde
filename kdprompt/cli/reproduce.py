"""``kdprompt reproduce``: the theory's phenomena, measured, as a page with pictures and a JSON beside it."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
    seed: Annotated[int, Option(help="Of everything that is drawn.")] = 0,
) -> None:
    """Measure what the theory predicts, on synthetic linear attention and on a real small LM."""
    from kdprompt.report import write_phenomena
    from kdprompt.reproduce.phenomena import bias_and_mmd, gap_and_length

    log = Console(stderr=True, highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    datasets = _datasets(data)
    found = [bias_and_mmd(seed=seed), gap_and_length(seed=seed)]
    about = {"command": " ".join(["kdprompt", *sys.argv[1:]]), "model": model, "seed": seed}
    for item in _measured(datasets, model, prompts, seed, log):
        found.append(item)
        (output / "phenomena.json").write_text(
            json.dumps({"about": about, "phenomena": [asdict(one) for one in found]}, ensure_ascii=False), "utf-8"
        )
    write_phenomena(found, output / "phenomena.html", about)
    table = Table(title="The theory, measured", title_justify="left", title_style="bold")
    table.add_column("phenomenon", overflow="fold")
    table.add_column("figures")
    for item in found:
        table.add_row(item.name, "\n".join(f"{name} {value:.3f}" for name, value in item.figures.items()))
    Console().print(table)
    log.print(f"wrote phenomena.html and phenomena.json to {output}", style="dim")


def _measured(datasets: list[Any], model: str, prompts: int, seed: int, log: Console) -> Any:
    from kdprompt import SentenceTransformerEmbedder
    from kdprompt.evaluate import EmbeddingCache
    from kdprompt.readers import load_causal_lm
    from kdprompt.reproduce import phenomena as measure

    with log.status(f"loading {model}"):
        reader = load_causal_lm(model, device="cpu")
    embed = EmbeddingCache(SentenceTransformerEmbedder(), name="minilm")
    for i, dataset in enumerate(datasets):
        reading = measure.Reading(reader, dataset, embed, seed=seed)
        other = list(datasets[i - 1].pool)
        steps = (
            partial(measure.bias_and_loss, prompts=prompts),
            partial(measure.bias_and_loss, prompts=prompts, attention=True),
            partial(measure.order_and_spread, prompts=max(4, prompts // 5)),
            partial(measure.interference_and_share, other=other, queries=max(3, prompts // 10)),
            partial(measure.length_and_loss, queries=max(4, prompts // 5)),
        )
        for step in steps:
            with log.status(f"{dataset.name}: measuring"):
                item = step(reading)
            log.print(f"{item.name}: {', '.join(f'{n} {v:.3f}' for n, v in item.figures.items())}", style="dim")
            yield item


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
