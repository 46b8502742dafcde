"""Pool examples held out as pseudo-queries, and what settings lose on them: the trials of the calibration."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.objective.gram import GramBlocks, compute_gram_blocks
from kdprompt.objective.objective import Objective
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.regression import KernelRegression
from kdprompt.objective.target import Target, neighbourhood_target
from kdprompt.pool.neighbours import find_duplicates, find_neighbours
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.search.constraints import Constraints
from kdprompt.search.search import cut_path, greedy_search
from kdprompt.settings import Settings
from kdprompt.theory.kernels import Kernel

__all__ = ["PseudoTask", "Trial", "query_tensors_of_rows"]

SCALES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # temperatures of the log-loss


@dataclass(frozen=True)
class Trial:
    """One combination of settings and what it lost on the pseudo-queries.

    Attributes:
        kernel: κ of the inputs.
        share: ρ of the output kernel.
        neighbourhood: η of the target.
        penalties: Weights of J.
        tolerance: Of ``cut_path``, where k is ``"auto"``.
        loss: Mean 0–1 loss (labels) or squared distance (text); None where nothing was tried.
        interval: 95 % interval of that mean, normal approximation.
        log_loss: In nats, with fitted temperature; None for text.
    """

    kernel: Kernel
    share: float
    neighbourhood: float
    penalties: ObjectiveWeights
    tolerance: float = 0.0
    loss: float | None = None
    interval: tuple[float, float] | None = None
    log_loss: float | None = None


def query_tensors_of_rows(features: PoolTensors, rows: Tensor) -> QueryTensors:
    """Rows of a pool as queries."""
    return QueryTensors(features.x[rows], features.task[rows], features.text[rows])


@dataclass(frozen=True)
class PseudoTask:
    """The pseudo-queries with everything that does not change from trial to trial."""

    x: Tensor
    v: Tensor
    true: Tensor
    target: Target
    constraints: Constraints
    labels: bool
    radius: float

    @classmethod
    def of(cls, features: PoolTensors, settings: Settings, regression: KernelRegression, rows: Tensor) -> "PseudoTask":
        exclude = torch.zeros(len(features), dtype=torch.bool, device=features.x.device)
        exclude[rows] = True
        near = find_neighbours(features, query_tensors_of_rows(features, rows), settings.shortlist, exclude=exclude)
        target = neighbourhood_target(features, near, regression)
        rules = Constraints(near.valid, find_duplicates(features, near.index, settings.near_duplicate))
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
        parts: dict[Kernel, GramBlocks] = {}
        results = []
        for option in options:
            if option.kernel not in parts:
                parts = {option.kernel: compute_gram_blocks(option.kernel, self.x, self.v, self.target, self.radius)}
            part = replace(parts[option.kernel], target=self.target.with_neighbourhood(option.neighbourhood))
            objective = Objective.of(part, option.share, option.penalties)
            path = greedy_search(objective, self.constraints, k)
            chosen = cut_path(path, option.tolerance) if adaptive else path.chosen
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
        log_loss = None
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
