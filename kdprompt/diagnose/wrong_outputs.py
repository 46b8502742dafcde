"""Examples of a pool whose output is probably wrong: those that the other examples of their task contradict."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.diagnose.label_noise import estimate_label_noise
from kdprompt.diagnose.left_out_evidence import LabelledInputs
from kdprompt.diagnose.nearest_inputs import NearestInputs
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import normalise_text
from kdprompt.pool.vectors import normalise_rows

__all__ = ["EXAMPLES_PER_LABEL", "MAX_LABELS", "SuspectedOutput", "WrongOutputs", "find_wrong_outputs"]

MAX_LABELS = 512  # outputs of a task; with more, or with few examples each, outputs are texts and no labels
EXAMPLES_PER_LABEL = 4


@dataclass(frozen=True)
class SuspectedOutput:
    """An example whose output is probably wrong.

    Attributes:
        example: Its position in the pool.
        output: What it has.
        suggested: What the other examples say.
        probability: That the output is wrong, in [0, 1].
    """

    example: int
    output: str
    suggested: str
    probability: float


@dataclass(frozen=True)
class WrongOutputs:
    """The suspects of a pool.

    Attributes:
        suspects: The likeliest to be wrong first.
        noise: Estimated share of the judged outputs that are wrong at random, in [0, 1].
        judged: Number of examples that could be judged; 0 where outputs are no labels, or examples are too few.
    """

    suspects: tuple[SuspectedOutput, ...]
    noise: float
    judged: int


def find_wrong_outputs(pool: Pool, vectors: Tensor, *, nearest: NearestInputs | None = None) -> WrongOutputs:
    """Looks for wrong outputs in each task of a pool by itself.

    Only labels can be judged: at most 512 outputs in a task, with four examples each at the mean. The method is that
    of ``kdprompt.diagnose.label_noise``.

    Args:
        pool: The pool.
        vectors: Embeddings of its inputs ``[n, d]``.
        nearest: The nearest other inputs of each distinct input of the whole pool, where they are known; serves a pool
            of one task.

    Returns:
        The suspects of all tasks.

    Example:
        >>> import torch
        >>> pool = Pool.from_records({"input": f"text {i}", "output": "ab"[i % 2]} for i in range(200))
        >>> x = torch.tensor([[1.0, 0.1], [-1.0, 0.1]])[torch.arange(200) % 2]
        >>> x = x + 0.1 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> changed = [{"input": d.input, "output": "b" if i in (4, 8, 16) else d.output} for i, d in enumerate(pool)]
        >>> suspects = find_wrong_outputs(Pool.from_records(changed), x).suspects
        >>> sorted((suspect.example, suspect.suggested) for suspect in suspects)
        [(4, 'a'), (8, 'a'), (16, 'a')]
    """
    x = normalise_rows(vectors.float().cpu())
    rows_by_task: dict[str | None, list[int]] = defaultdict(list)
    for i, demonstration in enumerate(pool):
        if demonstration.output is not None:
            rows_by_task[demonstration.task].append(i)
    suspects: list[SuspectedOutput] = []
    noise = judged = 0.0
    for rows in rows_by_task.values():
        labels = sorted({str(pool[i].output) for i in rows})
        if not 2 <= len(labels) <= min(MAX_LABELS, len(rows) // EXAMPLES_PER_LABEL):
            continue
        inputs, pair = _label_inputs(pool, x, rows, labels)
        known = nearest is not None and len(nearest.index) == len(inputs.x)
        found = estimate_label_noise(inputs, nearest=nearest if known else None)
        suggested = dict(zip(found.rows.tolist(), found.suggested.tolist(), strict=True))
        for i, its in zip(rows, pair, strict=True):
            if its in suggested:
                output, probability = str(pool[i].output), float(found.probability[its])
                suspects.append(SuspectedOutput(i, output, labels[suggested[its]], probability))
        judged += int(found.judged.sum())
        noise += found.noise * int(found.judged.sum())
    suspects.sort(key=lambda suspect: (-suspect.probability, suspect.example))
    return WrongOutputs(tuple(suspects), noise / max(judged, 1), int(judged))


def _label_inputs(pool: Pool, x: Tensor, rows: list[int], labels: list[str]) -> tuple[LabelledInputs, list[int]]:
    """Some examples of the pool, those of one text and one output as one, and which of these each of them is."""
    code = {label: j for j, label in enumerate(labels)}
    inputs: dict[str, int] = {}
    pairs: dict[tuple[int, int], int] = {}
    first: list[int] = []
    pair = []
    for i in rows:
        text = normalise_text(pool[i].input)
        if text not in inputs:
            inputs[text] = len(first)
            first.append(i)
        pair.append(pairs.setdefault((inputs[text], code[str(pool[i].output)]), len(pairs)))
    group, label = torch.tensor(list(pairs)).T
    return LabelledInputs(x.index_select(0, torch.tensor(first)), group, label, len(labels)), pair
