"""Wrong outputs planted in real pools: how well doctor and cleanlab find them again.

    python benchmarks/doctor.py ../data/trec ../data/banking77 --cache /tmp/vectors --markdown benchmarks/doctor.md

In each round 10 % of the outputs of a pool (PREFIX.pool.jsonl) are replaced by another one at random. Both detectors
see the same vectors: doctor's is ``estimate_label_noise``, cleanlab's is ``find_label_issues`` on probabilities of a
logistic regression, cross-validated over five folds. F1 is that of the examples found; the interval is Student's, of
the mean of the paired differences over the rounds.
"""

import time
import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from scipy.stats import t as student

from kdprompt import Pool, SentenceTransformerEmbedder
from kdprompt.atomic_write import atomic_write
from kdprompt.diagnose.label_noise import estimate_label_noise
from kdprompt.diagnose.left_out_evidence import LabelledInputs
from kdprompt.evaluate.embedding_cache import EmbeddingCache

CLEANLAB_FILTERS = ("prune_by_noise_rate", "low_normalized_margin")  # its default, and its best one of the others


def flip(labels, count, share, seed):
    """The labels with a share of them replaced by another one each, and which those are."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    flipped = labels.clone()
    flipped[rows] = (labels[rows] + 1 + torch.randint(count - 1, (len(rows),), generator=generator)) % count
    return flipped, flipped != labels


def score(found, wrong):
    """Precision, recall and F1 of boolean ``found``."""
    hits = int((found & wrong).sum())
    return hits / max(1, int(found.sum())), hits / int(wrong.sum()), 2 * hits / int(found.sum() + wrong.sum())


def find_by_doctor(x, labels, count):
    """What ``kdprompt doctor`` suspects, boolean ``[n]``."""
    found = torch.zeros(len(x), dtype=torch.bool)
    found[estimate_label_noise(LabelledInputs(x, torch.arange(len(x)), labels, count)).rows] = True
    return found


def find_by_cleanlab(x, labels):
    """What cleanlab suspects by each of its filters, boolean ``[n]``."""
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=300)
    probabilities = cross_val_predict(model, x.numpy(), labels.numpy(), cv=folds, method="predict_proba")
    return [
        torch.from_numpy(find_label_issues(labels.numpy(), probabilities, filter_by=name)) for name in CLEANLAB_FILTERS
    ]


def mean_with_interval(values):
    """The mean in per cent with a 95 % interval."""
    values = 100 * torch.tensor(values, dtype=torch.float64)
    half = float(student.ppf(0.975, len(values) - 1) * values.std() / len(values) ** 0.5)
    return f"{float(values.mean()):.1f} ± {half:.1f}"


def compare(x, labels, flips, console):
    """Precision, recall and F1 of each detector by flip, and the CPU seconds of doctor and of cleanlab."""
    count, scores, seconds = int(labels.max()) + 1, [], [0.0, 0.0]
    for flipped, wrong in flips:
        start = time.process_time()
        found = [find_by_doctor(x, flipped, count)]
        middle = time.process_time()
        found += find_by_cleanlab(x, flipped)
        seconds[0] += middle - start
        seconds[1] += time.process_time() - middle
        scores.append([score(each, wrong) for each in found])
        console.print(*(f"{each[2]:.3f}" for each in scores[-1]))
    console.print(int(find_by_doctor(x, labels, count).sum()), "suspected in the pool as it is")
    return scores, [each / len(scores) for each in seconds]


def rows_of(name, scores, seconds):
    """Rows of the table, one for each detector."""
    for i, detector in enumerate(("doctor", *(f"cleanlab, {filtered}" for filtered in CLEANLAB_FILTERS))):
        precision, recall, f1 = ([by_flip[i][j] for by_flip in scores] for j in range(3))
        ahead = "" if i == 0 else mean_with_interval([by_flip[0][2] - by_flip[i][2] for by_flip in scores])
        cells = [name, detector, *map(mean_with_interval, (precision, recall, f1)), ahead]
        yield "| " + " | ".join([*cells, f"{seconds[min(i, 1)]:.1f}"]) + " |"


def main(
    prefixes: list[Path],
    rounds: Annotated[int, typer.Option(help="Random flips of each pool.", min=2)] = 10,
    share: Annotated[float, typer.Option(help="Share of outputs that are replaced.")] = 0.1,
    cache: Annotated[Path | None, typer.Option(help="Folder of embeddings.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Where the table is written.")] = None,
):
    """Compares doctor's suspects with cleanlab's on pools with planted wrong outputs."""
    warnings.filterwarnings("ignore", module="sklearn")
    console = Console(highlight=False)
    embed = EmbeddingCache(SentenceTransformerEmbedder(device="cpu"), name="minilm", folder=cache)
    lines = [
        f"{share:.0%} of the outputs replaced at random, {rounds} times; per cent, 95 % interval; CPU seconds a pool",
        "without embedding.",
        "",
        "| pool | detector | precision | recall | F1 | doctor's F1 less this | s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for prefix in prefixes:
        pool = Pool.from_jsonl(prefix.with_name(f"{prefix.name}.pool.jsonl"))
        x = torch.nn.functional.normalize(embed([d.input for d in pool]), dim=-1)
        outputs = sorted({str(d.output) for d in pool})
        labels = torch.tensor([outputs.index(str(d.output)) for d in pool])
        flips = (flip(labels, len(outputs), share, seed) for seed in range(rounds))
        console.print(prefix.name)
        lines += rows_of(prefix.name, *compare(x, labels, flips, console))
    console.print("\n".join(lines))
    if markdown is not None:
        atomic_write(markdown, "\n".join([*lines, ""]))


if __name__ == "__main__":
    typer.run(main)
