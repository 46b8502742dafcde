"""Prompts for single queries: batches against the similarity product, one query in milliseconds, concurrent calls."""

import asyncio
import itertools

import pytest


@pytest.mark.parametrize("shortlist", [64, 128])
def test_select_batch_500_of_20000(world, compare, multiply_and_rank, shortlist):
    w = world(20_000, 500)
    selector = w.shortlisted(shortlist)
    compare(
        lambda: selector.select_batch(w.queries, vectors=w.q),
        lambda: multiply_and_rank(w.q, w.x, shortlist),
        target=2.0,
    )


def test_select_batch_128_of_100000(world, compare, multiply_and_rank):
    w = world(100_000, 128)
    selector = w.shortlisted(64)
    compare(lambda: selector.select_batch(w.queries, vectors=w.q), lambda: multiply_and_rank(w.q, w.x, 64), target=1.5)


@pytest.mark.parametrize(("n", "milliseconds"), [(1_000, 3), (10_000, 4), (100_000, 18)])
def test_select_one(world, take, n, milliseconds):
    w = world(n, 128)
    selector = w.shortlisted(64)
    places = itertools.cycle(range(len(w.queries)))
    take(lambda: selector.select(w.queries[next(places)]), target=milliseconds / 1000, rounds=60)


def test_64_concurrent_calls_against_one(world, compare):
    w = world(10_000, 128)
    selector = w.shortlisted(64)

    async def ask(count):
        await asyncio.gather(*(selector.aselect(query) for query in w.queries[:count]))

    compare(lambda: asyncio.run(ask(64)), lambda: asyncio.run(ask(1)), target=3.0, rounds=15)
