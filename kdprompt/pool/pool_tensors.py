"""A pool as tensors: what the mathematics sees of it.

Texts end here. Rows are the *distinct* demonstrations in the order of their ids, so that neither the order of
the pool nor duplicates in it can change anything further on, and a tie goes to the lowest row.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from kdprompt.pool.lexicon import Lexicon
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import normalise_text
from kdprompt.pool.vectors import normalise_rows
from kdprompt.theory.regression import RidgeFit, RidgeSums

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
        pool_index: Position in the pool of each row.
        tasks: Names of the task codes.
        labels: (task, output) of the label codes.
        text_codes: Code of each normalised input text.
        output_mode: What the values are.
        value_radius: max‖v‖ (R3's B ≤ max‖v‖·κ_max^½).
        priors: Mean value of each task and, last, of the whole pool ``[tasks + 1, c]``, float64 on the CPU.
        lexicon: The words that have a share in ``x``; None: there are none.
    """

    x: Tensor
    v: Tensor
    label: Tensor
    task: Tensor
    text: Tensor
    pool_index: tuple[int, ...]
    tasks: tuple[str, ...]
    labels: tuple[tuple[str | None, str], ...]
    text_codes: dict[str, int]
    output_mode: OutputMode
    value_radius: float
    priors: Tensor
    lexicon: Lexicon | None = None
    _ridges: dict[float, RidgeFit] = field(default_factory=dict, init=False, repr=False, compare=False)

    def ridge(self, penalty: float) -> RidgeFit:
        """The ridge regression of the labels on the inputs, of all rows that have one; fitted once, kept."""
        if penalty not in self._ridges:
            self._ridges[penalty] = self.ridge_sums.fit(penalty)
        return self._ridges[penalty]

    @cached_property
    def ridge_sums(self) -> RidgeSums:
        """What all these regressions share: sums over the rows that have a label, float64 on the CPU."""
        x, v = self.x.cpu(), self.v.cpu()
        labelled = (self.label >= 0).cpu()
        return RidgeSums.of(x, v) if bool(labelled.all()) else RidgeSums.of(x[labelled], v[labelled])

    def prior(self, task: Tensor, like: Tensor) -> Tensor:
        """v̄ for task codes ``[b]`` (−1: of the whole pool), ``[b, c]``; dtype and device of ``like``."""
        return self.priors[task.cpu()].to(like.device, like.dtype)

    def __len__(self) -> int:
        return len(self.pool_index)


def build_pool_tensors(
    pool: Pool,
    vectors: Tensor,
    embed_outputs: Callable[[Sequence[str]], Tensor],
    outputs: Literal["auto", "labels", "text", "none"] = "auto",
    lexical_share: float = 0.0,
) -> PoolTensors:
    """Turns a pool and the embeddings of its inputs into tensors.

    Args:
        pool: ``N`` demonstrations.
        vectors: Embeddings of their inputs ``[N, d]``.
        embed_outputs: Embeds output texts to ``[·, d′]``; called only for free-text outputs.
        outputs: How outputs are seen. ``auto``: labels where at most 512 distinct ones repeat (twice or more on
            average), text otherwise, none where no example has one.
        lexical_share: Share of words in the inputs' vectors, in [0, 1].

    Returns:
        One row a distinct (input, output, task), in the order of ids.
    """
    pool_index = _find_distinct(pool)
    records = [pool[i] for i in pool_index]
    text_codes = _number(normalise_text(record.input) for record in records)
    task_codes = _number(sorted({record.task for record in records if record.task is not None}))
    label_codes = _number(sorted({(r.task, r.output) for r in records if r.output is not None}, key=_sort_key))
    mode = _choose_mode(len(label_codes), sum(record.output is not None for record in records), outputs)
    as_column = partial(_to_column, device=vectors.device)
    label = as_column(-1 if record.output is None else label_codes[record.task, record.output] for record in records)
    task = as_column(-1 if record.task is None else task_codes[record.task] for record in records)
    x, lexicon = _input_vectors(vectors[as_column(pool_index)], [record.input for record in records], lexical_share)
    v = x.new_ones(len(records), 1)
    if mode == "labels":
        v = _one_hot(label, len(label_codes), x.dtype)
    elif mode == "text":
        texts = [record.output or "" for record in records]
        v = _text_values(embed_outputs(texts).to(x), texts, _one_hot(task, len(task_codes), x.dtype))
    return PoolTensors(
        x=x,
        v=v,
        label=label,
        task=task,
        text=as_column(text_codes[normalise_text(record.input)] for record in records),
        pool_index=tuple(pool_index),
        tasks=tuple(task_codes),
        labels=tuple(label_codes),
        text_codes=text_codes,
        output_mode=mode,
        value_radius=float(v.cpu().double().square().sum(-1).amax().sqrt()),
        priors=_mean_values(v, task, len(task_codes)),
        lexicon=lexicon,
    )


def _to_column(codes: Iterable[int], device: torch.device) -> Tensor:
    return torch.tensor(list(codes), dtype=torch.long, device=device)


def _input_vectors(dense: Tensor, texts: Sequence[str], lexical_share: float) -> tuple[Tensor, Lexicon | None]:
    """Unit-norm vectors of inputs, and the words that have a share in them."""
    x = normalise_rows(dense.to(torch.promote_types(dense.dtype, torch.float32)))
    if lexical_share == 0:
        return x, None
    lexicon = Lexicon.build(texts, lexical_share)
    return lexicon.join(x, texts), lexicon


def _mean_values(v: Tensor, task: Tensor, tasks: int) -> Tensor:
    """Mean value of each task and, last, of all rows ``[tasks + 1, c]``, float64 on the CPU."""
    exact = v.cpu().double()
    by_task = [exact[task.cpu() == code].mean(0) for code in range(tasks)]
    return torch.stack([*by_task, exact.mean(0)])


def _find_distinct(pool: Pool) -> list[int]:
    order = sorted(range(len(pool)), key=lambda i: pool[i].id)
    first: dict[tuple[str, str | None, str | None], int] = {}
    for i in order:
        first.setdefault((pool[i].input, pool[i].output, pool[i].task), i)
    return list(first.values())


def _number(values: Iterable[T]) -> dict[T, int]:
    return {value: code for code, value in enumerate(dict.fromkeys(values))}


def _sort_key(label: tuple[str | None, str]) -> tuple[str, str]:
    return label[0] or "", label[1]


def _choose_mode(distinct: int, given: int, requested: Literal["auto", "labels", "text", "none"]) -> OutputMode:
    if given == 0:
        return "none"
    if requested != "auto":
        return requested
    return "labels" if distinct <= MAX_LABELS and given >= 2 * distinct else "text"


def _one_hot(codes: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    return (codes[:, None] == torch.arange(width, device=codes.device)).to(dtype)


def _text_values(embedded: Tensor, given: Sequence[str], tasks: Tensor) -> Tensor:
    present = torch.tensor([bool(text) for text in given], device=embedded.device)
    outputs = normalise_rows(embedded) * present[:, None]
    if tasks.shape[-1] < 2:
        return outputs
    return torch.cat([outputs, tasks], dim=-1) / 2**0.5
