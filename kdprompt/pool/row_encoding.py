"""Inputs and outputs of a pool's rows as numbers: unit-norm inputs, and what stands for an output."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from kdprompt.pool.vectors import halve_rows, normalise_rows
from kdprompt.theory.point_pairs import widen

__all__ = ["EmbedOutputs", "OutputMode", "encode_inputs", "encode_values", "summarise_values"]

OutputMode = Literal["labels", "text", "none"]
EmbedOutputs = Callable[[Sequence[str]], Tensor]
CHUNK = 1024  # rows that are held in another dtype at a time: few enough for a processor's cache
GATHERED = 16_384  # rows that are gathered at a time: enough for several threads


def encode_inputs(vectors: Tensor, places: Tensor, *, half: bool) -> tuple[Tensor, bool]:
    """Unit-norm inputs ``[n, d]`` of the places ``[n]`` of ``vectors: [N, d]``, in single precision or better.

    Or in half precision. And whether they are the vectors as they came, or as they are held in half precision.
    """
    dtype = torch.float16 if half else torch.promote_types(vectors.dtype, torch.float32)
    x = torch.empty(len(places), vectors.shape[-1], dtype=dtype, device=vectors.device)
    are_given = True
    for start in range(0, len(places), GATHERED):
        part = vectors.index_select(0, places[start : start + GATHERED])
        unit = halve_rows(part) if half else normalise_rows(widen(part))
        x[start : start + GATHERED] = unit
        are_given = are_given and (half or unit is part)
    return x, are_given


def encode_values(
    mode: OutputMode,
    outputs: Sequence[str | None],
    label: tuple[Tensor, int],
    task: tuple[Tensor, int],
    like: Tensor,
    embed_outputs: EmbedOutputs,
) -> Tensor:
    """The values ``[n, c]`` of rows.

    Args:
        mode: What values are.
        outputs: The outputs of the rows, where they are text.
        label: Their label codes ``[n]``, and how many labels there are.
        task: Likewise of tasks.
        like: Gives dtype and device.
        embed_outputs: As ``build_pool_tensors`` takes it.
    """
    if mode == "labels":
        return _one_hot(*label, like.dtype)
    if mode == "text" and outputs:
        texts = [output or "" for output in outputs]
        return _text_values(embed_outputs(texts).to(like), texts, _one_hot(*task, like.dtype))
    return like.new_ones(len(task[0]), 1)


def summarise_values(v: Tensor, task: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    """‖v‖² of rows ``[n]``, and Σ v of each task and, last, of all ``[tasks + 1, c]``; float64 on the CPU."""
    sums = torch.zeros(tasks + 1, v.shape[-1], dtype=torch.float64)
    norms = torch.empty(len(v), dtype=torch.float64)
    for start in range(0, len(v), CHUNK):
        exact, codes = v[start : start + CHUNK].cpu().double(), task[start : start + CHUNK].cpu()
        norms[start : start + CHUNK] = exact.square().sum(-1)
        sums[-1] += exact.sum(0)
        if tasks:
            sums.index_add_(0, codes[codes >= 0], exact[codes >= 0])
    return norms, sums


def _one_hot(codes: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    return (codes[:, None] == torch.arange(width, device=codes.device)).to(dtype)


def _text_values(embedded: Tensor, given: Sequence[str], tasks: Tensor) -> Tensor:
    present = torch.tensor([bool(text) for text in given], device=embedded.device)
    outputs = normalise_rows(embedded) * present[:, None]
    if tasks.shape[-1] < 2:
        return outputs
    return torch.cat([outputs, tasks], dim=-1) / 2**0.5
