"""What a prompt costs: texts are embedded once, neighbours are looked up once."""

import pytest

from kdprompt import DistillationSelector
from kdprompt.selection import per_query, static
from tests.support import make_settings

EXAMPLES = [{"input": f"{'abc'[i % 3]} {i}", "output": ("red", "green", "blue")[i % 3]} for i in range(40)]
QUERIES = ["a new one", "b new one", "c new one"]


class Letters:
    """Texts that begin alike lie together; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def embed_documents(self, texts):
        self.asked += texts
        return [[float(text.startswith(letter)) for letter in "abc"] + [len(text) / 20] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


@pytest.fixture
def embedder():
    return Letters()


@pytest.fixture
def selector(embedder):
    made = DistillationSelector.from_examples(EXAMPLES, embedder, queries=QUERIES, settings=make_settings(k=3))
    embedder.asked.clear()
    return made


@pytest.fixture
def looked_up(monkeypatch):
    """For each look-up of neighbours, of how many queries."""
    calls = []

    def count(find):
        def counted(pool, encoded, *more):
            calls.append(len(encoded.task))
            return find(pool, encoded, *more)

        return counted

    for module in (per_query, static):
        monkeypatch.setattr(module, "find_neighbours", count(module.find_neighbours))
    return calls


@pytest.mark.parametrize("method", ["select", "explain"])
def test_a_query_is_embedded_once_and_its_neighbours_are_looked_up_once(selector, embedder, looked_up, method):
    getattr(selector, method)("b anything")
    assert embedder.asked == ["b anything"] and looked_up == [1]


def test_a_batch_is_embedded_once_and_its_neighbours_are_looked_up_once(selector, embedder, looked_up):
    selector.select_batch(QUERIES)
    assert embedder.asked == QUERIES and looked_up == [3]


@pytest.mark.parametrize("method", ["select_static", "explain"])
def test_for_a_static_prompt_the_neighbours_of_its_sample_are_looked_up_once(selector, embedder, looked_up, method):
    getattr(selector, method)()
    assert embedder.asked == [] and looked_up == [3]  # the sample was embedded at construction
