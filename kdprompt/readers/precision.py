"""Precision of a local model's weights and arithmetic, by name or as PyTorch has it."""

from typing import Literal, get_args

import torch

__all__ = ["Precision", "parse_precision"]

Precision = Literal["float32", "bfloat16", "float16"]


def parse_precision(dtype: Precision | torch.dtype | None) -> Precision | None:
    """The name of a precision that may be given as PyTorch has it; None as it is.

    Raises:
        ValueError: No model can be loaded in it.

    Example:
        >>> parse_precision(torch.bfloat16)
        'bfloat16'
    """
    if dtype is None:
        return None
    given = str(dtype).removeprefix("torch.")
    name: Precision | None = next((name for name in get_args(Precision) if name == given), None)
    if name is None:
        raise ValueError(f"dtype must be one of {list(get_args(Precision))}, or None: the model's own, got {dtype!r}")
    return name
