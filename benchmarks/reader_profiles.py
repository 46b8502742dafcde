"""Is a reader's profile (R9) a property of the reader? Its constants on several pools, what each says of the others.

    kdprompt bench --data ../data/trec … --selector kdprompt-reader:max_answers=936 --model FOLDER --dtype bfloat16 \
        --output .benchmarks/trec
    python benchmarks/reader_profiles.py FOLDER --data ../data/trec --answers .benchmarks/trec …

Answers that the benchmark asked for are taken from its folder; where there are none, they are asked for. Prints a table
in Markdown: τ, γ and ρ with 95 % intervals, R² on a third of the examples that the fit did not see, and R² of the
constants of a row on all answers of the other pools. The row "the others" fits one τ, γ and ρ to all pools but that of
the column, as a profile that is shipped would be; "all" is that of every pool, and "a capable reader" is the default.
"""

import json
from pathlib import Path
from typing import Annotated, Literal
from unittest.mock import patch

import torch
import typer

from kdprompt import DistillationSelector, SentenceTransformerEmbedder, Settings
from kdprompt.evaluate import Dataset, Store
from kdprompt.evaluate.embedding_cache import EmbeddingCache
from kdprompt.objective.reader_profile import CAPABLE_READER, ReaderProfile
from kdprompt.readers import LabelReader, load_causal_lm
from kdprompt.tuning import query_prompts
from kdprompt.tuning.profile_measurement import CONSTANTS, fit_profile


def measure(dataset, reader, embed, answers):
    """The profile that ``kdprompt-reader`` measured on a pool."""
    measured = []

    def keep(*arguments):
        measured.append(fit_profile(*arguments))
        return measured[-1]

    traffic = dataset.traffic
    selector = DistillationSelector.from_examples(
        dataset.pool,
        embed,
        vectors=embed([example.input for example in dataset.pool]),
        queries=traffic,
        settings=Settings(k=8),
    )
    with Store(answers) as store, patch.object(query_prompts, "fit_profile", keep):
        selector.calibrate(store.cached_reader(reader), max_answers=936)
    return measured[0]


def fit_together(measurements, name):
    """One τ, γ and ρ for several pools, each with a leaning of its own: maximum likelihood, γ and τ not below 0."""
    answers = [measurement.seen for measurement in measurements]
    constants = torch.ones(3, dtype=torch.float64, requires_grad=True)
    leanings = [torch.zeros(seen.shown.shape[1], dtype=torch.float64, requires_grad=True) for seen in answers]
    optimiser = torch.optim.LBFGS([constants, *leanings], max_iter=500, line_search_fn="strong_wolfe")

    def evaluate():
        optimiser.zero_grad()
        follow, knowledge, recency = constants
        loss = torch.zeros((), dtype=torch.float64)
        for seen, leaning in zip(answers, leanings, strict=True):
            logits = (
                follow.clamp_min(0) * seen.shown + knowledge.clamp_min(0) * seen.own + recency * seen.last + leaning
            )
            target = seen.log_probs.double().softmax(-1)
            loss = loss - (target * logits.log_softmax(-1)).sum() + 0.25 * leaning.square().sum()
        loss.backward()
        return loss

    optimiser.step(evaluate)
    follow, knowledge, recency = (round(float(value), 2) for value in constants.detach())
    return ReaderProfile(name=name, follow=max(follow, 0), knowledge_weight=max(knowledge, 0), recency=recency)


def describe(measurement, name):
    """A constant with its interval."""
    low, high = measurement.intervals[name]
    return f"{getattr(measurement.profile, name):.2f} [{low:.2f}, {high:.2f}]"


def main(
    model: str,
    data: Annotated[list[Path], typer.Option(help="Prefix of a data set; several.")],
    answers: Annotated[list[Path], typer.Option(help="Folder of its benchmark, in the order of --data.")],
    vectors: Annotated[Path, typer.Option(help="Folder of embeddings.")],
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "bfloat16",
):
    """Prints the table."""
    reader = LabelReader(load_causal_lm(model, dtype=dtype, device="cpu"))
    embed = EmbeddingCache(SentenceTransformerEmbedder(device="cpu"), name="minilm", folder=vectors)
    found = {}
    for prefix, folder in zip(data, answers, strict=True):
        found[prefix.name] = measure(Dataset.from_prefix(prefix), reader, embed, folder)
    head = ["fitted on", *CONSTANTS.values(), "R²", *found]
    print("| " + " | ".join(head) + " |\n| --- |" + " ---: |" * (len(head) - 1))
    for name, row in found.items():
        across = ["" if other is row else f"{other.explained_by(row.profile):.2f}" for other in found.values()]
        cells = [name, *(describe(row, constant) for constant in CONSTANTS), f"{row.explained:.2f}", *across]
        print("| " + " | ".join(cells) + " |", flush=True)
    stated = [f"{row.explained_by(CAPABLE_READER):.2f}" for row in found.values()]
    constants = [f"{getattr(CAPABLE_READER, constant):.2f}" for constant in CONSTANTS]
    print("| " + " | ".join([CAPABLE_READER.name, *constants, "", *stated]) + " |")
    if len(found) < 2:
        return
    others = {name: fit_together([m for m in found.values() if m is not row], name) for name, row in found.items()}
    across = [f"{row.explained_by(others[name]):.2f}" for name, row in found.items()]
    print("| " + " | ".join(["the others", "", "", "", "", *across]) + " |")
    together = fit_together(list(found.values()), reader.name)
    across = [f"{row.explained_by(together):.2f}" for row in found.values()]
    constants = [f"{getattr(together, constant):.2f}" for constant in CONSTANTS]
    print("| " + " | ".join(["all", *constants, "", *across]) + " |")
    print(json.dumps(together.model_dump()))


if __name__ == "__main__":
    typer.run(main)
