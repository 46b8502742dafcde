"""Multinomial logistic regression with constants that all outputs share: few numbers, one convex fit.

Takes features of each output of each case; gives the weights of the features and a leaning to each output.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["MultinomialFit", "fit_multinomial"]


@dataclass(frozen=True)
class MultinomialFit:
    """log p(y) = ⟨constants, features(y)⟩ + bias_y, up to a constant in y.

    Attributes:
        constants: Weights of the features ``[p]``, float64 on the CPU.
        bias: Leaning to each output ``[c]``, mean 0.
    """

    constants: Tensor
    bias: Tensor

    def log_probs(self, features: Tensor, possible: Tensor | None = None) -> Tensor:
        """Log-probabilities of cases ``[n, c, p]``, ``[n, c]`` in float64 on the CPU; −∞ for impossible outputs."""
        scores = features.cpu().double() @ self.constants + self.bias
        return (scores if possible is None else scores.masked_fill(~possible.cpu(), -torch.inf)).log_softmax(-1)


def fit_multinomial(
    features: Tensor,
    target: Tensor,
    lowest: tuple[float | None, ...],
    ridge: float,
    possible: Tensor | None = None,
) -> MultinomialFit:
    """Fits constants and biases by maximum likelihood.

    Args:
        features: Of each output in each case ``[n, c, p]``, finite.
        target: Which output it was, as shares that sum to 1, ``[n, c]``.
        lowest: Lower bound of each constant; None is no bound.
        ridge: Penalty on each squared bias, where a case counts 1; ``inf`` fits no biases.
        possible: Which outputs can occur, boolean ``[n, c]``, that of the target among them; None: all.

    Returns:
        The optimum; constants on which the cases say nothing are 0.
    """
    from scipy.optimize import minimize

    x, shares = features.cpu().double().numpy(), target.cpu().double().numpy()
    n, c, p = x.shape
    barred = np.zeros((n, c), dtype=bool) if possible is None else ~possible.cpu().numpy()
    biased = np.isfinite(ridge)
    penalty = ridge if biased else 0.0

    def loss(parameters: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, object]:
        constants, bias = parameters[:p], parameters[p:]
        scores = np.where(barred, -np.inf, x @ constants + (bias if biased else 0.0))
        scores = scores - scores.max(-1, keepdims=True)
        log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        error = np.exp(log_probs) * shares.sum(-1, keepdims=True) - shares
        slope = [np.einsum("nc,ncf->f", error, x) / n]
        if biased:
            slope.append(error.sum(0) / n + 2 * penalty / n * bias)
        likelihood = (shares * np.where(barred, 0.0, log_probs)).sum()
        return float((penalty * (bias**2).sum() - likelihood) / n), np.concatenate(slope)

    bounds = [*((low, None) for low in lowest), *([(None, None)] * (c if biased else 0))]
    options = {"maxiter": 1000, "ftol": 1e-13}
    found = minimize(loss, np.zeros(len(bounds)), jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    bias = torch.from_numpy(found.x[p:]) if biased else torch.zeros(c, dtype=torch.float64)
    return MultinomialFit(torch.from_numpy(found.x[:p]), bias - bias.mean())
