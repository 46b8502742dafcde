r"""Examples whose output is probably wrong: those that the rest of the pool contradicts.

The pool predicts each output with the example left out (``left_out_evidence``). The recorded output y is taken to be
what the pool says, p, except for a share ε of examples whose output was drawn at random:

    P(y) = (1 − ε)·p_y + ε/c,   log p = a·log(kernel regression) + b·(ridge regression), up to a constant.

a, b and ε maximise the likelihood, so that a pool whose inputs say little about the output is not taken for one with
wrong outputs: there p is flat, and ε small. The posterior probability that the recorded output is not the true one is
ε/c·(1 − p_y)/P(y). Nothing is suspected where a likelihood-ratio test does not reject ε = 0. Else those are suspected
that make the expected F1 largest.

Rejected: further rounds that weight each example by its probability of being right. With a tenth of the outputs of
SST-2 flipped they cost half a point of F1, and as much time again.

Sources: Patrini et al. (2017), "Making deep neural networks robust to label noise", arXiv 1609.03683, for noise in the
likelihood; Northcutt, Jiang, Chuang (2021), "Confident learning", arXiv 1911.00068, for probabilities out of sample.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kdprompt.diagnose.left_out_evidence import LabelledInputs, NeighbourShares, RidgeScores
from kdprompt.diagnose.nearest_inputs import NearestInputs, find_nearest_inputs

__all__ = ["LabelNoise", "estimate_label_noise"]

NEIGHBOURS = 32
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the ridge regression
TEMPERATURES = (0.03, 0.06, 0.12, 0.25)  # of the kernel regression
MIN_JUDGED = 50  # fewer examples say too little for three constants
MIN_INPUTS = 3  # of an output with fewer inputs nothing is known when one is left out
CELLS = 100_000  # numbers that a fit of the constants looks at, while penalties and temperatures are tried
LAST_CELLS = 400_000  # and of the last fit
LARGEST_EXPONENT = 600.0  # whose exponential is finite in float64, and those of all outputs together
CRITICAL = 6.63  # of twice the log-likelihood ratio of ε̂ to ε = 0 at the same a and b; about a level of 1 %


@dataclass(frozen=True)
class LabelNoise:
    """Which labels are probably wrong.

    Attributes:
        rows: Suspected examples, the likeliest to be wrong first ``[s]``.
        suggested: Code of the output that the pool says instead ``[s]``.
        probability: Probability that the recorded output is wrong, of every example ``[n]``; 0 where it was not judged.
        judged: Which examples were judged ``[n]``: not those of an output with fewer than three inputs.
        noise: ε̂, the estimated share of outputs that were drawn at random, in [0, 1].
    """

    rows: Tensor
    suggested: Tensor
    probability: Tensor
    judged: Tensor
    noise: float


@dataclass(frozen=True)
class _Mixture:
    """A fit: weights a, b of the evidence, ε, the mean negative log-likelihood, and what ε = 0 adds to it, in nats."""

    a: float
    b: float
    noise: float
    loss: float
    gain: float

    def predict(self, evidence: tuple[Tensor, Tensor]) -> Tensor:
        """Log p ``[m, c]``."""
        return (self.a * evidence[0] + self.b * evidence[1]).log_softmax(-1)


def estimate_label_noise(inputs: LabelledInputs, *, nearest: NearestInputs | None = None) -> LabelNoise:
    """Estimates which labels are wrong, and which examples are worth a look.

    Args:
        inputs: The examples of one task, no input twice with one output; cost is linear in their number, but for the
            search of neighbours.
        nearest: The nearest other inputs of each, where they are known.

    Returns:
        The suspects. None where there are fewer than 50 examples to judge or 2 outputs, or where nothing speaks for
        wrong outputs.
    """
    counts = inputs.count()
    judged = ((counts > 0).sum(0) >= MIN_INPUTS)[inputs.label]
    nothing = torch.zeros(0, dtype=torch.long)
    probability = torch.zeros(len(judged))
    if int(judged.sum()) < MIN_JUDGED or len(inputs.label[judged].unique()) < 2:
        return LabelNoise(nothing, nothing, probability, torch.zeros_like(judged), 0.0)
    nearest = find_nearest_inputs(inputs.x, NEIGHBOURS) if nearest is None else nearest
    mixture, log_p = _fit_evidence(inputs, nearest, counts, judged)
    if mixture.noise == 0:
        return LabelNoise(nothing, nothing, probability, judged, 0.0)
    probability = _posterior(mixture, log_p, inputs) * judged
    rows = _choose_by_expected_f1(probability)
    return LabelNoise(rows, _suggest(log_p, inputs, rows), probability, judged, mixture.noise)


def _fit_evidence(
    inputs: LabelledInputs, nearest: NearestInputs, counts: Tensor, judged: Tensor
) -> tuple[_Mixture, Tensor]:
    """The likeliest temperature, then the likeliest penalty, and the mixture with both; its log p ``[m, c]``.

    While these two are tried, evidence is computed for the examples that are looked at, and no others.
    """
    few, many = (_sample(judged, cells // inputs.labels) for cells in (CELLS, LAST_CELLS))
    rows, labels = inputs.input[few], inputs.label[few]
    shares, scores = NeighbourShares.of(nearest, counts), RidgeScores.fit(inputs.x, counts)

    def loss(evidence: tuple[Tensor, Tensor]) -> float:
        return _fit_mixture(evidence, labels).loss

    middle = scores.score(PENALTIES[2], rows)
    temperature = min(TEMPERATURES, key=lambda temperature: loss((shares.estimate(temperature, rows), middle)))
    chosen = shares.estimate(temperature, rows)
    penalty = min(PENALTIES, key=lambda penalty: loss((chosen, scores.score(penalty, rows))))
    kernel, ridge = shares.estimate(temperature), scores.score(penalty)
    mixture = _fit_mixture((kernel[inputs.input[many]], ridge[inputs.input[many]]), inputs.label[many])
    if 2 * len(many) * mixture.gain < CRITICAL:
        mixture = replace(mixture, noise=0.0)
    return mixture, mixture.predict((kernel, ridge))


def _sample(judged: Tensor, size: int) -> Tensor:
    """At most ``size`` of the judged examples, at random."""
    rows = judged.nonzero().squeeze(-1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return rows[order[: max(size, MIN_JUDGED)]]


def _fit_mixture(evidence: tuple[Tensor, Tensor], label: Tensor) -> _Mixture:
    """a, b ≥ 0 and ε by maximum likelihood on some examples.

    The search begins where the evidence is believed: in a pool where all outputs are equally certain, chance and a
    weaker belief explain a wrong output equally well.

    Args:
        evidence: Of each output in each example ``[s, c]``.
        label: Codes of their outputs ``[s]``.
    """
    from scipy.optimize import minimize

    features = torch.stack([part.T.double() for part in evidence])
    # What speaks for each output beside the recorded one, outputs first: sums over them are sums of long rows.
    against = (features - features.gather(1, label.expand(2, 1, -1))).numpy()
    chance = 1 / len(against[0])

    def loss(parameters: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, object]:
        odds = np.tensordot(parameters[:2], against, 1)
        if odds.max() > LARGEST_EXPONENT:
            np.minimum(odds, LARGEST_EXPONENT, out=odds)
        np.exp(odds, out=odds)
        total, noise = odds.sum(0), parameters[2]
        right = 1 / total
        likelihood = (1 - noise) * right + noise * chance + 1e-300
        odds *= (1 - noise) * right / (total * likelihood * len(label))
        slope = against.reshape(2, -1) @ odds.ravel()
        gradient = np.append(slope, -((chance - right) / likelihood).mean())
        return -float(np.log(likelihood).mean()), gradient

    bounds = [(0.0, None), (0.0, None), (0.0, 0.95)]
    found = minimize(loss, np.array([1.0, 20.0, 0.05]), jac=True, bounds=bounds, method="L-BFGS-B")
    a, b, noise = found.x.tolist()
    return _Mixture(a, b, noise, float(found.fun), gain=loss(np.array([a, b, 0.0]))[0] - float(found.fun))


def _posterior(mixture: _Mixture, log_p: Tensor, inputs: LabelledInputs) -> Tensor:
    """The probability that each recorded output is not the true one ``[n]``."""
    p = log_p[inputs.input, inputs.label].exp()
    drawn = mixture.noise / inputs.labels
    return drawn * (1 - p) / ((1 - mixture.noise) * p + drawn)


def _choose_by_expected_f1(probability: Tensor) -> Tensor:
    """The likeliest to be wrong, as many as make 2·Σ_suspected p/(suspected + Σ p) largest, the likeliest first."""
    ordered, rows = probability.double().sort(descending=True, stable=True)
    expected = 2 * ordered.cumsum(0) / (torch.arange(1, len(ordered) + 1) + ordered.sum())
    return rows[: int(expected.argmax()) + 1]


def _suggest(log_p: Tensor, inputs: LabelledInputs, rows: Tensor) -> Tensor:
    """The likeliest other output of each suspected example."""
    other = log_p[inputs.input[rows]].clone()
    other[torch.arange(len(rows)), inputs.label[rows]] = -torch.inf
    return other.argmax(-1)
