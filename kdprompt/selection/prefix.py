"""The prefix: demonstrations that stand first in every prompt, so that a provider can cache what it has read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.errors import PoolError, QueryError
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.result import Selection
from kdprompt.settings import Settings

__all__ = ["Prefix", "PrefixGroup", "find_prefix_rows", "group_by_prefix", "list_ids"]

Prefix = Selection | Sequence[str]


@dataclass(frozen=True)
class PrefixGroup:
    """Queries whose prompts begin with the same demonstrations.

    Attributes:
        queries: Places of the queries ``[b]``.
        prefix: Rows of the pool ``[c]``; none for an empty prefix.
    """

    queries: Tensor
    prefix: Tensor


def list_ids(prefix: Prefix) -> tuple[str, ...]:
    """The ids of a prefix.

    Raises:
        QueryError: It is one text.
    """
    if isinstance(prefix, str):
        raise QueryError(f"prefix must be a selection or several ids, got the text {prefix!r}; wrap it in a list")
    return prefix.ids if isinstance(prefix, Selection) else tuple(prefix)


def find_prefix_rows(pool: EmbeddedPool, ids: Sequence[str], settings: Settings) -> Tensor:
    """The rows of the pool's tensors of the demonstrations that every prompt begins with ``[c]``; c = 0 without one.

    Raises:
        PoolError: The pool has no such id.
        QueryError: There are more than k, or more than the budget holds, or one twice.
    """
    if len(ids) > settings.largest_k:
        raise QueryError(f"the prefix must hold at most k = {settings.largest_k} demonstrations, got {len(ids)}")
    rows = [pool.find_row(ident) for ident in ids]
    for place, row in enumerate(rows):
        if row in rows[:place]:
            twice = pool.demonstration(row).id
            raise QueryError(f"the prefix holds the example {twice!r} twice; give each example once")
    spent = sum(pool.count_tokens(row, settings) for row in rows) if settings.budget is not None else 0
    if spent > (settings.budget or 0):
        raise QueryError(f"the prefix takes {spent} tokens, more than the budget of {settings.budget}; shorten it")
    return torch.tensor(rows, dtype=torch.long, device=pool.tensors.x.device)


def group_by_prefix(
    pool: EmbeddedPool, queries: QueryTensors, settings: Settings, given: Prefix | None, calibrated: Sequence[str]
) -> list[PrefixGroup]:
    """Which queries get which prefix.

    Args:
        pool: The pool.
        queries: The queries.
        settings: k and the budget.
        given: The prefix for all queries; None takes the calibrated one.
        calibrated: Ids that a reader chose. They serve the queries that permit their outputs and do not stand in them;
            none, if one of them left the pool, or k or the budget shrank.

    Raises:
        PoolError, QueryError: The prefix that is given cannot stand, as ``find_prefix_rows``.
    """
    everyone = torch.arange(len(queries), device=queries.q.device)
    if given is not None:
        return [PrefixGroup(everyone, find_prefix_rows(pool, list_ids(given), settings))]
    prefix = _find_usable_rows(pool, calibrated, settings)
    if not len(prefix):
        return [PrefixGroup(everyone, prefix)]
    serves = ~(queries.excluded_text[:, None] == pool.tensors.text[prefix]).any(-1)
    if queries.permitted is not None:
        label = pool.tensors.label[prefix]
        serves &= (queries.permitted[:, label.clamp_min(0)] & (label >= 0)).all(-1)
    groups = (PrefixGroup(everyone[serves], prefix), PrefixGroup(everyone[~serves], prefix[:0]))
    return [group for group in groups if len(group.queries)]


def _find_usable_rows(pool: EmbeddedPool, ids: Sequence[str], settings: Settings) -> Tensor:
    try:
        return find_prefix_rows(pool, ids, settings)
    except (PoolError, QueryError):
        return find_prefix_rows(pool, (), settings)
