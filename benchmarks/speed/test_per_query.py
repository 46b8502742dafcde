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


def test_select_batch_1024_of_100000(world, compare, multiply_and_rank):
    w = world(100_000, 1_024)
    selector = w.shortlisted(64)
    compare(lambda: selector.select_batch(w.queries, vectors=w.q), lambda: multiply_and_rank(w.q, w.x, 64), target=2.0)


def test_select_batch_10000_of_100000(world, compare, take, multiply_and_rank, device):
    """Against the product; on an accelerator, where all queries are there at once, in seconds."""
    w = world(100_000, 10_000)
    selector = w.shortlisted(64)

    def select():
        selector.select_batch(w.queries, vectors=w.q)

    if device == "cpu":
        compare(select, lambda: multiply_and_rank(w.q, w.x, 64), target=1.5, rounds=1, warm=0)
    else:
        take(select, target=2.0)


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


def test_select_batch_against_maximal_marginal_relevance_of_langchain(world, compare):
    """Prompts of 1,000 queries from 10,000 examples; LangChain's selector is asked for four of them, one by one."""
    core = pytest.importorskip("langchain_core", reason="pip install langchain-core")
    from langchain_core.example_selectors import MaxMarginalRelevanceExampleSelector

    class Embeddings(core.embeddings.Embeddings):
        def embed_documents(self, texts):
            return w.embed(texts).tolist()

        def embed_query(self, text):
            return self.embed_documents([text])[0]

    w, few = world(10_000, 1_000), 4
    selector = w.shortlisted(64)
    store = core.vectorstores.InMemoryVectorStore(Embeddings())
    store.add_texts([example.input for example in w.pool])
    theirs = MaxMarginalRelevanceExampleSelector(vectorstore=store, k=8, fetch_k=20)
    compare(
        lambda: selector.select_batch(w.queries, vectors=w.q),
        lambda: [theirs.select_examples({"input": query}) for query in w.queries[:few]],
        target=len(w.queries) / few / 500,
        rounds=3,
        warm=1,
    )
