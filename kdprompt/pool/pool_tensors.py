"""A pool as tensors: what the mathematics sees of it.

Texts end here. Rows are the *distinct* demonstrations in the order of their ids, so that neither the order of
the pool nor duplicates in it can change anything further on, and a tie goes to the lowest row.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from kdprompt.pool.pool import Pool
from kdprompt.pool.records import normalise_text

__all__ = ["OutputMode", "PoolTensors", "build_pool_tensors"]

OutputMode = Literal["labels", "text", "none"]
MAX_LABELS = 512
T = TypeVar("T")


@dataclass(frozen=True)
class PoolTensors:
    """The distinct demonstrations of a pool, ``n`` rows.

    Attributes:
        x: Unit-norm input embeddings ``[n, d]``, float32 or float64.
        v: Values ``[n, c]``: one-hot of (task, output), or embedded outputs, or the constant 1.
        label: Code of (task, output) ``[n]``, −1 where there is no output.
        task: Code of the task tag ``[n]``, −1 where there is none.
        text: Code of the normalised input text ``[n]``.
        members: Position in the pool of each row.
        tasks: Names of the task codes.
        labels: (task, output) of the label codes.
        texts: Normalised input text to its code.
        mode: What the values are.
        radius: max‖v‖ (R3's B ≤ max‖v‖·κ_max^½).
        priors: Mean value of each task and, last, of the whole pool ``[tasks + 1, c]``, float64 on the CPU.
    """

    x: Tensor
    v: Tensor
    label: Tensor
    task: Tensor
    text: Tensor
    members: tuple[int, ...]
    tasks: tuple[str, ...]
    labels: tuple[tuple[str | None, str], ...]
    texts: dict[str, int]
    mode: OutputMode
    radius: float
    priors: Tensor

    def prior(self, task: Tensor, like: Tensor) -> Tensor:
        """v̄ for task codes ``[b]`` (−1: of the whole pool), ``[b, c]``; dtype and device of ``like``."""
        return self.priors[task.cpu()].to(like.device, like.dtype)

    def __len__(self) -> int:
        return len(self.members)


def build_pool_tensors(
    pool: Pool,
    vectors: Tensor,
    embed_outputs: Callable[[Sequence[str]], Tensor],
    outputs: Literal["auto", "labels", "text", "none"] = "auto",
) -> PoolTensors:
    """Turns a pool and the embeddings of its inputs into features.

    Args:
        pool: ``N`` demonstrations.
        vectors: Embeddings of their inputs ``[N, d]``.
        embed_outputs: Embeds output texts to ``[·, d′]``; called only for free-text outputs.
        outputs: How outputs are seen. ``auto``: labels where at most 512 distinct ones repeat (twice or more on
            average), text otherwise, none where no example has one.

    Returns:
        One row a distinct (input, output, task), in the order of ids.
    """
    members = _distinct(pool)
    rows = [pool[i] for i in members]
    texts = _codes(normalise_text(row.input) for row in rows)
    tasks = _codes(sorted({row.task for row in rows if row.task is not None}))
    labels = _codes(sorted({(row.task, row.output) for row in rows if row.output is not None}, key=_by_text))
    mode = _mode(len(labels), sum(row.output is not None for row in rows), outputs)
    device = vectors.device
    dtype = torch.promote_types(vectors.dtype, torch.float32)

    def column(codes: Iterable[int]) -> Tensor:
        return torch.tensor(list(codes), dtype=torch.long, device=device)

    label = column(-1 if row.output is None else labels[row.task, row.output] for row in rows)
    task = column(-1 if row.task is None else tasks[row.task] for row in rows)
    x = torch.nn.functional.normalize(vectors[column(members)].to(dtype), dim=-1, eps=1e-30)
    if mode == "labels":
        v = _one_hot(label, len(labels), dtype)
    elif mode == "text":
        given = [row.output or "" for row in rows]
        v = _text_values(embed_outputs(given).to(device=device, dtype=dtype), given, _one_hot(task, len(tasks), dtype))
    else:
        v = x.new_ones(len(rows), 1)
    codes = column(texts[normalise_text(row.input)] for row in rows)
    exact = v.cpu().double()
    inside = [task.cpu() == code for code in range(len(tasks))]
    return PoolTensors(
        x=x,
        v=v,
        label=label,
        task=task,
        text=codes,
        members=tuple(members),
        tasks=tuple(tasks),
        labels=tuple(labels),
        texts=texts,
        mode=mode,
        radius=float(exact.square().sum(-1).amax().sqrt()),
        priors=torch.stack([*(exact[rows].mean(0) for rows in inside), exact.mean(0)]),
    )


def _distinct(pool: Pool) -> list[int]:
    order = sorted(range(len(pool)), key=lambda i: pool[i].id)
    first: dict[tuple[str, str | None, str | None], int] = {}
    for i in order:
        first.setdefault((pool[i].input, pool[i].output, pool[i].task), i)
    return list(first.values())


def _codes(values: Iterable[T]) -> dict[T, int]:
    return {value: code for code, value in enumerate(dict.fromkeys(values))}


def _by_text(label: tuple[str | None, str]) -> tuple[str, str]:
    return label[0] or "", label[1]


def _mode(distinct: int, given: int, asked: Literal["auto", "labels", "text", "none"]) -> OutputMode:
    if given == 0:
        return "none"
    if asked != "auto":
        return asked
    return "labels" if distinct <= MAX_LABELS and given >= 2 * distinct else "text"


def _one_hot(codes: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    return (codes[:, None] == torch.arange(width, device=codes.device)).to(dtype)


def _text_values(embedded: Tensor, given: Sequence[str], tasks: Tensor) -> Tensor:
    present = torch.tensor([bool(text) for text in given], device=embedded.device)
    outputs = torch.nn.functional.normalize(embedded, dim=-1) * present[:, None]
    if tasks.shape[-1] < 2:
        return outputs
    return torch.cat([outputs, tasks], dim=-1) / 2**0.5
