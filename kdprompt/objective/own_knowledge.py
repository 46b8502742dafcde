"""What a reader knows of a query itself, without the pool's help (ℓ₀ of R9), estimated without asking it.

The reader answered some examples of the pool behind a neutral prompt. Kernel regression of these answers gives what it
would answer to a query near them, and their mean to one that is far from all.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from kdprompt.theory.kernels import Gaussian
from kdprompt.theory.point_pairs import PointPairs
from kdprompt.theory.regression import shrink_to_prior

__all__ = ["OwnEstimate", "OwnKnowledge"]

SAME = 2e-5  # squared distance below which a point is the example itself; a norm that is rounded hardly enters it


@dataclass(frozen=True)
class OwnKnowledge:
    """A reader's answers to examples of the pool, as they are kept.

    Attributes:
        ids: The examples.
        inputs: Content ids of their inputs, so that an answer does not speak for what stands in an example's place.
        outputs: What it chose among.
        log_probs: Their log-probabilities, of each example, in nats.
        temperature: t of the Gaussian kernel of the regression, > 0.
        shrinkage: Kernel mass ≥ 0 that the mean of the answers counts for.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    ids: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    log_probs: tuple[tuple[float, ...], ...]
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    shrinkage: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.inputs) == len(self.log_probs):
            raise ValueError(f"an answer an example is needed, got {len(self.log_probs)} of {len(self.ids)}")
        if any(len(row) != len(self.outputs) for row in self.log_probs):
            raise ValueError(f"each answer must have {len(self.outputs)} log-probabilities, one an output")


@dataclass(frozen=True)
class OwnEstimate:
    """The same as tensors: log-probabilities at any point, up to a constant in the output.

    Attributes:
        x: Unit-norm inputs of the examples ``[n, d]``.
        values: Their answers, mean 0 over the outputs that the reader chose among ``[n, c]``.
        temperature: t of the kernel.
        shrinkage: Kernel mass of the mean.
    """

    x: Tensor
    values: Tensor
    temperature: float
    shrinkage: float

    def __call__(self, q: Tensor) -> Tensor:
        """ℓ₀ at unit-norm points ``[..., m, d]`` in nats ``[..., m, c]``; an example does not speak for itself."""
        x, values = self.x.to(q), self.values.to(q)
        pairs = PointPairs(q, x)
        weights = Gaussian(self.temperature).of_pairs(pairs) * (pairs.squared_distances() >= SAME)
        mass = weights.sum(-1, keepdim=True)
        estimate = shrink_to_prior(weights @ values, mass, values.mean(0), self.shrinkage)
        return torch.where(mass + self.shrinkage > 0, estimate, values.mean(0))
