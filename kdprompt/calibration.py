"""Calibration without an LLM: the temperature, the share of the output kernel, and the weights of J.

The worst-case constants of R3 dwarf the bias at the lengths of real prompts, so J's weights are not the bound's.
Pool examples are held out as pseudo-queries, disjoint from every shortlist, their outputs hidden; the demonstrations
chosen for them are scored by the normalised read-out f̄_D(q) = Σ a_i(q) v(z_i) against the true output: 0–1 loss
for labels, squared distance for embedded outputs. Settings whose loss is within one standard error (paired) of the
best are near-ties, decided for labels by log-loss with a fitted temperature.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import isnan
from typing import TypeVar

import torch
from torch import Tensor

from kdprompt.features import Features, Requests, duplicates
from kdprompt.kernels import Gaussian, Kernel
from kdprompt.objective import Blocks, Objective, Penalties, blocks
from kdprompt.search import Constraints, best_prefix, greedy
from kdprompt.settings import Settings
from kdprompt.target import Regression, Target, neighbourhood_target, neighbours
from kdprompt.temperature import leave_one_out, median_temperature, within_one_error

__all__ = ["Calibration", "Trial", "calibrate"]

T = TypeVar("T")
HELD_OUT = 512
PSEUDO_QUERIES = 192
FEWEST = 24
TEMPERATURES = (1.0, 2.0, 4.0)  # multiples of the regression's
SHARES = (0.0, 0.5, 1.0)
NEIGHBOURHOODS = (0.0, 0.5)
# Never 0: log-loss of the read-out prefers hedging and would drop the penalty, which readers gain from.
INTERFERENCES = (0.25, 1.0)
TOLERANCES = (0.0, 0.02, 0.05, 0.1)
SCALES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # temperatures of the log-loss


@dataclass(frozen=True)
class Trial:
    """One combination of settings and what it lost on the pseudo-queries.

    Attributes:
        kernel: κ of the inputs.
        share: ρ of the output kernel.
        neighbourhood: η of the target.
        penalties: Weights of J.
        tolerance: Of ``best_prefix``, where k is ``"auto"``.
        loss: Mean 0–1 loss (labels) or squared distance (text).
        interval: 95 % interval of that mean, normal approximation.
        log_loss: In nats, with fitted temperature; NaN for text.
    """

    kernel: Kernel
    share: float
    neighbourhood: float
    penalties: Penalties
    tolerance: float = 0.0
    loss: float = float("nan")
    interval: tuple[float, float] = (float("nan"), float("nan"))
    log_loss: float = float("nan")


@dataclass(frozen=True)
class Calibration:
    """What a selector works with.

    Attributes:
        chosen: The settings in force and their loss.
        regression: Estimates unknown outputs.
        trials: Everything that was tried; empty where nothing was.
        pseudo_queries: How many pool examples were held out.
        source: Where the settings come from, in words.
    """

    chosen: Trial
    regression: Regression
    trials: tuple[Trial, ...]
    pseudo_queries: int
    source: str


def calibrate(features: Features, settings: Settings, traffic: Tensor | None = None) -> Calibration:
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
    why = _why_not(features, settings, rows)
    if why:
        if settings.kernel is None:
            start = replace(start, kernel=Gaussian(median_temperature(features.x)))
        return Calibration(start, regression, (), 0, f"defaults, temperature by the median heuristic: {why}")
    if len(options) == 1 and settings.k != "auto":
        return Calibration(options[0], regression, (), 0, "pinned by the settings")
    task = _Task.of(features, settings, regression, rows)
    adaptive = settings.k == "auto"
    trials = task.try_all(options, settings.most, adaptive=adaptive)
    longest = _best(trials)
    chosen = longest[0]
    if adaptive and settings.tolerance is None:
        options = [replace(chosen, tolerance=tolerance) for tolerance in TOLERANCES[1:]]
        shorter = [longest, *task.try_all(options, settings.most, adaptive=True)]
        best = min(shorter, key=lambda result: result[0].loss)
        # The shortest prompts that lose no more than one standard error.
        chosen = next(trial for trial, losses in reversed(shorter) if within_one_error(losses, best[1]))
        trials += shorter[1:]
    source = f"calibrated on {rows.numel()} pool examples held out as pseudo-queries, {len(trials)} settings tried"
    return Calibration(chosen, regression, tuple(trial for trial, _ in trials), rows.numel(), source)


def _why_not(features: Features, settings: Settings, rows: Tensor) -> str:
    if not settings.calibrate:
        return "calibration is switched off"
    if features.mode == "none":
        return "the pool has no outputs to calibrate on"
    return f"a pool of {len(features)} is too small to calibrate on" if rows.numel() < FEWEST else ""


def _grid(settings: Settings, regression: Regression, *, default: bool) -> Iterator[Trial]:
    """What may be tried; pinned settings have one value, and ``default`` leaves one value to the others too."""

    def values(pinned: T | None, preferred: T, grid: tuple[T, ...]) -> tuple[T, ...]:
        return (pinned,) if pinned is not None else (preferred,) if default else grid

    base = regression.kernel
    kernels: tuple[Kernel, ...] = (base,)
    if settings.kernel is not None:
        kernels = (settings.kernel,)
    elif isinstance(base, Gaussian) and not default:
        kernels = tuple(Gaussian(base.temperature * factor) for factor in TEMPERATURES)
    penalties = tuple(Penalties(interference=value) for value in INTERFERENCES)
    for combination in product(
        kernels,
        values(settings.share, 0.5, SHARES),
        values(settings.neighbourhood, 0.0, NEIGHBOURHOODS),
        values(settings.penalties, Penalties(interference=0.25), penalties),
    ):
        yield Trial(*combination, tolerance=settings.tolerance or 0.0)


def _held_out(features: Features, count: int, generator: torch.Generator, traffic: Tensor | None) -> Tensor:
    """Rows to hold out: a uniform sample, or those nearest to the traffic."""
    if traffic is None:
        return torch.randperm(len(features), generator=generator)[:count].to(features.x.device)
    seen = traffic[torch.randperm(traffic.shape[0], generator=generator)[:HELD_OUT].to(traffic.device)]
    return (seen @ features.x.T).amax(0).topk(count).indices


def _requests(features: Features, rows: Tensor) -> Requests:
    return Requests(features.x[rows], features.task[rows], features.text[rows])


def _regression(features: Features, settings: Settings, generator: torch.Generator) -> Regression:
    """The regression by leave-one-out; by the median heuristic where there is nothing to predict."""
    if features.mode == "none" or len(features) < 8:
        kernel = settings.kernel or Gaussian(median_temperature(features.x))
        return Regression(kernel, 0.1)
    rows = _held_out(features, min(HELD_OUT, len(features)), generator, None)
    near = neighbours(features, _requests(features, rows), settings.shortlist)
    similarity = (features.x[near.index] @ near.q[..., None]).squeeze(-1)
    similarity = similarity.masked_fill(~near.valid, -torch.inf)
    labels = features.mode == "labels"
    found = leave_one_out(
        similarity,
        features.v[near.index],
        features.v[rows],
        features.prior(rows.new_tensor([-1]), features.v)[0],
        labels=labels,
    )
    return Regression(Gaussian(found.temperature), found.shrinkage)


@dataclass(frozen=True)
class _Task:
    """The pseudo-queries with everything that does not change from trial to trial."""

    x: Tensor
    v: Tensor
    true: Tensor
    target: Target
    constraints: Constraints
    labels: bool
    radius: float

    @classmethod
    def of(cls, features: Features, settings: Settings, regression: Regression, rows: Tensor) -> "_Task":
        exclude = torch.zeros(len(features), dtype=torch.bool, device=features.x.device)
        exclude[rows] = True
        near = neighbours(features, _requests(features, rows), settings.shortlist, exclude=exclude)
        target = neighbourhood_target(features, near, regression)
        rules = Constraints(near.valid, duplicates(features, near.index, settings.near_duplicate))
        return cls(
            x=features.x[near.index],
            v=features.v[near.index],
            true=features.v[rows],
            target=target,
            constraints=rules,
            labels=features.mode == "labels",
            radius=features.radius,
        )

    def try_all(self, options: list[Trial], k: int, *, adaptive: bool) -> list[tuple[Trial, Tensor]]:
        """Every option with its loss filled in, and its loss on each pseudo-query ``[h]``."""
        parts: dict[Kernel, Blocks] = {}
        results = []
        for option in options:
            if option.kernel not in parts:
                parts = {option.kernel: blocks(option.kernel, self.x, self.v, self.target, self.radius)}
            part = replace(parts[option.kernel], target=self.target.with_neighbourhood(option.neighbourhood))
            objective = Objective.of(part, option.share, option.penalties)
            path = greedy(objective, self.constraints, k)
            chosen = best_prefix(path, option.tolerance) if adaptive else path.chosen
            results.append(self._score(option, self._read_out(objective, chosen)))
        return results

    def _read_out(self, objective: Objective, chosen: Tensor) -> Tensor:
        """f̄_D(q) of the chosen sets ``[h, c]``; zero for the empty one."""
        index, mask = chosen.clamp_min(0), chosen >= 0
        pull = objective.attention[..., 0].gather(-1, index) * mask
        share = pull / pull.sum(-1, keepdim=True).clamp_min(torch.finfo(pull.dtype).tiny)
        values = self.v.gather(1, index[..., None].expand(-1, -1, self.v.shape[-1]))
        return (share[:, None, :] @ values).squeeze(1)

    def _score(self, option: Trial, read_out: Tensor) -> tuple[Trial, Tensor]:
        log_loss = float("nan")
        if self.labels:
            # A tie between labels is a coin: half a loss between two, not whichever label has the lower code.
            top = (read_out >= read_out.amax(-1, keepdim=True) - 1e-6).to(read_out.dtype)
            losses = 1 - (top * self.true).sum(-1) / top.sum(-1)
            answer = self.true.argmax(-1)
            log_loss = min(float(torch.nn.functional.cross_entropy(read_out / scale, answer)) for scale in SCALES)
        else:
            losses = (read_out - self.true).square().sum(-1)
        mean, half = float(losses.mean()), 1.96 * float(losses.std()) / len(losses) ** 0.5
        return replace(option, loss=mean, interval=(mean - half, mean + half), log_loss=log_loss), losses


def _best(trials: list[tuple[Trial, Tensor]]) -> tuple[Trial, Tensor]:
    leader = min(trials, key=lambda result: result[0].loss)

    if isnan(leader[0].log_loss):
        return leader
    tied = (result for result in trials if within_one_error(result[1], leader[1]))
    return min(tied, key=lambda result: (result[0].log_loss, result[0].loss))
