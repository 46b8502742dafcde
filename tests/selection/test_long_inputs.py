"""Inputs longer than the embedder reads: not duplicates where the rest differs, and said in the notes."""

import pytest
import torch

from kdprompt import CachedEmbedder, DistillationSelector, SearchSettings, SentenceTransformerEmbedder, Settings
from kdprompt.pool.unread import find_unread

READ = 150
FORM = "The form was filled in as usual. " * 6


class ShortSighted:
    """Sees the first 150 signs, by their letters."""

    def __init__(self, says_so=True):
        self.looked_at = []
        if says_so:
            self.find_unread = self.look

    def look(self, texts):
        self.looked_at += texts
        return [text[READ:] for text in texts]

    def embed_documents(self, texts):
        return [
            [float(text[:READ].count(letter)) + 0.1 for letter in "abcdefghilmnorstuwy0123456789"] for text in texts
        ]

    embed_queries = embed_documents

    def embed_query(self, text):
        return self.embed_documents([text])[0]


SETTINGS = Settings(k=4, calibrate=False, search=SearchSettings(lexical_share=0.0))
ASKS = ["card lost", "card stolen", "invoice wrong", "login fails", "password reset", "refund late"]


def build(texts, embedder=None):
    pool = [{"input": text, "output": "xy"[i % 2]} for i, text in enumerate(texts)]
    return DistillationSelector.from_examples(pool, embedder or ShortSighted(), settings=SETTINGS)


def test_inputs_that_differ_behind_the_limit_are_shown_together():
    found = build([FORM + ask for ask in ASKS]).select(FORM + "my card")
    assert len(found) == 4
    (note,) = [note for note in found.notes if "longer than the embedding model reads" in note]
    assert "the query and 4 of the inputs shown" in note
    assert len(build([FORM + ask for ask in ASKS], ShortSighted(says_so=False)).select(FORM + "my card")) == 1


def test_inputs_whose_rest_is_alike_stay_duplicates():
    texts = [f"{FORM}{'  ' if i else ''}Same  END" for i in range(2)] + [f"{i}{FORM[1:]}same end" for i in range(4)]
    found = build([*texts, "short 1 abc", "short 2 xyz 999"]).select(FORM + "a query")
    assert sum(len(d.input) > READ for d in found.demonstrations) == 1


def test_a_short_input_and_a_long_one_that_looks_like_it_stay_duplicates():
    begin = FORM[:READ]
    found = build([begin, begin + "and more of it", "012345 xyz", "abc 99999"]).select("012 abc")
    assert sum(d.input.startswith(begin) for d in found.demonstrations) == 1


def test_nothing_is_tokenised_where_texts_are_short_or_differ():
    embedder = ShortSighted()
    found = build(["abc", "abd", "012", "345 long", "yyy"], embedder).select("a query")
    assert embedder.looked_at == [] and not any("longer than" in note for note in found.notes)


def test_each_text_is_looked_at_once():
    embedder = ShortSighted()
    selector = build([FORM + ask for ask in ASKS], embedder)
    selector.select_batch([f"{FORM}query {i}" for i in range(5)])
    pool = [text for text in embedder.looked_at if "query" not in text]
    assert sorted(pool) == sorted(set(pool))


def test_the_real_model_says_where_it_stops(embedder):
    short, long = "word " * 254, "word " * 254 + "behind the limit"
    assert find_unread(embedder, [short, long, "tiny"]) == ["", "behind the limit", ""]
    fresh = SentenceTransformerEmbedder()
    assert find_unread(fresh, [short, long]) == ["", "behind the limit"] and fresh._model is None
    vectors = embedder.embed_documents([long, long.replace("behind", "beyond")])
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(*embedder.embed_documents([short, short[:-6] + "other "]))


def test_a_cache_says_what_its_embedder_does_not_read(tmp_path):
    cached = CachedEmbedder(ShortSighted(), tmp_path, name="a")
    assert find_unread(cached, [FORM]) == [FORM[READ:]]


@pytest.mark.parametrize("k", [2, 4])
def test_a_long_preamble_hides_no_demonstration_from_the_real_model(embedder, k):
    form = " ".join(f"Section {i} of the intake form was filled in as usual." for i in range(40))
    pool = [{"input": f"{form} Problem: {ask} {i}", "output": ask.split()[0]} for i in range(2) for ask in ASKS]
    selector = DistillationSelector.from_examples(pool, embedder, settings=Settings(k=k, calibrate=False))
    assert len(selector.select(f"{form} Problem: my card was stolen")) == k
