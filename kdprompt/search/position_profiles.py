"""Position profiles: how much of the attention each place of a prompt gets (R7)."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from kdprompt.tagged_union import TaggedUnion

__all__ = ["MeasuredProfile", "PositionProfile", "PrimacyRecency", "Recency", "Uniform"]


class PositionProfile(TaggedUnion, ABC):
    """Position weights ω: how much of the attention each place of the prompt gets."""

    @abstractmethod
    def raw(self, k: int) -> list[float]:
        """Unnormalised weights of k places in reading order, ≥ 0."""

    def weights(self, k: int) -> list[float]:
        """ω of k places in reading order, summing to 1."""
        raw = self.raw(k)
        total = sum(raw)
        return [value / total for value in raw]


@dataclass(frozen=True)
class Uniform(PositionProfile):
    """ω_i = 1/k: order does not matter."""

    kind: Literal["uniform"] = "uniform"

    def raw(self, k: int) -> list[float]:
        return [1.0] * k


@dataclass(frozen=True)
class Recency(PositionProfile):
    """ω_i ∝ decay^(k − i): later places weigh more. ``decay`` in (0, 1]."""

    decay: float = 0.8
    kind: Literal["recency"] = "recency"

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be in (0, 1], got {self.decay}")

    def raw(self, k: int) -> list[float]:
        return [self.decay ** (k - 1 - i) for i in range(k)]


@dataclass(frozen=True)
class PrimacyRecency(PositionProfile):
    """ω_i ∝ primacy·decay^(i − 1) + decay^(k − i): both ends weigh more, the middle is lost."""

    primacy: float = 0.5
    decay: float = 0.7
    kind: Literal["primacy_recency"] = "primacy_recency"

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be in (0, 1], got {self.decay}")
        if not 0 <= self.primacy < math.inf:
            raise ValueError(f"primacy must be at least 0 and finite, got {self.primacy}")

    def raw(self, k: int) -> list[float]:
        return [self.primacy * self.decay**i + self.decay ** (k - 1 - i) for i in range(k)]


@dataclass(frozen=True)
class MeasuredProfile(PositionProfile):
    """Weights that were measured, last place last; shorter prompts take the last k of them.

    Prompts longer than the profile repeat its first weight in front.
    """

    measured: tuple[float, ...]
    kind: Literal["custom"] = "custom"

    def __post_init__(self) -> None:
        object.__setattr__(self, "measured", tuple(self.measured))  # a list may be given
        if not all(0 <= value < math.inf for value in self.measured) or not self.measured or not self.measured[-1] > 0:
            raise ValueError(f"measured must be finite weights of at least 0, the last above 0, got {self.measured}")

    def raw(self, k: int) -> list[float]:
        front = [self.measured[0]] * (k - len(self.measured))
        return [*front, *self.measured[max(len(self.measured) - k, 0) :]]
