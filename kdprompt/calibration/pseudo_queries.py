"""Pool examples held out as pseudo-queries, and the loss of J's parameters on them: the trials of the calibration.

Labels are scored by a proper score: what the reader, as its profile has it, is expected to lose with the prompt on the
true output (R9); where some of the pool's labels are noise, on what is right in the light of label and estimate. A
prompt that votes as one gains where it is right and loses as much as a reader follows it where it is wrong. Free text
is scored by the squared distance of the nearest output that is shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from pydantic import ConfigDict
from torch import Tensor

from kdprompt.calibration.held_out import HeldOutRows
from kdprompt.deprecation import keep_attributes
from kdprompt.objective.gram import GramBlocks, TargetPairs, combine_rows_with_target
from kdprompt.objective.objective import Objective
from kdprompt.objective.own_knowledge import OwnEstimate
from kdprompt.objective.parameters import ObjectiveParameters
from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.objective.regression import KernelRegression
from kdprompt.objective.target import Target, estimate_neighbourhood_target
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.pool.neighbours import find_duplicates
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.search.constraints import Constraints
from kdprompt.search.search import cut_path, greedy_search
from kdprompt.settings import Settings
from kdprompt.theory.attention import normalise_attention
from kdprompt.theory.kernels import Kernel
from kdprompt.theory.standard_error import is_within_one_standard_error

__all__ = ["PseudoQueries", "Trial", "TrialResult", "find_best"]

TIE = 1e-6  # probabilities that differ by less are equal


@dataclass(frozen=True)
class Trial:
    """Parameters of J that were tried, and their loss on the pseudo-queries.

    Attributes:
        parameters: What was tried.
        loss: Mean log-loss in nats that the reader is expected to have (labels, R9) or squared distance of the nearest
            output shown (text); None where nothing was tried.
        interval: 95 % interval of that mean, normal approximation.
        error: Share of wrong answers that the reader is expected to give; None for text.
        log_loss: What ``loss`` was in files of earlier versions, in nats; None since.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    parameters: ObjectiveParameters
    loss: float | None = None
    interval: tuple[float, float] | None = None
    error: float | None = None
    log_loss: float | None = None


keep_attributes(
    Trial,
    {
        "kernel": "parameters.kernel",
        "share": "parameters.output_share",
        "neighbourhood": "parameters.neighbourhood",
        "penalties": "parameters.weights",
        "tolerance": "parameters.tolerance",
    },
)


class TrialResult(NamedTuple):
    """A trial, its loss on each pseudo-query ``[h]``, and what decides among near-ties: the smallest."""

    trial: Trial
    losses: Tensor
    preference: float

    @property
    def mean_loss(self) -> float:
        """Over the pseudo-queries."""
        return float(self.losses.mean())


def find_best(results: Sequence[TrialResult]) -> TrialResult:
    """Of the trials that are near-ties of the one of least loss, the one of the least ``preference``."""
    leader = min(results, key=lambda result: result.mean_loss)
    tied = (result for result in results if is_within_one_standard_error(result.losses, leader.losses))
    return min(tied, key=lambda result: (result.preference, result.mean_loss))


@dataclass(frozen=True)
class PseudoQueries:
    """``h`` pool examples held out as queries, with everything that does not change from trial to trial.

    Attributes:
        x: Inputs of their candidates ``[h, L, d]``.
        v: Values of their candidates ``[h, L, c]``.
        true_values: Their own values ``[h, c]``; of labels that may be noise, the shares of what is right.
        target: Their targets.
        constraints: Which sets are allowed.
        outputs: The labels' outputs; None where values are no labels.
        value_radius: max‖v‖ over the pool.
        own_estimate: What the reader knows of queries itself, or None.
    """

    x: Tensor
    v: Tensor
    true_values: Tensor
    target: Target
    constraints: Constraints
    outputs: tuple[str, ...] | None
    value_radius: float
    own_estimate: OwnEstimate | None = None

    @classmethod
    def build(
        cls,
        pool: PoolTensors,
        settings: Settings,
        regression: KernelRegression,
        held_out: HeldOutRows,
        own_estimate: OwnEstimate | None = None,
    ) -> "PseudoQueries":
        """Of rows of the pool, none of which is a neighbour of another."""
        rows, neighbours = held_out.rows, held_out.neighbours
        duplicate = find_duplicates(pool, neighbours.index, settings.search.near_duplicate)
        target, true_values = estimate_neighbourhood_target(pool, neighbours, regression), pool.v[rows]
        ridge = regression.ridge_for(pool.output_mode)
        if ridge is not None:  # of text there is no noise, and values are believed as they are
            true_values = ridge.believe(true_values, target.v[:, 0])
        return cls(
            x=pool.take_inputs(neighbours.index),
            v=pool.v[neighbours.index],
            true_values=true_values,
            target=target,
            constraints=Constraints(neighbours.valid, duplicate),
            outputs=tuple(output for _, output in pool.labels) if pool.output_mode == "labels" else None,
            value_radius=pool.value_radius,
            own_estimate=own_estimate,
        )

    def try_all(self, options: list[ObjectiveParameters], k: int, *, adaptive: bool) -> list[TrialResult]:
        """A trial of every option, and its loss on each pseudo-query.

        Args:
            options: Parameters to try; those with one kernel stand side by side, so that its Gram matrices are reused.
            k: Most demonstrations.
            adaptive: Whether J chooses how many.
        """
        results = []
        for option, objective in self._build_objectives(options):
            path = greedy_search(objective, self.constraints, k)
            chosen = cut_path(path, option.tolerance) if adaptive else path.chosen
            if objective.reader is None:
                results.append(self._score_text(option, chosen))
            else:
                results.append(self._score_labels(option, objective.reader, chosen))
        return results

    def _build_objectives(self, options: list[ObjectiveParameters]) -> Iterator[tuple[ObjectiveParameters, Objective]]:
        """J of each option; what options that follow one another share is computed once."""
        rows, pairs = GatheredRows(self.x, self.v), TargetPairs(self.x, self.target.x)  # one product for all kernels
        blocks: dict[Kernel, GramBlocks] = {}
        objectives: dict[tuple[float, float], Objective] = {}
        reader, profile = None, None
        for option in options:
            if option.kernel not in blocks:
                computed = combine_rows_with_target(option.kernel, rows, self.target, self.value_radius, pairs)
                blocks, objectives = {option.kernel: computed}, {}
            if self.outputs is not None and profile is not option.profile:
                profile = option.profile
                reader = ReaderLoss.build(self.target, profile, self.outputs, self.own_estimate)
            key = option.output_share, option.neighbourhood
            if key not in objectives:
                of_option = replace(blocks[option.kernel], target=self.target.with_neighbourhood(option.neighbourhood))
                objectives[key] = Objective.build(of_option, option.output_share, option.weights, reader)
            yield option, replace(objectives[key], weights=option.weights, reader=reader)

    def _score_labels(self, option: ObjectiveParameters, reader: ReaderLoss, chosen: Tensor) -> TrialResult:
        """The log-loss on the true outputs that the reader is expected to have, any demonstration standing last."""
        shown = self._weigh_values((chosen >= 0).to(self.v.dtype), chosen)
        log_probs = reader.log_probs(shown, shown)[:, 0]
        losses = -(self.true_values * torch.where(self.true_values > 0, log_probs, 0)).sum(-1)
        # A tie between labels is a coin: half an error between two, not whichever label has the lower code.
        top = (log_probs >= log_probs.amax(-1, keepdim=True) - TIE).to(log_probs.dtype)
        error = 1 - float(((top * self.true_values).sum(-1) / top.sum(-1)).mean())
        trial = Trial(option, *_mean_and_interval(losses), error)
        return TrialResult(trial, losses, option.weights.reader)

    def _score_text(self, option: ObjectiveParameters, chosen: Tensor) -> TrialResult:
        """The squared distance of the nearest output shown from the true one, at most that of zero, as without any."""
        distances = (self._values_of(chosen) - self.true_values[:, None, :]).square().sum(-1)
        none = self.true_values.square().sum(-1, keepdim=True)
        there = chosen >= 0
        losses = torch.cat([distances.masked_fill(~there, torch.inf), none], -1).amin(-1)
        of_all = torch.cat([distances * there, none * ~there.any(-1, keepdim=True)], -1).sum(-1)
        mean = float((of_all / there.sum(-1).clamp_min(1)).mean())
        return TrialResult(Trial(option, *_mean_and_interval(losses)), losses, mean)

    def _weigh_values(self, pull: Tensor, chosen: Tensor) -> Tensor:
        """The values of the chosen sets ``[h, K]``, averaged with the weights ``pull``, ``[h, c]``."""
        return (normalise_attention(pull, -1)[:, None, :] @ self._values_of(chosen)).squeeze(1)

    def _values_of(self, chosen: Tensor) -> Tensor:
        """The values of the members of sets ``[h, K]``, ``[h, K, c]``; at pads those of the first candidate."""
        return self.v.gather(1, chosen.clamp_min(0)[..., None].expand(-1, -1, self.v.shape[-1]))


def _mean_and_interval(losses: Tensor) -> tuple[float, tuple[float, float]]:
    mean, half = float(losses.mean()), 1.96 * float(losses.std()) / len(losses) ** 0.5
    return mean, (mean - half, mean + half)
