"""What a selection was chosen from: what its page draws, and its records do not hold."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from kdprompt.objective.target import Target, estimate_sample_target, estimate_target
from kdprompt.pool.neighbours import Neighbours, find_neighbours
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.search.exchange import draw_sets
from kdprompt.selection.candidates import Candidates, find_query_candidates, find_static_candidates
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.problem import build_constraints
from kdprompt.theory.point_pairs import multiply_with_all

__all__ = ["EXACT_DEVICE", "EXACT_DTYPE", "ExactTarget", "NoPartOfValue", "SelectionOrigin"]

EXACT_DEVICE, EXACT_DTYPE = torch.device("cpu"), torch.float64


class NoPartOfValue:
    """What a value refers to and does not hold: all are equal, and none is stored, pickled or copied."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


@dataclass(frozen=True, eq=False)
class ExactTarget:
    """What prompts are to come near to, as they are accounted for; estimated when it is asked for.

    Attributes:
        context: The pool, the settings and J's parameters.
        queries: The queries.
        known: Their neighbours where they are at hand.
        is_static: Whether one prompt serves all of them.
    """

    context: SelectionContext
    queries: QueryTensors
    known: Neighbours | None = None
    is_static: bool = False

    @cached_property
    def value(self) -> Target:
        """The target, in float64 on the CPU."""
        context = self.context
        nearest = _look_up(context, self.queries) if self.known is None else self.known
        exact = nearest.to(EXACT_DEVICE, EXACT_DTYPE)
        if self.is_static:
            return estimate_sample_target(context.tensors, exact, context.regression)
        return estimate_target(context.tensors, exact, context.regression, context.parameters.neighbourhood)


@dataclass(frozen=True, eq=False, repr=False)
class SelectionOrigin(NoPartOfValue):
    """The pool, the settings and the queries of one selection; no part of the selection's value.

    Attributes:
        context: The pool, the settings and J's parameters.
        encoded: The query, or the sample that a static prompt serves, ``m`` of them.
        texts: Their texts.
        is_static: Whether the prompt serves a sample.
    """

    context: SelectionContext
    encoded: QueryTensors
    texts: tuple[str, ...]
    is_static: bool = False

    def find_target(self) -> ExactTarget:
        """What the prompt is to come near to."""
        return ExactTarget(self.context, self.encoded, is_static=self.is_static)

    def find_nearest_prompt(self, size: int) -> Tensor:
        """What nearest neighbours would be under the same limits: task, outputs, budget, quota, no two duplicates.

        Args:
            size: Most demonstrations.

        Returns:
            Rows of the pool, nearest last ``[1, ≤ size]``.
        """
        candidates, similarity = self.find_candidates()
        chosen = draw_sets(build_constraints(self.context, candidates), size, similarity)
        chosen = chosen[:, chosen[0] >= 0]
        nearest_last = similarity.gather(-1, chosen).argsort(dim=-1)
        return candidates.index.gather(-1, chosen.gather(-1, nearest_last))

    def find_candidates(self) -> tuple[Candidates, Tensor]:
        """What J was searched over, ``L`` rows of the pool, and their mean cosine to the queries ``[1, L]``."""
        context, pool = self.context, self.context.tensors
        candidates = (
            find_static_candidates(pool, self.encoded, context.settings.static.shortlist)
            if self.is_static
            else find_query_candidates(pool, self.encoded, _look_up(context, self.encoded), context.settings)
        )
        return candidates, multiply_with_all(self.encoded.q, pool.x).mean(0)[candidates.index]


def _look_up(context: SelectionContext, queries: QueryTensors) -> Neighbours:
    return find_neighbours(context.tensors, queries, context.settings.search.shortlist)
