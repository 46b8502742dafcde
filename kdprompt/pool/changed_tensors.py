"""A pool's tensors after a change: what came and what left is computed, all else is kept.

The result is that of building the tensors anew, but for the order of the rows: newcomers stand behind the others and
who leaves leaves a gap, so ``rank`` says what the order of the ids would be, and ``alive`` where somebody stands.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Self

import torch
from torch import Tensor

from kdprompt.pool.distinct_rows import DistinctRows, RowChange
from kdprompt.pool.growing_rows import GrowingRows
from kdprompt.pool.pool_tensors import (
    Label,
    OutputChoice,
    PoolTensors,
    RowMemory,
    choose_mode,
    count_tasks,
    label_of,
    order_of_label,
)
from kdprompt.pool.records import normalise_text
from kdprompt.pool.row_encoding import EmbedOutputs, encode_inputs, encode_values, summarise_values
from kdprompt.theory.regression import RidgeSums

__all__ = ["change_tensors"]

MOST_GAPS = 64  # and a quarter of the rows: with more, the tensors are built anew


def change_tensors(
    before: PoolTensors,
    rows: DistinctRows,
    change: RowChange,
    vectors: Tensor,
    embed_outputs: EmbedOutputs,
    outputs: OutputChoice,
) -> PoolTensors | None:
    """The tensors after a change.

    Args:
        before: The tensors before it.
        rows: Which demonstration stands at which row after it.
        change: What it does to the rows.
        vectors: Embeddings of the inputs that join ``[m, d]``.
        embed_outputs: As ``build_pool_tensors`` takes it.
        outputs: Likewise.

    Returns:
        The tensors; None where all of them must be built anew: where words have a share in the inputs, tasks or the
        columns of the values come or go, outputs turn from labels to text or back, or there are many gaps.
    """
    if before.memory is None or before.lexicon is not None or rows.gaps > MOST_GAPS + len(rows.ids) // 4:
        return None
    codes = _Codes.of(before, rows, change)
    if codes is None or choose_mode(len(codes.labels), codes.given, outputs) != before.output_mode:
        return None
    if before.output_mode == "labels" and codes.labels != before.labels:
        return None
    places = torch.arange(len(vectors), device=vectors.device)
    joined, _ = encode_inputs(vectors, places, half=before.is_half)
    x = before.memory.x.append(joined)
    v = _encode_joined(before, codes, change, embed_outputs)
    memory = _remember(before, before.memory, codes, x, v)
    gaps = None if before.alive is None and not rows.gaps else _mark_living(before, codes)
    tensors = PoolTensors(
        x=x.rows,
        v=memory.v.rows,
        label=codes.label,
        task=codes.task,
        text=codes.text,
        rows=rows,
        tasks=before.tasks,
        labels=codes.labels,
        text_codes=codes.text_codes,
        output_mode=before.output_mode,
        value_radius=float(memory.squared_norms.amax().sqrt()),
        priors=memory.sums / codes.task_counts[:, None],
        rank=_rank(before, change, len(rows.ids)),
        alive=gaps,
        memory=memory,
        index=before.index,
    )
    return _follow_sums(before, tensors, codes.left) if "ridge_sums" in vars(before) else tensors


@dataclass(frozen=True)
class _Codes:
    """The codes of all rows after a change.

    Attributes:
        label, task, text: As in ``PoolTensors``.
        labels, text_codes: Likewise.
        left: Rows that are gaps now.
        task_counts: Rows of each task and, last, all of them ``[tasks + 1]``.
    """

    label: Tensor
    task: Tensor
    text: Tensor
    labels: tuple[Label, ...]
    text_codes: dict[str, int]
    left: Tensor
    task_counts: Tensor

    @property
    def given(self) -> int:
        """Rows with an output."""
        return int((self.label >= 0).sum())

    @classmethod
    def of(cls, before: PoolTensors, rows: DistinctRows, change: RowChange) -> Self | None:
        """The codes; None where tasks come or go."""
        task_codes: dict[str | None, int] = {None: -1, **{name: code for code, name in enumerate(before.tasks)}}
        if any(shown.task not in task_codes for shown in change.joined):
            return None
        left = torch.tensor(change.left, dtype=torch.long, device=before.x.device)
        task = _extend(before.task, left, [task_codes[shown.task] for shown in change.joined])
        counts = count_tasks(task, len(before.tasks), len(rows.ordered))
        if not bool(counts.all()):
            return None
        given = [label_of(shown) for shown in change.joined]
        old = before.label.index_fill(0, left, -1)
        labels, table = _relabel(before.labels, old, given)
        label = _extend(table[old], left, [-1 if of is None else _find(labels, of) for of in given])
        text_codes = before.text_codes.copy()
        texts = [text_codes.setdefault(normalise_text(shown.input), len(text_codes)) for shown in change.joined]
        return cls(label, task, _extend(before.text, left, texts), labels, text_codes, left, counts)


def _relabel(
    labels: tuple[Label, ...], code: Tensor, joined: Sequence[Label | None]
) -> tuple[tuple[Label, ...], Tensor]:
    """The labels, sorted, after some have come and those without a row have gone; new codes of old ones, last of −1."""
    is_used = torch.bincount(code[code >= 0], minlength=len(labels)) > 0
    kept = labels if bool(is_used.all()) else tuple(compress(labels, is_used.tolist()))
    fresh = sorted({label for label in joined if label is not None and _find(kept, label) < 0}, key=order_of_label)
    place = is_used.cumsum(0) - 1
    if fresh:
        before_which = [bisect_left(kept, order_of_label(label), key=order_of_label) for label in fresh]
        place = place + torch.searchsorted(place.new_tensor(before_which), place, right=True)
        kept = tuple(sorted([*kept, *fresh], key=order_of_label))
    return kept, torch.cat([torch.where(is_used, place, -1), place.new_tensor([-1])])


def _find(labels: Sequence[Label], label: Label) -> int:
    """The code of a label, −1 where it is none of them."""
    place = bisect_left(labels, order_of_label(label), key=order_of_label)
    while place < len(labels) and order_of_label(labels[place]) == order_of_label(label):
        if labels[place] == label:
            return place
        place += 1
    return -1


def _extend(column: Tensor, left: Tensor, joined: Sequence[int]) -> Tensor:
    """A column of codes, −1 where somebody left, with those of the newcomers behind."""
    return torch.cat([column.index_fill(0, left, -1), column.new_tensor(joined)])


def _encode_joined(before: PoolTensors, codes: _Codes, change: RowChange, embed_outputs: EmbedOutputs) -> Tensor:
    """The values of the rows that join ``[m, c]``."""
    if not change.joined:
        return before.v[:0]
    begin, outputs = len(before.label), [shown.output for shown in change.joined]
    label, task = (codes.label[begin:], len(codes.labels)), (codes.task[begin:], len(before.tasks))
    return encode_values(before.output_mode, outputs, label, task, before.v, embed_outputs)


def _remember(before: PoolTensors, memory: RowMemory, codes: _Codes, x: GrowingRows, v: Tensor) -> RowMemory:
    """What the next change goes on from."""
    tasks, left = len(before.tasks), codes.left
    norms, came = summarise_values(v, codes.task[len(before.task) :], tasks)
    _, gone = summarise_values(before.v[left], before.task[left], tasks)
    norms = torch.cat([memory.squared_norms.index_fill(0, left.cpu(), 0), norms])
    return RowMemory(x, memory.v.append(v), norms, memory.sums + came - gone)


def _mark_living(before: PoolTensors, codes: _Codes) -> Tensor:
    """Where somebody stands, boolean ``[n]``."""
    alive = torch.ones_like(codes.label, dtype=torch.bool)
    if before.alive is not None:
        alive[: len(before.alive)] = before.alive
    return alive.index_fill(0, codes.left, False)


def _follow_sums(before: PoolTensors, after: PoolTensors, left: Tensor) -> PoolTensors:
    """The tensors with the sums of the ridge regression, which are known before, and what their fits go on from."""
    joined = torch.arange(len(before.label), len(after.label), device=after.x.device)
    came, gone = _take_labelled(after, joined), _take_labelled(before, left)
    sums = before.ridge_sums
    if len(came[0]):
        sums = sums + RidgeSums.of(*came)
    if len(gone[0]):
        sums = sums - RidgeSums.of(*gone)
    followed = replace(after, ridge_change=before.after_change(came[0], gone[0]))
    vars(followed)["ridge_sums"] = sums  # a cached property
    return followed


def _take_labelled(tensors: PoolTensors, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and values of some of the rows, those with an output; float64 on the CPU."""
    rows = rows[tensors.label[rows] >= 0]
    return tensors.x[rows].cpu().double(), tensors.v[rows].cpu().double()


def _rank(before: PoolTensors, change: RowChange, size: int) -> Tensor:
    """The place of each row in the order of ids after a change, ``[n]``; at gaps any."""
    device = before.x.device
    rank = torch.arange(len(before.label), device=device) if before.rank is None else before.rank
    lists = (change.leaving, change.arriving, change.arrived)
    leaving, arriving, arrived = (torch.tensor(numbers, dtype=torch.long, device=device) for numbers in lists)
    rank = rank - torch.searchsorted(leaving, rank)
    rank = rank + torch.searchsorted(arriving, rank, right=True)
    after = rank.new_zeros(size)
    after[: len(rank)] = rank
    after[arrived] = arriving + torch.arange(len(arriving), device=device)
    return after
