"""Embeddings on disk: what is embedded, what is read, and what a damaged, shared or full disk does."""

import multiprocessing
import pickle
import sqlite3
import warnings
import zlib
from contextlib import closing

import numpy as np
import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector, EmbeddingError, SentenceTransformerEmbedder, Settings
from kdprompt.pool.embedding_cache import FILE, CachedEmbedder, identify_embedder

TEXTS = [f"text {i}" for i in range(7)]


class Counting:
    """Remembers what it is asked; its two sides differ."""

    def __init__(self, dtype=np.float32):
        self.asked, self.dtype = [], dtype

    def vector(self, text, side):
        return np.random.default_rng([side, *text.encode()]).normal(size=5).astype(self.dtype)

    def embed_documents(self, texts):
        self.asked += texts
        if "bad" in texts:
            raise RuntimeError("cannot")
        return np.array([self.vector(text, 0) for text in texts])

    def embed_query(self, text):
        self.asked.append(text)
        return self.vector(text, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_was_embedded_is_not_embedded_again(tmp_path, dtype):
    inner = Counting(dtype)
    first = CachedEmbedder(inner, tmp_path, name="a").embed_documents(TEXTS)
    again, cached = Counting(dtype), CachedEmbedder(Counting(dtype), tmp_path, name="a")
    cached.embedder = again
    assert torch.equal(cached.embed_documents([*TEXTS[::-1], "new"])[:7], first.flip(0)) and again.asked == ["new"]
    assert first.numpy().dtype == dtype and np.array_equal(first.numpy(), inner.embed_documents(TEXTS))


def test_sides_names_and_texts_have_rows_of_their_own(tmp_path):
    inner = Counting()
    cached, other = (CachedEmbedder(inner, tmp_path, name=name) for name in ("a", "b"))
    document, query = cached.embed_documents(["x"])[0], cached.embed_query("x")
    assert not torch.equal(document, query)
    other.embed_documents(["x"])
    assert inner.asked == ["x", "x", "x"]
    assert torch.equal(cached.embed_queries(["x", "y"])[0], query) and inner.asked[3:] == ["y"]


def test_bfloat16_is_kept_as_float32(tmp_path):
    cached = CachedEmbedder(lambda texts: torch.ones(len(texts), 2, dtype=torch.bfloat16), tmp_path, name="a")
    assert cached.embed_documents(["x"]).dtype is cached.embed_documents(["x"]).dtype is torch.float32


def test_a_row_that_was_changed_is_embedded_again(tmp_path):
    inner = Counting()
    cached = CachedEmbedder(inner, tmp_path, name="a")
    before = cached.embed_documents(TEXTS)
    with sqlite3.connect(tmp_path / FILE) as database:
        key, vector = database.execute("SELECT key, vector FROM vectors").fetchone()
        changed = bytes([vector[0] ^ 1]) + vector[1:]
        database.execute("UPDATE vectors SET vector = ? WHERE key = ?", (changed, key))
    database.close()
    inner.asked.clear()
    assert torch.equal(cached.embed_documents(TEXTS), before) and len(inner.asked) == 1
    inner.asked.clear()
    assert torch.equal(cached.embed_documents(TEXTS), before) and not inner.asked


def floats(*numbers):
    return np.array(numbers, np.float32).tobytes()


@pytest.mark.parametrize(
    "vector",
    [
        None,
        "abcd",
        5,
        b"",
        b"abcde",
        floats(*[np.nan] * 5),
        floats(1, 2, np.inf, 3, 4),
        floats(0, 0, 0, 0, 0),
        floats(1, 2),
        floats(1, 2, 3, 4, 5, 6),
    ],
    ids=repr,
)
def test_a_row_that_is_no_vector_is_embedded_again_and_overwritten(tmp_path, vector, caplog):
    inner = Counting()
    cached = CachedEmbedder(inner, tmp_path, name="a")
    before = cached.embed_documents(TEXTS)
    with sqlite3.connect(tmp_path / FILE) as database:
        (key,) = database.execute("SELECT key FROM vectors").fetchone()
        crc = zlib.crc32(vector if isinstance(vector, bytes) else b"", zlib.crc32(key + b"float32"))
        database.execute("UPDATE vectors SET vector = ?, crc = ? WHERE key = ?", (vector, crc, key))
    database.close()
    inner.asked.clear()
    with caplog.at_level("WARNING", logger="kdprompt"):
        assert torch.equal(cached.embed_documents(TEXTS), before) and len(inner.asked) == 1
    assert [record.getMessage().split(" of ")[0] for record in caplog.records] == ["1 rows"]
    assert torch.equal(cached.embed_documents(TEXTS), before) and len(inner.asked) == 1


def test_no_flipped_bit_makes_a_call_fail_or_changes_a_vector(tmp_path):
    cached = CachedEmbedder(Counting(), tmp_path, name="a")
    before = cached.embed_documents(TEXTS)
    whole = (tmp_path / FILE).read_bytes()
    places = [place for place, byte in enumerate(whole) if byte]
    for n, place in enumerate(places[:: max(len(places) // 150, 1)]):
        for file in tmp_path.iterdir():
            file.unlink()
        (tmp_path / FILE).write_bytes(whole[:place] + bytes([whole[place] ^ (1 << n % 8)]) + whole[place + 1 :])
        with warnings.catch_warnings(action="ignore"):
            assert torch.equal(cached.embed_documents(TEXTS), before), place


@pytest.mark.parametrize(
    "script",
    [
        "DROP TABLE vectors; CREATE VIEW vectors AS SELECT 1 AS key, 'x' AS dtype, 'y' AS vector, 0 AS crc",
        "DROP TABLE vectors; CREATE TABLE vectors (a)",
        "CREATE TRIGGER t BEFORE INSERT ON vectors BEGIN SELECT RAISE(ABORT, 'no'); END; DELETE FROM vectors",
    ],
)
def test_a_database_of_another_kind_costs_the_cache_alone(tmp_path, script):
    cached = CachedEmbedder(Counting(), tmp_path, name="a")
    before = cached.embed_documents(TEXTS)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.executescript(script)
    with pytest.warns(UserWarning, match=r"embeddings are not kept|is damaged"):
        assert torch.equal(cached.embed_documents(TEXTS), before)


def test_a_damaged_file_that_cannot_be_renamed_costs_the_cache_alone(tmp_path):
    cached = CachedEmbedder(Counting(), tmp_path, name="a")
    (tmp_path / FILE).write_bytes(b"no database at all, and longer than a header" * 100)
    (tmp_path / f"{FILE}.damaged").mkdir()
    with pytest.warns(UserWarning, match="could not be renamed .*; delete it"):
        assert cached.embed_documents(TEXTS).shape == (7, 5)


@pytest.mark.parametrize("content", [b"no database at all, and longer than a header" * 100, b"SQLite format 3\0" * 400])
def test_a_file_that_is_damaged_is_set_aside_with_a_word(tmp_path, content):
    inner = Counting()
    cached = CachedEmbedder(inner, tmp_path, name="a")
    (tmp_path / FILE).write_bytes(content)
    with pytest.warns(UserWarning, match=r"is damaged .* was renamed to embeddings\.sqlite3\.damaged"):
        before = cached.embed_documents(TEXTS)
    assert (tmp_path / f"{FILE}.damaged").read_bytes() == content
    inner.asked.clear()
    assert torch.equal(cached.embed_documents(TEXTS), before) and not inner.asked


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(tmp_path):
    (tmp_path / "file").write_text("")
    cached = CachedEmbedder(Counting(), tmp_path / "file" / "below", name="a")
    with pytest.warns(UserWarning, match="embeddings are not kept"):
        assert cached.embed_documents(TEXTS).shape == (7, 5)


def test_what_was_embedded_before_a_failure_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("kdprompt.pool.embedding_cache.CHUNK", 4)
    inner = Counting()
    cached = CachedEmbedder(inner, tmp_path, name="a")
    with pytest.raises(RuntimeError):
        cached.embed_documents([*TEXTS, "bad"])
    inner.asked.clear()
    cached.embed_documents(TEXTS)
    assert inner.asked == TEXTS[4:]


def test_vectors_of_another_width_under_the_same_name_are_refused(tmp_path):
    CachedEmbedder(lambda texts: [[1.0, 2.0]] * len(texts), tmp_path, name="a").embed_documents(["x"])
    with pytest.raises(EmbeddingError, match=r"another width under the name 'a': 2 and 3"):
        CachedEmbedder(lambda texts: [[1.0, 2.0, 3.0]] * len(texts), tmp_path, name="a").embed_documents(["x", "y"])


def _embed(folder, start):
    cached = CachedEmbedder(Counting(), folder, name="a")
    for i in range(start, start + 40):
        cached.embed_documents([f"text {i}", f"text {i + 1}"])


def test_several_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_embed, args=(tmp_path, start)) for start in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    inner = Counting()
    CachedEmbedder(inner, tmp_path, name="a").embed_documents([f"text {i}" for i in range(61)])
    assert inner.asked == []


def test_it_is_an_embedder_that_can_be_pickled(tmp_path):
    examples = [{"input": text, "output": i % 2} for i, text in enumerate(TEXTS)]
    plain = DistillationSelector.from_examples(examples, Counting(), settings=Settings(k=2))
    for _ in range(2):
        cached = pickle.loads(pickle.dumps(CachedEmbedder(Counting(), tmp_path, name="a")))
        made = DistillationSelector.from_examples(examples, cached, settings=Settings(k=2))
        assert made.select("a query").ids == plain.select("a query").ids


def test_a_model_is_known_by_its_name_prompts_and_files(tmp_path):
    names = [identify_embedder(SentenceTransformerEmbedder(name)) for name in (None, "a/b")]
    names.append(identify_embedder(SentenceTransformerEmbedder("a/b", prompt_names=("passage", "query"))))
    (tmp_path / "weights").write_text("one")
    names.append(identify_embedder(SentenceTransformerEmbedder(tmp_path)))
    (tmp_path / "weights").write_text("three")
    names.append(identify_embedder(SentenceTransformerEmbedder(tmp_path)))
    assert len(set(names)) == 5
    with pytest.raises(ValueError, match="give a name with its version"):
        CachedEmbedder(Counting(), tmp_path)


def test_a_row_of_zeros_is_refused_by_the_gate_with_what_helps_word_counts(tmp_path):
    counts = CachedEmbedder(
        CallableEmbedder(lambda texts: [[float("a" in text)] for text in texts]), tmp_path, name="w"
    )
    with pytest.raises(EmbeddingError, match=r"'xyz'.*zeros only.*constant component"):
        counts.embed_documents(["abc", "xyz"])
    assert counts.embed_documents(["abc"]).tolist() == [[1.0]]
