"""Candidates: the rows of the pool over which J is searched."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.pool.neighbours import Neighbours, take_nearest, take_nearest_in_turn
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors, find_allowed_rows
from kdprompt.selection.quota import output_limits
from kdprompt.settings import Quota, Settings
from kdprompt.theory.point_pairs import multiply_with_all

__all__ = ["Candidates", "find_query_candidates", "find_similar", "find_static_candidates"]


@dataclass(frozen=True)
class Candidates:
    """The candidates of ``b`` problems.

    Attributes:
        index: Rows of the pool ``[b, L]``: first the prefix, then in the order of ids.
        valid: Which of them may be chosen ``[b, L]``.
        prefix_length: How many of the first are in every set already.
    """

    index: Tensor
    valid: Tensor
    prefix_length: int = 0

    def with_prefix(self, prefix: Tensor) -> "Candidates":
        """The same with the rows ``prefix: [c]`` in every set, in this order; they are not chosen once more."""
        if not len(prefix):
            return self
        repeated = (self.index[..., None] == prefix).any(-1)
        index = torch.cat([prefix.expand(len(self.index), -1), self.index], -1)
        not_chosen = torch.zeros_like(index[:, : len(prefix)], dtype=torch.bool)
        return Candidates(index, torch.cat([not_chosen, self.valid & ~repeated], -1), len(prefix))


def find_similar(pool: PoolTensors, queries: QueryTensors, index: Tensor, least: float) -> Tensor:
    """Which rows ``index: [b, L]`` are at least so similar to their queries, boolean ``[b, L]``."""
    return (pool.take_inputs(index) @ queries.q[..., None]).squeeze(-1) >= least


def find_query_candidates(
    pool: PoolTensors, queries: QueryTensors, neighbours: Neighbours, settings: Settings
) -> Candidates:
    """The nearest rows of each query and, where a quota asks for an output, the nearest rows with that output.

    Those that are not similar enough to their query may not be chosen.
    """
    found = Candidates(neighbours.index, neighbours.valid)
    if settings.quota is not None:
        found = _add_demanded_outputs(pool, queries, found, settings.quota)
    least = settings.search.min_similarity
    if least is None:
        return found
    return replace(found, valid=found.valid & find_similar(pool, queries, found.index, least))


def _add_demanded_outputs(pool: PoolTensors, queries: QueryTensors, nearest: Candidates, quota: Quota) -> Candidates:
    """With the nearest rows of each output that the quota asks for."""
    index, valid = [nearest.index], [nearest.valid]
    limits = output_limits(pool, quota)
    if any(limits.least):
        similarity = multiply_with_all(queries.q, pool.x).masked_fill(~find_allowed_rows(pool, queries), -torch.inf)
        for code, least in enumerate(limits.least):
            if not least:
                continue
            with_output = similarity.masked_fill(limits.code != code, -torch.inf)
            top, may_serve = take_nearest(with_output, min(least, len(pool)), pool.rank)
            is_new = ~(top[..., None] == nearest.index[:, None, :]).any(-1)
            index.append(top)
            valid.append(may_serve & is_new)
    all_index, all_valid = torch.cat(index, -1), torch.cat(valid, -1)
    order = torch.where(all_valid, pool.place(all_index), len(pool.x)).argsort(dim=-1, stable=True)
    return Candidates(all_index.gather(-1, order), all_valid.gather(-1, order))


def find_static_candidates(pool: PoolTensors, queries: QueryTensors, size: int) -> Candidates:
    """Rows for one prompt that serves many queries: all that may serve one of them, or the nearest of each in turn.

    Args:
        pool: ``n`` rows.
        queries: ``m`` of them; their own texts are not left out, for the prompt serves others too.
        size: Most rows.

    Returns:
        One problem with at most ``size`` candidates; with one that may not be chosen, where no row may serve a query.
    """
    no_text = torch.full_like(queries.excluded_text, -1)
    allowed = find_allowed_rows(pool, replace(queries, excluded_text=no_text))
    served = allowed.any(0)
    if int(served.sum()) <= size:
        rows = served.nonzero().squeeze(-1)
    else:
        similarity = multiply_with_all(queries.q, pool.x).masked_fill(~allowed, -torch.inf)
        rows = torch.tensor(take_nearest_in_turn(similarity, size, pool.rank), device=pool.x.device)
    rows = pool.sort_rows(rows) if len(rows) else pool.living[:1]
    return Candidates(rows[None], served[rows][None])
