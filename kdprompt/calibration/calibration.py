"""Calibration without an LLM: the temperature, the share of the output kernel, and the weights of J.

The worst-case constants of R3 dwarf the bias at the lengths of real prompts, so J's weights are not the bound's.
Pool examples are held out as pseudo-queries, disjoint from every shortlist, their outputs hidden; the demonstrations
chosen for them are scored by the normalised read-out f̄_D(q) = Σ a_i(q) v(z_i) against the true output: 0–1 loss
for labels, squared distance for embedded outputs. Settings whose loss is within one standard error (paired) of the
best are near-ties, decided for labels by log-loss with a fitted temperature.

A static prompt has settings of its own. Its few demonstrations stand for many queries, most of them far away: under a
temperature as wide as one query likes, each query would attend to all of them alike, R6 would be least where all have
the commonest output, and the read-out could tell nothing apart. So the temperature is a fixed part of the median
heuristic's, and R6 weighs as much as the MMD, times the share of the outputs that k demonstrations can show: what no
prompt of k can hold is no reason to choose among prompts. Both were chosen on answers of a small LM to dev queries.
Rejected there: the temperature by the loss of the static read-out (it finds the same range, but within it prefers
narrower kernels than the reader does), and outputs in proportion to their estimated share (quotas), which cost as much
where a reader prefers one output as it gained elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor

from kdprompt.calibration.pseudo_queries import PseudoTask, Trial, query_tensors_of_rows
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.regression import KernelRegression
from kdprompt.pool.neighbours import find_neighbours, rank_in_turn
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.search.ordering import Order
from kdprompt.settings import Settings
from kdprompt.theory.bandwidth import fit_by_leave_one_out, median_heuristic
from kdprompt.theory.kernels import Gaussian, Kernel
from kdprompt.theory.standard_error import is_within_one_standard_error

__all__ = ["Calibration", "calibrate"]

T = TypeVar("T")
HELD_OUT = 512
PSEUDO_QUERIES = 192
FEWEST = 24
TEMPERATURES = (1.0, 2.0, 4.0)  # multiples of the regression's
SHARES = (0.0, 0.5, 1.0)
NEIGHBOURHOODS = (0.0, 0.5)
# Never 0: log-loss of the read-out prefers hedging and would drop the penalty, which readers gain from.
INTERFERENCES = (0.25, 1.0)
PENALTIES = tuple(ObjectiveWeights(interference=value) for value in INTERFERENCES)
STATIC_NARROWING = 16.0  # the median heuristic's temperature over a static prompt's
TOLERANCES = (0.0, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Calibration:
    """What a selector works with.

    Attributes:
        chosen: The settings in force for one query, and their loss.
        static: Those of a static prompt.
        regression: Estimates unknown outputs.
        trials: Everything that was tried; empty where nothing was.
        pseudo_queries: How many pool examples were held out.
        source: Where the settings come from, in words.
        order: For one query, the reading order with which a reader answered best; None where none was asked.
        core: Ids of the demonstrations that stand first in the prompts for single queries, because a reader answered
            better with them.
    """

    chosen: Trial
    static: Trial
    regression: KernelRegression
    trials: tuple[Trial, ...]
    pseudo_queries: int
    source: str
    order: Order | None = None
    core: tuple[str, ...] = ()

    def under(self, settings: Settings) -> Settings:
        """The settings of a prompt for one query: those given, with what a reader was asked for where they leave it."""
        if self.order is None or settings.order is not None:
            return settings
        return settings.model_copy(update={"order": self.order})


def calibrate(features: PoolTensors, settings: Settings, traffic: Tensor | None = None) -> Calibration:
    """Chooses what ``settings`` leaves open.

    Args:
        features: The pool.
        settings: What is pinned stays.
        traffic: Unit-norm embeddings of real queries ``[m, d]``: the pseudo-queries are then the pool examples
            nearest to them, instead of a uniform sample.

    Returns:
        The settings in force with the evidence for them. Deterministic for a seed and a pool.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    regression = _regression(features, settings, generator)
    start = next(_grid(settings, regression, default=True))
    options = list(_grid(settings, regression, default=False))
    rows = _held_out(features, min(PSEUDO_QUERIES, len(features) // 4), generator, traffic)
    median = median_heuristic(features.x)
    static = replace(
        start,
        kernel=settings.kernel or Gaussian(median / STATIC_NARROWING),
        penalties=settings.penalties or ObjectiveWeights(interference=_coverable(features, settings.most)),
    )
    why = _why_not(features, settings, rows)
    if why:
        start = replace(start, kernel=settings.kernel or Gaussian(median))
        return Calibration(start, static, regression, (), 0, f"defaults, temperature by the median heuristic: {why}")
    if len(options) == 1 and settings.k != "auto":
        return Calibration(options[0], static, regression, (), 0, "pinned by the settings")
    task = PseudoTask.of(features, settings, regression, rows)
    adaptive = settings.k == "auto"
    trials = task.try_all(options, settings.most, adaptive=adaptive)
    longest = _best(trials)
    chosen = longest[0]
    if adaptive and settings.tolerance is None:
        options = [replace(chosen, tolerance=tolerance) for tolerance in TOLERANCES[1:]]
        shorter = [longest, *task.try_all(options, settings.most, adaptive=True)]
        best = min(shorter, key=_loss)
        # The shortest prompts that lose no more than one standard error.
        chosen = next(trial for trial, losses in reversed(shorter) if is_within_one_standard_error(losses, best[1]))
        trials += shorter[1:]
    static = replace(static, tolerance=chosen.tolerance)
    source = f"calibrated on {rows.numel()} pool examples held out as pseudo-queries, {len(trials)} settings tried"
    return Calibration(chosen, static, regression, tuple(trial for trial, _ in trials), rows.numel(), source)


def _coverable(features: PoolTensors, k: int) -> float:
    """The largest share of the outputs, of one task, that k demonstrations can show, in [0, 1]; 1 without labels."""
    if features.mode != "labels":
        return 1.0
    shares = features.priors[:-1] if features.tasks else features.priors
    return round(float(shares.topk(min(k, shares.shape[-1]), dim=-1).values.sum(-1).max()), 6)


def _why_not(features: PoolTensors, settings: Settings, rows: Tensor) -> str:
    if not settings.calibrate:
        return "calibration is switched off"
    if features.mode == "none":
        return "the pool has no outputs to calibrate on"
    return f"a pool of {len(features)} is too small to calibrate on" if rows.numel() < FEWEST else ""


def _grid(settings: Settings, regression: KernelRegression, *, default: bool) -> Iterator[Trial]:
    """What may be tried; pinned settings have one value, and ``default`` leaves one value to the others too."""

    def values(pinned: T | None, preferred: T, grid: tuple[T, ...]) -> tuple[T, ...]:
        return (pinned,) if pinned is not None else (preferred,) if default else grid

    base = regression.kernel
    kernels: tuple[Kernel, ...] = (base,)
    if settings.kernel is not None:
        kernels = (settings.kernel,)
    elif isinstance(base, Gaussian) and not default:
        kernels = tuple(Gaussian(base.temperature * factor) for factor in TEMPERATURES)
    for combination in product(
        kernels,
        values(settings.share, 0.5, SHARES),
        values(settings.neighbourhood, 0.0, NEIGHBOURHOODS),
        values(settings.penalties, PENALTIES[0], PENALTIES),
    ):
        yield Trial(*combination, tolerance=settings.tolerance or 0.0)


def _held_out(features: PoolTensors, count: int, generator: torch.Generator, traffic: Tensor | None) -> Tensor:
    """Rows to hold out: a uniform sample, or the nearest of each query of the traffic, then their second nearest."""
    if traffic is None:
        return torch.randperm(len(features), generator=generator)[:count].to(features.x.device)
    seen = traffic[torch.randperm(traffic.shape[0], generator=generator)[:HELD_OUT].to(traffic.device)]
    similarity = seen @ features.x.T
    rest = similarity.amax(0).topk(count).indices.tolist()  # for traffic that repeats itself
    first = list(dict.fromkeys([*rank_in_turn(similarity, count), *rest]))[:count]
    return torch.tensor(first, device=features.x.device)


def _regression(features: PoolTensors, settings: Settings, generator: torch.Generator) -> KernelRegression:
    """The regression by leave-one-out; by the median heuristic where there is nothing to predict."""
    if features.mode == "none" or len(features) < 8:
        kernel = settings.kernel or Gaussian(median_heuristic(features.x))
        return KernelRegression(kernel, 0.1)
    rows = _held_out(features, min(HELD_OUT, len(features)), generator, None)
    near = find_neighbours(features, query_tensors_of_rows(features, rows), settings.shortlist)
    similarity = (features.x[near.index] @ near.q[..., None]).squeeze(-1)
    similarity = similarity.masked_fill(~near.valid, -torch.inf)
    labels = features.mode == "labels"
    found = fit_by_leave_one_out(
        similarity,
        features.v[near.index],
        features.v[rows],
        features.prior(rows.new_tensor([-1]), features.v)[0],
        labels=labels,
    )
    return KernelRegression(Gaussian(found.temperature), found.shrinkage)


def _best(trials: list[tuple[Trial, Tensor]]) -> tuple[Trial, Tensor]:
    leader = min(trials, key=_loss)
    if leader[0].log_loss is None:
        return leader
    tied = (result for result in trials if is_within_one_standard_error(result[1], leader[1]))
    return min(tied, key=lambda result: (result[0].log_loss or 0.0, _loss(result)))


def _loss(result: tuple[Trial, Tensor]) -> float:
    return float(result[1].mean())
