"""One shard of a pool: which of its rows a prompt may come from. No Ray here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from kdprompt.calibration.calibration import Calibration
from kdprompt.objective.target import Target
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.pool.query_tensors import QueryTensors, find_text_codes
from kdprompt.selection.candidates import find_query_candidates
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.pool_part import PoolFrame, PoolRows
from kdprompt.selection.static import solve_target
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings

__all__ = ["PoolShard", "ShardPlan"]


@dataclass(frozen=True)
class ShardPlan:
    """What every process that takes part must know.

    Attributes:
        frame: What all rows of the pool share.
        calibration: J's parameters.
        settings: How many, under which limits, in which order.
        anchors: Rows that every process needs: a prefix, and examples that a reader answered to.
        distinct: Rows of the whole pool.
    """

    frame: PoolFrame
    calibration: Calibration
    settings: Settings
    anchors: PoolRows
    distinct: int

    def assemble(self, parts: Sequence[PoolRows]) -> EmbeddedPool:
        """A pool of the anchors and the rows of some parts."""
        return self.frame.embed(PoolRows.join([self.anchors, *parts]))

    def recode(self, pool: EmbeddedPool, queries: QueryTensors, texts: Sequence[str]) -> QueryTensors:
        """Queries that were encoded for one part of the pool, for another: only the codes of texts differ."""
        if not self.settings.search.exclude_query_text:
            return queries
        return replace(queries, excluded_text=find_text_codes(pool.tensors, texts))

    @classmethod
    def lay_out(cls, selector: DistillationSelector, shards: int) -> tuple[Self, list[PoolRows]]:
        """The plan for a selector's pool in shards, and the rows of each, which stand in turn.

        Raises:
            ValueError: There are fewer examples than shards.
        """
        pool, calibration = selector._pool, selector.calibration
        places = [row for row, ident in enumerate(pool.tensors.rows.ids) if ident]
        if not 1 <= shards <= len(places):
            raise ValueError(f"shards must be from 1 to the number of distinct examples ({len(places)}), got {shards}")
        known = () if calibration.own is None else calibration.own.ids
        needed = [ident for ident in (*calibration.prefix, *known) if ident in pool.pool]
        anchors = PoolRows.take(pool, sorted({places[0], *(pool.find_row(ident) for ident in needed)}))
        plan = cls(PoolFrame.of(pool), calibration, selector.settings, anchors, len(places))
        return plan, [PoolRows.take(pool, places[first::shards]) for first in range(shards)]


class PoolShard:
    """Some of a pool's rows.

    Args:
        plan: What all shards share.
        rows: The rows.
    """

    def __init__(self, plan: ShardPlan, rows: PoolRows) -> None:
        self.plan = plan
        self.pool = plan.frame.embed(rows)

    def find(self, queries: QueryTensors, texts: Sequence[str], size: int) -> PoolRows:
        """The rows that a prompt for one of the queries may come from, as far as they are here.

        Args:
            queries: ``b`` queries, encoded for any part of the pool.
            texts: Their texts.
            size: Neighbours a query.
        """
        pool, settings = self.pool, self.plan.settings
        encoded = self.plan.recode(pool, queries, texts)
        neighbours = find_neighbours(pool.tensors, encoded, size)
        candidates = find_query_candidates(pool.tensors, encoded, neighbours, settings)
        rows = torch.cat([found.index[found.valid] for found in (neighbours, candidates)])
        return PoolRows.take(pool, rows.unique().tolist())

    def search(self, target: Target, queries: QueryTensors, k: int) -> PoolRows:
        """A set of small J among the rows here, for one target.

        Args:
            target: The target, of the whole pool.
            queries: Its queries; rows must serve one of them.
            k: Demonstrations.
        """
        settings = self.plan.settings.for_static_prompt(min(k, len(self.pool.tensors)))
        context = self.plan.calibration.static_context(self.pool, settings)
        rows = solve_target(context, queries, target)
        return PoolRows.take(self.pool, rows[rows >= 0].sort().values.tolist())
