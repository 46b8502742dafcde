"""Prompts from a pool in shards: the shards are asked for rows, and J is searched over what they give. No Ray here."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kdprompt.distributed.shard import ShardPlan
from kdprompt.objective.target import Target
from kdprompt.pool.embedding import embed_queries
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.pool.records import Query
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.embedded_pool import AnyQuery
from kdprompt.selection.pool_part import PoolRows
from kdprompt.selection.pool_size import check_size
from kdprompt.selection.result import Selection
from kdprompt.selection.shortage import LONGEST
from kdprompt.selection.static import account_for_sample, find_sample_target, solve_target
from kdprompt.selection.traffic import QuerySample, Traffic, TrafficRequest, sample_queries
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from kdprompt.tuning.static_choice import StaticChoice

__all__ = ["AskShards", "ShardedSearch"]

AskShards = Callable[..., Sequence[PoolRows]]
LONGER = 4  # times as many neighbours where the nearest are copies of one another
OVERSAMPLE = 4  # times k: demonstrations of each shard among which the last round chooses


class ShardedSearch:
    """Chooses prompts from a pool that nobody holds whole.

    Args:
        plan: What all shards share.
        ask: Calls a method of every shard, by name and with arguments, and returns all answers.
    """

    def __init__(self, plan: ShardPlan, ask: AskShards) -> None:
        self.plan = plan
        self._ask = ask
        self._any_part = plan.assemble([])

    def choose(
        self, queries: Iterable[AnyQuery], task: str | None = None, outputs: Iterable[str] | None = None
    ) -> list[Selection]:
        """Chooses for each query, as ``DistillationSelector.select_batch`` on the whole pool.

        A query whose prompt took what is not among its nearest examples, or is short, is asked for again with more of
        them: what lies further off has to be known of every shard.
        """
        settings, distinct = self.plan.settings, self.plan.distinct
        parsed = self._any_part.parse_queries(queries, task, outputs)
        if not parsed:
            return []
        vectors = embed_queries(self._any_part.embedder, [query.text for query in parsed])
        size = max(settings.search.shortlist, 0 if settings.k == "auto" else settings.k)
        chosen: dict[int, Selection] = {}
        places = list(range(len(parsed)))
        while places:
            batch, has_all = self._choose_among([parsed[place] for place in places], vectors[places], size)
            chosen |= zip(places, batch, strict=True)
            is_last = size >= distinct or size * LONGER > LONGEST
            places = [] if is_last else [place for place, done in zip(places, has_all, strict=True) if not done]
            size *= LONGER
        return [chosen[place] for place in range(len(parsed))]

    def _choose_among(self, queries: Sequence[Query], vectors: Tensor, size: int) -> tuple[list[Selection], list[bool]]:
        """Prompts from the ``size`` nearest examples of each query, and whether these were enough."""
        plan, texts = self.plan, tuple(query.text for query in queries)
        encoded = self._any_part.encode(queries, plan.settings, vectors)
        pool = plan.assemble(self._ask("find", encoded, texts, size))
        batch = DistillationSelector(pool, plan.settings, None, plan.calibration).select_batch(queries, vectors=vectors)
        nearest = find_neighbours(pool.tensors, plan.recode(pool, encoded, texts), size).index.tolist()
        return batch, [self._is_among(pool.tensors.rows.ids, *pair) for pair in zip(batch, nearest, strict=True)]

    def _is_among(self, ids: Sequence[str], selection: Selection, nearest: Sequence[int]) -> bool:
        """Whether a prompt is as long as it should be and holds none but its nearest rows."""
        k = self.plan.settings.k
        behind = selection.ids[selection.prefix_length :]
        return (k == "auto" or len(selection.ids) == k) and {ids[row] for row in nearest}.issuperset(behind)

    def choose_static(
        self,
        traffic: Traffic,
        request: TrafficRequest,
        k: int | Literal["auto"] | None = None,
        stands_in: Sequence[str] = (),
    ) -> Selection:
        """One prompt for many queries: each shard finds ``4·k`` examples, among which J decides.

        Args:
            traffic: Queries where none are asked for.
            request: Which queries are asked for.
            k: Demonstrations; None takes the settings'.
            stands_in: Where the pool's own inputs stand for the traffic: the notes that say so.
        """
        settings = self.plan.settings.for_static_prompt(k)
        check_size(self._any_part.pool, self.plan.distinct, settings)
        sample = self._draw(traffic, request, settings, stands_in)
        near = self._ask("find", sample.encoded, sample.texts, settings.search.shortlist)
        merge = _StaticMerge(self.plan, sample, settings, near)
        target = merge.estimate_target()
        most = OVERSAMPLE * settings.largest_k
        return merge.merge(target, self._ask("search", target, sample.encoded, most)).select()

    def _draw(
        self, traffic: Traffic, request: TrafficRequest, settings: Settings, stands_in: Sequence[str]
    ) -> QuerySample:
        """The queries that a static prompt is to serve, encoded for any part of the pool."""
        if request.queries is not None or not stands_in:
            return sample_queries(self._any_part, traffic, settings, request)
        if request.task is not None:
            kept = [place for place, query in enumerate(traffic.queries) if query.task == request.task]
            traffic = Traffic(tuple(traffic.queries[place] for place in kept), traffic.vectors[kept])
        sample = sample_queries(self._any_part, traffic, settings, request)
        return replace(sample, from_pool=True, notes=(*stands_in, *sample.notes))


@dataclass(frozen=True)
class _StaticMerge:
    """One prompt for a sample of queries, in two rounds: each shard gives a few rows, among which J decides.

    Attributes:
        plan: What all shards share.
        sample: The queries, encoded for any part of the pool.
        settings: Those of static prompts.
        near: Rows near to the queries, from all shards: the queries' outputs are estimated by these.
    """

    plan: ShardPlan
    sample: QuerySample
    settings: Settings
    near: Sequence[PoolRows]

    def estimate_target(self) -> Target:
        """The target that every shard searches for."""
        context, sample = self._lay_out(self.near)
        return find_sample_target(context, sample.encoded)

    def merge(self, target: Target, found: Sequence[PoolRows]) -> StaticChoice:
        """The prompt of small J among what the shards found."""
        context, sample = self._lay_out([*self.near, *found])
        pool = context.pool
        rows = sorted({pool.find_row(shown.id) for part in found for shown in part.demonstrations})
        among = torch.tensor(rows, dtype=torch.long, device=pool.tensors.x.device)
        chosen = solve_target(context, sample.encoded, target, among)
        return StaticChoice(context, account_for_sample(context, sample, chosen))

    def _lay_out(self, parts: Sequence[PoolRows]) -> tuple[SelectionContext, QuerySample]:
        """A pool of these rows with J, and the sample encoded for it."""
        pool = self.plan.assemble(parts)
        encoded = self.plan.recode(pool, self.sample.encoded, self.sample.texts)
        return self.plan.calibration.static_context(pool, self.settings), replace(self.sample, encoded=encoded)
