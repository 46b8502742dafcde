"""The position profile ω of R7, measured: how a model's attention falls on the places of a prompt."""

from collections.abc import Sequence
from typing import Any

import torch

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.probe.heads import probe
from kdprompt.search.position_profiles import MeasuredProfile

__all__ = ["calibrate_position_profile"]


def calibrate_position_profile(  # noqa: PLR0913 - a model, what it reads, and how much of it
    model: Any,
    tokenizer: Any,
    demonstrations: Sequence[Demonstration],
    queries: Sequence[str],
    *,
    orders: int = 8,
    template: PromptTemplate | None = None,
    seed: int = 0,
) -> MeasuredProfile:
    """Measures ω: the attention mass of each place, over random orders, so that who stands there averages out.

    Args:
        model: A causal LM of transformers.
        tokenizer: Its fast tokenizer.
        demonstrations: k of them, k ≥ 1; every prompt shows them all.
        queries: Asked in turn, at least one.
        orders: Random orders of the demonstrations a query.
        template: How prompts are written.
        seed: Of the orders.

    Returns:
        The profile, for ``ByObjective(profile=…)`` and ``NearestLast(profile=…)``; mean over layers, heads, queries and
        orders, summing to 1.

    Raises:
        ValueError: There are no demonstrations or no queries, or as ``probe``.
    """
    if not demonstrations or not queries or orders < 1:
        raise ValueError(
            f"a profile needs demonstrations, queries and orders, got {len(demonstrations)}, {len(queries)}, {orders}"
        )
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(demonstrations), dtype=torch.float64)
    for query in queries:
        for _ in range(orders):
            order = torch.randperm(len(demonstrations), generator=generator).tolist()
            shown = [demonstrations[i] for i in order]
            total += probe(model, tokenizer, shown, query, template=template).mass.mean(0).double().cpu()
    return MeasuredProfile(tuple((total / total.sum()).tolist()))
