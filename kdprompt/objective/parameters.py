"""The parameters of J: the only place that lists them."""

from dataclasses import dataclass

__all__ = ["ObjectiveWeights"]


@dataclass(frozen=True)
class ObjectiveWeights:
    """The weights of J's three terms, each ≥ 0."""

    bias: float = 1.0
    complexity: float = 0.0
    interference: float = 0.0
