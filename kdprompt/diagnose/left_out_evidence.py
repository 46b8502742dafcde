"""What the rest of a pool says about the output of each input, the input itself left out; exact, without other fits.

Two regressions: ridge regression on the vectors, which learns directions from everywhere, and kernel regression, which
looks at the nearest. Examples with the same vector are left out together, since one would give away the other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from kdprompt.diagnose.nearest_inputs import NearestInputs
from kdprompt.objective.regression import SMALLEST_SHARE

__all__ = ["LabelledInputs", "NeighbourShares", "RidgeScores"]

PRIOR_MASS = 0.03  # of the pool's mean output, in median kernel masses
BLOCK = 128  # columns of a matrix of squares that are summed at a time, from the diagonal on
CHUNK = 1024  # inputs whose squares are held at a time: few enough for a processor's cache


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
        spectrum: Eigenvalues ``[d]``, float64.
        products: The turned inputs' products with the centred outputs ``[d, c]``.
        counts: Weights of the inputs' examples by output ``[m, c]``.
        prior: The mean output ``[c]``.
    """

    turned: Tensor
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
        weighted, squares = centred.T * weight, x.new_zeros(x.shape[1], x.shape[1])
        for row in range(0, len(squares), BLOCK):  # the lower half, which is what is decomposed
            squares[row:, row : row + BLOCK] = weighted[row:] @ centred[:, row : row + BLOCK]
        spectrum, basis = torch.linalg.eigh(squares.double())
        turned = centred @ basis.to(x)
        products = ((counts - weight[:, None] * prior).T @ turned).T  # few rows of many columns are faster
        return cls(turned, spectrum.clamp_min(0), products, counts, prior)

    def score(self, penalty: float, rows: Tensor | None = None) -> Tensor:
        """Scores ``[m, c]`` for a penalty α > 0; the mean output where nothing is left.

        Args:
            penalty: α.
            rows: Inputs ``[r]``, for whose scores ``[r, c]`` alone is asked; None: all.
        """
        turned, counts = (part if rows is None else part.index_select(0, rows) for part in (self.turned, self.counts))
        scale = (1 / (self.spectrum + penalty)).to(turned)
        fitted = turned @ (scale[:, None] * self.products) + self.prior
        weight = counts.sum(-1)
        squares = torch.cat([part.square() @ scale for part in turned.split(CHUNK)])
        leverage = squares + 1 / self.counts.sum()
        left_out = weight * leverage
        without = (fitted - leverage[:, None] * counts) / (1 - left_out).clamp_min(1e-6)[:, None]
        return torch.where(left_out[:, None] < 1, without, self.prior)


@dataclass(frozen=True)
class NeighbourShares:
    """Kernel regression of the outputs on the nearest other inputs, with the mean output as prior.

    Attributes:
        similarity: Cosines of the nearest other inputs of each ``[m, k]``, −∞ where there are fewer.
        index: Which inputs they are ``[m, k]``.
        weight: Weights of their examples ``[m, k]``.
        values: Weights of all inputs' examples by output, sparse ``[m, c]``.
        prior: The mean output ``[c]``.
    """

    similarity: Tensor
    index: Tensor
    weight: Tensor
    values: Any
    prior: Tensor

    @classmethod
    def of(cls, nearest: NearestInputs, counts: Tensor) -> "NeighbourShares":
        """All but the temperature.

        Args:
            nearest: The nearest other inputs of each.
            counts: Weights of the inputs' examples by output ``[m, c]``.
        """
        found, weight = nearest.index.cpu(), counts.sum(-1).cpu()
        similarity, index = nearest.similarity.cpu().masked_fill(found < 0, -torch.inf), found.clamp_min(0)
        of_neighbours = weight.index_select(0, index.flatten()).view_as(index)
        return cls(similarity, index, of_neighbours, csr_array(counts.cpu().numpy()), counts.sum(0) / counts.sum())

    def estimate(self, temperature: float, rows: Tensor | None = None) -> Tensor:
        """Logarithms of the outputs' shares ``[m, c]``.

        Args:
            temperature: t of the Gaussian kernel on unit-norm inputs, exp((cosine − 1)/t).
            rows: Inputs ``[r]``, for whose shares ``[r, c]`` alone is asked; None: all.
        """
        weights, index = ((self.similarity - 1) / temperature).exp(), self.index
        mass = (weights * self.weight).sum(-1, keepdim=True)
        extra = PRIOR_MASS * mass.median().clamp_min(torch.finfo(mass.dtype).tiny)
        if rows is not None:
            weights, index, mass = weights[rows], index[rows], mass[rows]
        (r, k), m = index.shape, self.values.shape[0]
        first = np.arange(0, r * k + 1, k)
        near = csr_array((weights.flatten().numpy(), index.flatten().numpy(), first), shape=(r, m)) @ self.values
        by_output = torch.from_numpy(near.toarray()).to(self.prior)
        return ((by_output + extra * self.prior) / (mass + extra)).clamp_min(SMALLEST_SHARE).log()
