"""Data sets, stress suites, metrics: what goes into a benchmark."""

import json
from collections import Counter
from itertools import pairwise

import pytest
import torch

from kdprompt.errors import PoolError
from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.evaluate.embedding_cache import EmbeddingCache
from kdprompt.evaluate.lsa import LatentSemanticEmbedder
from kdprompt.evaluate.metrics import exact_match, label_accuracy, token_f1
from kdprompt.evaluate.suites import add_duplicates, add_label_noise, apply_suite, mix_datasets, unbalance_outputs
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Query
from kdprompt.resources import support_desk


def made(name: str = "letters", size: int = 200, outputs: str = "abcd") -> Dataset:
    rows = [{"input": f"{name} {i}", "output": outputs[i % len(outputs)]} for i in range(size)]
    cases = tuple(Case(Query(text=f"{name} asked {i}"), outputs[i % len(outputs)]) for i in range(12))
    return Dataset(name, Pool.from_records(rows), tuple(c.query for c in cases[:6]), cases[:6], cases[6:])


def write(folder, **parts: list[dict]) -> None:
    for part, rows in parts.items():
        (folder / f"toy.{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# -- reading ------------------------------------------------------------------------------------------------------


def test_three_files_make_a_data_set(tmp_path):
    rows = [{"input": f"{part} {i}", "output": "ab"[i % 2]} for part in ("pool", "dev", "test") for i in range(6)]
    write(tmp_path, pool=rows[:6], dev=rows[6:12], test=rows[12:])
    found = Dataset.from_prefix(tmp_path / "toy")
    assert (found.name, len(found.pool), len(found.dev), len(found.test)) == ("toy", 6, 6, 6)
    assert found.labels == ("a", "b") and [query.text for query in found.traffic] == [r["input"] for r in rows[6:12]]
    assert found.test[1].output == "b" and not hasattr(found.test[1].query, "output")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["test"].append(rows["pool"][0]), "'pool 0' stands in pool and in test"),
        (lambda rows: rows["dev"].append({"input": "dev new"}), "'dev new' has no output"),
        (lambda rows: rows.pop("dev"), "no such file: .*toy.dev.jsonl"),
    ],
)
def test_what_is_wrong_with_the_files_is_named(tmp_path, change, message):
    rows = {part: [{"input": f"{part} {i}", "output": "a"} for i in range(3)] for part in ("pool", "dev", "test")}
    change(rows)
    write(tmp_path, **rows)
    with pytest.raises(PoolError, match=message):
        Dataset.from_prefix(tmp_path / "toy")


def test_free_text_is_no_label_set():
    rows = [{"input": f"question {i}", "output": f"answer {i}"} for i in range(30)]
    assert Dataset("free", Pool.from_records(rows), (), (), ()).labels is None


def test_embeddings_are_made_once(tmp_path, embedder):
    class Counting:
        asked = 0

        def embed_documents(self, texts):
            self.asked += len(texts)
            return embedder.embed_documents(texts)

        embed_query = None

    counting, texts = Counting(), [d.input for d in support_desk()][:8]
    cache = EmbeddingCache(counting, name="minilm", folder=tmp_path)
    first = cache([*texts, texts[0]])
    assert counting.asked == 8 and torch.equal(first[0], first[8])
    again = EmbeddingCache(counting, name="minilm", folder=tmp_path)
    assert torch.equal(again(texts), first[:8]) and torch.equal(again(texts[:2]), first[:2]) and counting.asked == 8
    assert torch.allclose(first.norm(dim=-1), torch.ones(9))


def test_a_second_embedder_needs_no_weights():
    texts = [d.input for d in support_desk()]
    embedder = LatentSemanticEmbedder(texts, dimensions=32)
    vectors = embedder.embed_documents([*texts[:4], "zzz"])
    assert vectors.shape == (5, 32) and bool((vectors.norm(dim=-1) > 0).all())
    assert torch.equal(embedder.embed_query(texts[0]), vectors[0])
    few = LatentSemanticEmbedder(["a red card", "the red card", "a blue pen", "the blue pen"])
    assert 2 <= few.embed_query("red card").numel() < 256


# -- stress -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.4, 1.0])
def test_noise_flips_exactly_its_share_and_always_to_a_wrong_output(rate):
    clean = made()
    noisy = add_label_noise(clean, rate)
    flipped = sum(a.output != b.output for a, b in zip(clean.pool, noisy.pool, strict=True))
    assert flipped == round(rate * 200) and noisy.test == clean.test and noisy.suite == f"noise={rate:g}"
    assert [d.output for d in add_label_noise(clean, rate).pool] == [d.output for d in noisy.pool]
    assert {d.output for d in noisy.pool} <= set("abcd")


def test_duplicates_are_copies_with_ids_of_their_own():
    found = add_duplicates(made(), 0.1)
    assert len(found.pool) == 220 and len({d.id for d in found.pool}) == 220
    assert sorted(Counter((d.input, d.output) for d in found.pool).values()) == [1] * 180 + [2] * 20


@pytest.mark.parametrize("ratio", [1.0, 5.0, 20.0])
def test_imbalance_reaches_its_ratio(ratio):
    counts = sorted(Counter(d.output for d in unbalance_outputs(made(size=400), ratio).pool).values())
    assert counts[-1] / counts[0] == pytest.approx(ratio) and len(counts) == 4
    steps = [b / a for a, b in pairwise(counts)]
    assert steps == pytest.approx([ratio ** (1 / 3)] * 3, rel=0.15)


@pytest.mark.parametrize("told", ["tags", "outputs", "nothing"])
def test_mixed_pools_say_what_they_are_told_to(told):
    parts = mix_datasets([made("one", outputs="ab"), made("two", outputs="cd")], told)
    for part, name, outputs in zip(parts, ("one", "two"), ("ab", "cd"), strict=True):
        assert len(part.pool) == 400 and part.labels == ("a", "b", "c", "d") and part.suite == f"mixed={told}"
        for case in part.test:
            assert case.task == name
            assert case.query.task == (name if told == "tags" else None)
            assert case.query.outputs == (frozenset(outputs) if told == "outputs" else None)
        assert all((d.task is not None) == (told == "tags") for d in part.pool)
        assert Counter(d.fields["task"] for d in part.pool) == {"one": 200, "two": 200}


def test_suites_by_name():
    two = [made("one"), made("two")]
    assert [d.suite for d in apply_suite(two, "clean")] == ["clean", "clean"]
    assert [d.suite for d in apply_suite(two, "noise")] == ["noise=0.3"] * 2
    assert [d.suite for d in apply_suite(two, "imbalance=5")] == ["imbalance=5"] * 2
    assert [d.suite for d in apply_suite(two, "mixed=tags")] == ["mixed=tags"] * 2
    with pytest.raises(ValueError, match="no suite 'nois'; there are clean, mixed, noise"):
        apply_suite(two, "nois=0.1")
    with pytest.raises(ValueError, match="takes a number, got 'much'"):
        apply_suite(two, "noise=much")
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got 3.0"):
        apply_suite(two, "noise=3")
    with pytest.raises(ValueError, match="at least two data sets, got 1"):
        apply_suite(two[:1], "mixed=tags")
    with pytest.raises(ValueError, match="got 'tag'"):
        apply_suite(two, "mixed=tag")


# -- metrics ------------------------------------------------------------------------------------------------------


def test_metrics():
    assert label_accuracy("Card  Arrival ", "card arrival") == 1.0 and label_accuracy("card", "card arrival") == 0.0
    assert exact_match("The  cat.", "cat") == 1.0 and exact_match("a dog", "cat") == 0.0
    assert token_f1("the cat sat", "a cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    assert token_f1("", "") == 1.0 and token_f1("", "x") == 0.0 and token_f1("x", "y") == 0.0
    assert token_f1("no no no", "no") == pytest.approx(2 * 1 / 4)
