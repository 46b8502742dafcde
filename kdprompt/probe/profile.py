"""The position profile ω of R7, measured: how a model's attention is spread over the positions of a prompt."""

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
    """Measures ω: the attention mass of each position, averaged over random orders of the demonstrations.

    The average over orders removes the influence of the demonstrations themselves.

    Args:
        model: A causal language model of transformers, as ``probe`` takes it.
        tokenizer: Its fast tokenizer.
        demonstrations: k of them, k ≥ 1; every prompt shows them all.
        queries: One prompt per query and order, at least one query.
        orders: Random orders of the demonstrations per query, at least 1.
        template: How prompts are written; None takes the default.
        seed: Seed of the random orders.

    Returns:
        The profile, for ``ByObjective(profile=…)`` and ``NearestLast(profile=…)``: the mean over layers, heads, queries
        and orders, which sums to 1.

    Raises:
        ValueError: There are no demonstrations, queries or orders, or as ``probe`` raises it.
        TypeError: The tokenizer does not know where its tokens come from.
    """
    if not demonstrations or not queries or orders < 1:
        raise ValueError(
            f"a profile needs demonstrations, queries and orders, got {len(demonstrations)}, {len(queries)}, {orders}"
        )
    generator = torch.Generator().manual_seed(seed)
    mass = torch.zeros(len(demonstrations), dtype=torch.float64)
    for query in queries:
        for _ in range(orders):
            order = torch.randperm(len(demonstrations), generator=generator).tolist()
            prompt_probe = probe(model, tokenizer, [demonstrations[i] for i in order], query, template=template)
            mass += prompt_probe.mass.mean(0).double().cpu()
    return MeasuredProfile(tuple((mass / mass.sum()).tolist()))
