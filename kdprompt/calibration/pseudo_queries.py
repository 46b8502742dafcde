"""Pool examples held out as pseudo-queries, and the loss of J's parameters on them: the trials of the calibration."""

from dataclasses import dataclass, replace

import torch
from pydantic import ConfigDict
from torch import Tensor

from kdprompt.deprecation import keep_attributes
from kdprompt.objective.gram import GramBlocks, compute_gram_blocks
from kdprompt.objective.objective import Objective
from kdprompt.objective.parameters import ObjectiveParameters
from kdprompt.objective.regression import KernelRegression
from kdprompt.objective.target import Target, estimate_neighbourhood_target
from kdprompt.pool.neighbours import find_duplicates, find_neighbours
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.search.constraints import Constraints
from kdprompt.search.search import cut_path, greedy_search
from kdprompt.settings import Settings
from kdprompt.theory.attention import normalise_attention
from kdprompt.theory.kernels import Kernel

__all__ = ["PseudoQueries", "Trial", "encode_rows"]

SCALES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # temperatures of the log-loss
TIE = 1e-6  # read-outs that differ by less are equal


@dataclass(frozen=True)
class Trial:
    """Parameters of J that were tried, and their loss on the pseudo-queries.

    Attributes:
        parameters: What was tried.
        loss: Mean 0–1 loss (labels) or squared distance (text); None where nothing was tried.
        interval: 95 % interval of that mean, normal approximation.
        log_loss: In nats, with fitted temperature; None for text.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    parameters: ObjectiveParameters
    loss: float | None = None
    interval: tuple[float, float] | None = None
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


def encode_rows(pool: PoolTensors, rows: Tensor) -> QueryTensors:
    """Rows of a pool as queries; each is left out of its own prompt."""
    return QueryTensors(pool.x[rows], pool.task[rows], pool.text[rows])


@dataclass(frozen=True)
class PseudoQueries:
    """``h`` pool examples held out as queries, with everything that does not change from trial to trial.

    Attributes:
        x: Inputs of their candidates ``[h, L, d]``.
        v: Values of their candidates ``[h, L, c]``.
        true_values: Their own values ``[h, c]``.
        target: Their targets.
        constraints: Which sets are allowed.
        are_labels: Whether values are labels.
        value_radius: max‖v‖ over the pool.
    """

    x: Tensor
    v: Tensor
    true_values: Tensor
    target: Target
    constraints: Constraints
    are_labels: bool
    value_radius: float

    @classmethod
    def build(
        cls, pool: PoolTensors, settings: Settings, regression: KernelRegression, rows: Tensor
    ) -> "PseudoQueries":
        """Holds out rows of the pool; none of them is a candidate for another."""
        exclude = torch.zeros(len(pool), dtype=torch.bool, device=pool.x.device)
        exclude[rows] = True
        neighbours = find_neighbours(pool, encode_rows(pool, rows), settings.search.shortlist, exclude=exclude)
        duplicate = find_duplicates(pool, neighbours.index, settings.search.near_duplicate)
        return cls(
            x=pool.x[neighbours.index],
            v=pool.v[neighbours.index],
            true_values=pool.v[rows],
            target=estimate_neighbourhood_target(pool, neighbours, regression),
            constraints=Constraints(neighbours.valid, duplicate),
            are_labels=pool.output_mode == "labels",
            value_radius=pool.value_radius,
        )

    def try_all(self, options: list[ObjectiveParameters], k: int, *, adaptive: bool) -> list[tuple[Trial, Tensor]]:
        """A trial of every option, and its loss on each pseudo-query ``[h]``.

        Args:
            options: Parameters to try; those with one kernel stand side by side, so that its Gram matrices are reused.
            k: Most demonstrations.
            adaptive: Whether J chooses how many.
        """
        blocks: dict[Kernel, GramBlocks] = {}
        results = []
        for option in options:
            if option.kernel not in blocks:
                computed = compute_gram_blocks(option.kernel, self.x, self.v, self.target, self.value_radius)
                blocks = {option.kernel: computed}
            target = self.target.with_neighbourhood(option.neighbourhood)
            blocks_of_option = replace(blocks[option.kernel], target=target)
            objective = Objective.build(blocks_of_option, option.output_share, option.weights)
            path = greedy_search(objective, self.constraints, k)
            chosen = cut_path(path, option.tolerance) if adaptive else path.chosen
            results.append(self._score(option, self._read_out(objective, chosen)))
        return results

    def _read_out(self, objective: Objective, chosen: Tensor) -> Tensor:
        """f̄_D(q) of the chosen sets ``[h, c]``; zero for the empty one."""
        index, mask = chosen.clamp_min(0), chosen >= 0
        share = normalise_attention(objective.attention[..., 0].gather(-1, index) * mask, -1)
        values = self.v.gather(1, index[..., None].expand(-1, -1, self.v.shape[-1]))
        return (share[:, None, :] @ values).squeeze(1)

    def _score(self, option: ObjectiveParameters, read_out: Tensor) -> tuple[Trial, Tensor]:
        log_loss = None
        if self.are_labels:
            # A tie between labels is a coin: half a loss between two, not whichever label has the lower code.
            top = (read_out >= read_out.amax(-1, keepdim=True) - TIE).to(read_out.dtype)
            losses = 1 - (top * self.true_values).sum(-1) / top.sum(-1)
            answer = self.true_values.argmax(-1)
            log_loss = min(float(torch.nn.functional.cross_entropy(read_out / scale, answer)) for scale in SCALES)
        else:
            losses = (read_out - self.true_values).square().sum(-1)
        mean, half = float(losses.mean()), 1.96 * float(losses.std()) / len(losses) ** 0.5
        return Trial(option, mean, (mean - half, mean + half), log_loss), losses
