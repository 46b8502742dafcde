"""What the tests of the harness share: its vectors, and a small data set with a pool of support messages."""

import pytest

from kdprompt.evaluate import EmbeddingCache
from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Query
from kdprompt.resources import support_desk, support_desk_queries

QUERIES = 6


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    pool = Pool(d for d in support_desk() if d.task == "support")
    cases = tuple(Case(Query(text=row["input"]), row["output"]) for row in support_desk_queries())
    return Dataset("desk", pool, tuple(case.query for case in cases[QUERIES:]), cases[QUERIES:], cases[:QUERIES])


@pytest.fixture(scope="module")
def embed(embedder) -> EmbeddingCache:
    return EmbeddingCache(embedder, name="minilm")
