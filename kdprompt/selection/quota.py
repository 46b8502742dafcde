"""Quotas: how often each output may and must occur in a prompt, as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.errors import PoolError
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.settings import Quota, Settings

__all__ = ["OutputLimits", "check_quota", "output_limits"]

UNLIMITED = 1 << 30


@dataclass(frozen=True)
class OutputLimits:
    """The outputs of a pool whatever their tasks, and how often each may occur.

    Attributes:
        names: The outputs.
        code: Place of each row's output among the names ``[n]``, −1 for none.
        most: Largest number of each output.
        least: Smallest number of each output.
    """

    names: list[str]
    code: Tensor
    most: list[int]
    least: list[int]


def output_limits(pool: PoolTensors, quota: Quota | None) -> OutputLimits:
    """The limits that a quota sets for the outputs of a pool; None sets none.

    Raises:
        PoolError: The quota names an output that the pool does not have.
    """
    names = sorted({output for _, output in pool.labels})
    code = {name: place for place, name in enumerate(names)}
    table = torch.tensor([code[output] for _, output in pool.labels] + [-1], device=pool.x.device)
    most, least = (quota.most, quota.least) if quota is not None else (None, None)
    return OutputLimits(
        names, table[pool.label], _by_output(most, names, UNLIMITED, "most"), _by_output(least, names, 0, "least")
    )


def check_quota(pool: PoolTensors, settings: Settings) -> None:
    """Says what contradicts itself or the pool in a quota.

    Raises:
        PoolError: An output is not in the pool, asks for more than it allows, or the minima exceed k together.
    """
    if settings.quota is None:
        return
    limits = output_limits(pool, settings.quota)
    for name, low, high in zip(limits.names, limits.least, limits.most, strict=True):
        if low > high:
            raise PoolError(f"quota.least must be at most quota.most, got {low} and {high} for the output {name!r}")
    if sum(limits.least) > settings.largest_k:
        raise PoolError(
            f"quota.least must ask for at most k = {settings.largest_k} demonstrations together, got "
            f"{sum(limits.least)}; raise k or lower the quota"
        )


def _by_output(value: int | Mapping[str, int] | None, names: list[str], default: int, field: str) -> list[int]:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - set(names))
        if unknown:
            raise PoolError(
                f"quota.{field} names the output {unknown[0]!r}, which the pool does not have; it has {names[:20]}"
            )
        return [value.get(name, default) for name in names]
    return [default if value is None else value] * len(names)
