"""What the rest of a pool says about the output of each input, the input itself left out; exact, without other fits.

Two regressions: ridge regression on the vectors, which learns directions from everywhere, and kernel regression, which
looks at the nearest. Examples with the same vector are left out together, since one would give away the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from kdprompt.diagnose.nearest_inputs import NearestInputs
from kdprompt.objective.regression import SMALLEST_SHARE

__all__ = ["LabelledInputs", "RidgeScores", "estimate_by_neighbours"]

PRIOR_MASS = 0.03  # of the pool's mean output, in median kernel masses


@dataclass(frozen=True)
class LabelledInputs:
    """``m`` distinct inputs and the ``n`` examples that have them.

    Attributes:
        x: Unit-norm embeddings of the inputs ``[m, d]``, float32.
        input: Which input each example has ``[n]``.
        label: Code of each example's output ``[n]``, in 0 … labels − 1.
        labels: Number of outputs.
    """

    x: Tensor
    input: Tensor
    label: Tensor
    labels: int

    def count(self) -> Tensor:
        """The examples of each input by output ``[m, labels]``."""
        counts = self.x.new_zeros(len(self.x), self.labels)
        return counts.index_put((self.input, self.label), self.x.new_ones(len(self.label)), accumulate=True)


@dataclass(frozen=True)
class RidgeScores:
    """Ridge regression of the outputs on the inputs, each input left out with all its examples.

    One eigenvalue decomposition serves all penalties. The intercept is not penalised.

    Attributes:
        turned: Centred inputs in the basis of the eigenvectors ``[m, d]``.
        squares: Their squares ``[m, d]``.
        spectrum: Eigenvalues ``[d]``, float64.
        products: The turned inputs' products with the centred outputs ``[d, c]``.
        counts: Weights of the inputs' examples by output ``[m, c]``.
        prior: The mean output ``[c]``.
    """

    turned: Tensor
    squares: Tensor
    spectrum: Tensor
    products: Tensor
    counts: Tensor
    prior: Tensor

    @classmethod
    def fit(cls, x: Tensor, counts: Tensor) -> "RidgeScores":
        """All but the penalty.

        Args:
            x: Distinct inputs ``[m, d]``.
            counts: Weights of their examples by output ``[m, c]``.
        """
        weight = counts.sum(-1)
        total = weight.sum()
        prior = counts.sum(0) / total
        centred = x - (weight @ x) / total
        spectrum, basis = torch.linalg.eigh(((centred.T * weight) @ centred).double())
        turned = centred @ basis.to(x)
        products = turned.T @ (counts - weight[:, None] * prior)
        return cls(turned, turned.square(), spectrum.clamp_min(0), products, counts, prior)

    def score(self, penalty: float) -> Tensor:
        """Scores ``[m, c]`` for a penalty α > 0; the mean output where nothing is left."""
        scale = (1 / (self.spectrum + penalty)).to(self.turned)
        fitted = self.turned @ (scale[:, None] * self.products) + self.prior
        weight = self.counts.sum(-1)
        leverage = self.squares @ scale + 1 / weight.sum()
        left_out = weight * leverage
        without = (fitted - leverage[:, None] * self.counts) / (1 - left_out).clamp_min(1e-6)[:, None]
        return torch.where(left_out[:, None] < 1, without, self.prior)


def estimate_by_neighbours(nearest: NearestInputs, counts: Tensor, temperatures: tuple[float, ...]) -> Iterator[Tensor]:
    """Kernel regression of the outputs on the nearest other inputs, with the mean output as prior.

    Args:
        nearest: The nearest other inputs of each.
        counts: Weights of the inputs' examples by output ``[m, c]``.
        temperatures: Values of the temperature t of the Gaussian kernel on unit-norm inputs, exp((cosine − 1)/t).

    Yields:
        Logarithms of the outputs' shares ``[m, c]`` for each temperature.
    """
    m, k = nearest.index.shape
    rows, filled = np.arange(0, m * k + 1, k), (nearest.index >= 0).cpu()
    index = nearest.index.clamp_min(0).flatten().cpu().numpy()
    values = csr_array(counts.cpu().numpy())
    prior = counts.sum(0) / counts.sum()
    for temperature in temperatures:
        weights = ((nearest.similarity - 1) / temperature).exp().cpu() * filled
        near = (csr_array((weights.flatten().numpy(), index, rows), shape=(m, m)) @ values).toarray()
        mass = torch.from_numpy(near).to(counts)
        extra = PRIOR_MASS * mass.sum(-1).median().clamp_min(torch.finfo(mass.dtype).tiny)
        yield ((mass + extra * prior) / (mass.sum(-1, keepdim=True) + extra)).clamp_min(SMALLEST_SHARE).log()
