"""What 64 concurrent ``aselect`` calls cost, in calls that come alone: ``pytest benchmarks/test_concurrent_calls.py``.

A ratio of two times on one machine, measured in turn. It stands here and not in the tests since a busy machine may
upset it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from kdprompt import CallableEmbedder, DistillationSelector, SearchSettings, Settings
from langchain_kdprompt import DistillationExampleSelector

WIDTH = 6
QUERIES = [f"{'abc'[i % 3]} query {i}" for i in range(64)]


class OneByOne:
    """An embedder of single queries; texts that begin alike lie together."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """One vector per text."""
        return np.array([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> NDArray[np.float64]:
        """The first letter's centre and some noise."""
        centre = np.random.default_rng(ord(text[0])).normal(size=WIDTH)
        return centre + 0.4 * np.random.default_rng(list(text.encode())).normal(size=WIDTH)


class Batched(OneByOne):
    """The same, for many queries at once."""

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """One vector per text."""
        return self.embed_documents(texts)


async def measure_cost(selector: DistillationSelector, bound: float) -> float:
    """The least time of 64 concurrent calls over the least time of one; stops early where it is well below a bound."""

    async def measure(count: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(selector.aselect(query) for query in QUERIES[:count]))
        return time.perf_counter() - start

    return await compare_costs(measure, bound)


async def compare_costs(measure: Callable[[int], Awaitable[float]], bound: float) -> float:
    """The least of what 64 take over the least of what one takes, measured in turn."""
    await measure(64)
    alone, together = list[float](), list[float]()
    for turn in range(40):
        alone += [await measure(1), await measure(1)]
        together.append(await measure(64))
        if turn >= 4 and min(together) < 0.9 * bound * min(alone):
            break
    return min(together) / min(alone)


@pytest.mark.parametrize(
    ("embedder", "shortlist", "bound"),
    [(Batched(), 16, 4), (Batched(), 64, 8), (OneByOne(), 64, 16)],  # served one by one it would be 64
    ids=["batched-16", "batched-64", "one-by-one-64"],
)
def test_64_calls_at_once_cost_few_calls(embedder: OneByOne, shortlist: int, bound: float) -> None:
    """The arithmetic of a long shortlist grows with the batch; the other costs of a call are paid once per pass."""
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": ("red", "green", "blue")[i % 3]} for i in range(500)]
    settings = Settings(k=4, search=SearchSettings(shortlist=shortlist))
    selector = DistillationSelector.from_examples(examples, embedder, settings=settings)
    ratio = asyncio.run(asyncio.wait_for(measure_cost(selector, bound), 300))
    assert ratio < bound, f"64 concurrent calls cost {ratio:.2f} calls"


def test_64_langchain_calls_at_once_cost_few_calls() -> None:
    """The adapter's ``aselect_examples`` shares passes as ``aselect`` does: its bound at a shortlist of 64."""
    examples = [{"message": f"{'abc'[i % 3]} {i}", "label": ("red", "green", "blue")[i % 3]} for i in range(60)]
    vectors = {text: OneByOne().embed_query(text) for text in [*QUERIES, *(example["message"] for example in examples)]}
    embedder = CallableEmbedder(lambda texts: [vectors[text] for text in texts])
    selector = DistillationExampleSelector.from_examples(examples, embedder, k=4, input_keys=["message"])

    async def measure(count: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(selector.aselect_examples({"message": query}) for query in QUERIES[:count]))
        return time.perf_counter() - start

    ratio = asyncio.run(asyncio.wait_for(compare_costs(measure, 8), 300))
    assert ratio < 8, f"64 concurrent calls cost {ratio:.2f} calls"
