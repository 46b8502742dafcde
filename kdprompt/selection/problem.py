"""J over some candidates under the limits of the settings, and the sets that are asked of it."""

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.objective.candidate_outputs import CandidateOutputs
from kdprompt.objective.gram import combine_rows_with_target
from kdprompt.objective.objective import Objective
from kdprompt.objective.target import Target
from kdprompt.observation import observe
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.search.constraints import Constraints
from kdprompt.search.exchange import draw_sets, replace_member
from kdprompt.search.ordering import ByObjective, OrderingProblem
from kdprompt.search.search import cut_path, greedy_search, refine_by_swaps
from kdprompt.selection.candidates import Candidates
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.long_inputs import find_repeats
from kdprompt.selection.quota import output_limits
from kdprompt.settings import Settings

__all__ = ["SelectionProblem", "build_constraints"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelectionProblem:
    """J over candidates, and the limits; computed once however many sets are asked for.

    Attributes:
        candidates: The candidates of ``b`` problems.
        ordering: J over them, and their outputs.
        constraints: Which sets are allowed.
        tolerance: Share of the fall of J that a shorter prompt may give up, where k is ``"auto"``.
        settings: How many, in which order.
    """

    candidates: Candidates
    ordering: OrderingProblem
    constraints: Constraints
    tolerance: float
    settings: Settings

    @classmethod
    def build(
        cls, context: SelectionContext, candidates: Candidates, target: Target, rows: GatheredRows | None = None
    ) -> "SelectionProblem":
        """Computes J and the limits.

        Args:
            context: The pool, the settings and J's parameters.
            candidates: Of ``b`` problems.
            target: Their targets.
            rows: The candidates' rows where they are at hand.
        """
        pool, parameters = context.tensors, context.parameters
        rows = GatheredRows.take(pool, candidates.index) if rows is None else rows
        blocks = combine_rows_with_target(parameters.kernel, rows, target, pool.value_radius)
        reader = context.reader_loss(target) if parameters.weights.reader > 0 else None
        objective = Objective.build(blocks, parameters.output_share, parameters.weights, reader)
        ordering = OrderingProblem(objective, CandidateOutputs(rows.v, target, pool.value_radius))
        constraints = build_constraints(context, candidates, rows)
        return cls(candidates, ordering, constraints, parameters.tolerance, context.settings)

    @property
    def objective(self) -> Objective:
        """J over the candidates."""
        return self.ordering.objective

    @property
    def has_free_order(self) -> bool:
        """Whether J orders what it chose, so that any order may be tried."""
        return isinstance(self.settings.query_order, ByObjective)

    def solve(self, valid: Tensor | None = None) -> Tensor:
        """A set of small J, by greedy search, choice of length, and swaps: a local minimum.

        Args:
            valid: Which candidates may be chosen ``[b, L]``; None: all that are valid.

        Returns:
            Rows of the pool in reading order ``[b, K]``, the prefix first as it is, −1 pads last.
        """
        constraints = self.constraints if valid is None else replace(self.constraints, valid=valid)
        fixed = self.candidates.prefix_length
        path = greedy_search(self.objective, constraints, self.settings.largest_k, fixed)
        chosen, reached = path.chosen, path.reached
        if self.settings.k == "auto":
            chosen, reached = cut_path(path, self.tolerance), None
        elif reached is not None and not bool((reached < torch.inf).all()):
            reached = None
        return self.arrange(refine_by_swaps(self.objective, constraints, chosen, fixed, reached))

    def draw(self, size: int, keys: Tensor) -> Tensor:
        """A feasible set by random ``keys`` ``[b, L]``; J decides its order at most. Rows ``[b, size]``."""
        return self.arrange(draw_sets(self.constraints, size, keys))

    def replace_member(self, rows: Tensor, place: int, keys: Tensor) -> Tensor:
        """A prompt ``[b, K]`` with another demonstration in one place, the feasible one with the largest key.

        A fixed rule arranges it again; where the order is free, the others keep their places. The prompt stays as it is
        where no other demonstration may stand there.
        """
        chosen = (self.candidates.index[:, None, :] == rows[..., None]).to(torch.uint8).argmax(-1)
        changed = replace_member(self.constraints, torch.where(rows >= 0, chosen, -1), place, keys)
        return self._to_rows(changed) if self.has_free_order else self.arrange(changed)

    def arrange(self, chosen: Tensor) -> Tensor:
        """Sets of candidates ``[b, K]`` (−1 pads) in reading order, as rows of the pool."""
        order = self.settings.query_order
        with observe(logger, "order", sets=len(chosen), by=type(order).__name__):
            return self._to_rows(order.arrange(self.ordering, chosen, self.candidates.prefix_length))

    def _to_rows(self, chosen: Tensor) -> Tensor:
        return torch.where(chosen >= 0, self.candidates.index.gather(-1, chosen.clamp_min(0)), -1)


def build_constraints(
    context: SelectionContext, candidates: Candidates, rows: GatheredRows | None = None
) -> Constraints:
    """The limits of the settings over some candidates: budget, quota, no two duplicates."""
    settings, pool, index = context.settings, context.tensors, candidates.index
    group, most, least = None, None, None
    if settings.quota is not None:
        limits = output_limits(pool, settings.quota)
        group = limits.code[index]
        most = torch.tensor(limits.most, dtype=torch.long, device=index.device)
        least = torch.tensor(limits.least, dtype=torch.long, device=index.device)
    token_counts = context.pool.token_counts
    return Constraints(
        valid=candidates.valid,
        duplicate=find_repeats(context, index, None if rows is None else rows.among.inner),
        cost=None if settings.budget is None or token_counts is None else token_counts[index],
        budget=settings.budget or 0,
        group=group,
        most=most,
        least=least,
    )
