"""An approximate look-up by FAISS, against the exact one."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector, PoolError, SearchSettings, Settings
from kdprompt.pool.row_index import RowIndex

pytest.importorskip("faiss")
WIDTH = 16


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cluster(n, seed=0):
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(20, WIDTH)))
    return unit(centres[rng.integers(20, size=n)] + 0.4 * rng.normal(size=(n, WIDTH)) / WIDTH**0.5)


VECTORS = cluster(3_200)
TEXTS = {f"text {i}": VECTORS[i] for i in range(len(VECTORS))}


def embed(texts):
    return np.stack([TEXTS[text] for text in texts]).astype("float32")


EMBEDDER = CallableEmbedder(embed)


def examples(rows):
    return [{"input": f"text {i}", "output": "ab"[i % 2], "id": f"n{i}"} for i in rows]


@pytest.fixture
def selector():
    """2,000 examples; queries are the texts from 3,000 on."""
    settings = Settings(k=4, search=SearchSettings(shortlist=32), calibrate=False)
    return DistillationSelector.from_examples(examples(range(2_000)), EMBEDDER, settings=settings)


QUERIES = [f"text {i}" for i in range(3_000, 3_100)]


def choose(selector, queries=QUERIES, **changed):
    return [selection.ids for selection in selector.select_batch(queries, **changed)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recall", [0.5, 0.9, 0.99])
def test_so_much_of_the_nearest_rows_is_found_as_was_asked_for(recall, dtype):
    x, q = (torch.as_tensor(VECTORS[a:b], dtype=dtype) for a, b in ((0, 3_000), (3_000, 3_200)))
    index = RowIndex.build(x, 20, recall, 0)
    assert recall <= index.report.recall <= 1 and index.report.probes <= index.report.lists
    value, rows = index.search(x, q, 20)
    there = value > -torch.inf  # one cluster may hold fewer
    assert value.dtype == dtype and (value.sort(dim=-1, descending=True).values == value).all()
    similarity = torch.einsum("bd,bld->bl", q, x[rows])
    np.testing.assert_allclose(value[there], similarity[there], atol=1e-6)  # exact, whatever is found
    rows = rows.masked_fill(~there, -1)
    exact = (q @ x.T).topk(20).indices
    found = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(rows.tolist(), exact.tolist(), strict=True)])
    assert found >= recall - 0.08  # of other queries than those it was measured on


def test_a_smaller_recall_looks_into_fewer_clusters():
    x = torch.as_tensor(VECTORS[:3_000], dtype=torch.float32)
    few, many = (RowIndex.build(x, 20, recall, 0).report for recall in (0.5, 0.99))
    assert few.probes < many.probes <= many.lists == few.lists


def test_looking_into_every_cluster_chooses_what_the_exact_search_chooses(selector):
    expected = choose(selector)
    report = selector.build_index(recall=1.0)
    assert report == selector.index and (report.rows, report.probes, report.size) == (2_000, report.lists, 32)
    assert report.recall > 0.999 and report.seconds > 0
    assert choose(selector) == expected
    assert selector.select(QUERIES[0]).ids == expected[0]


def test_few_clusters_find_most_of_it(selector):
    expected = choose(selector)
    report = selector.build_index(recall=0.9)
    assert report.probes < report.lists
    same = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(choose(selector), expected, strict=True)])
    assert 0.8 < same <= 1


def test_changes_are_seen_at_once(selector):
    selector.build_index(recall=0.9)
    own = QUERIES[7]
    near = TEXTS[own] + 0.01
    TEXTS["a newcomer"] = unit(near)
    selector.add_example({"input": "a newcomer", "output": "a", "id": "new"})
    assert selector.index.rows == 2_000
    assert "new" in selector.select(own).ids
    selector.remove("new")
    assert "new" not in selector.select(own).ids
    shown = selector.select(own).ids
    selector.remove(shown)
    assert not set(shown) & set(selector.select(own).ids)
    selector.update("n5", {"input": "a newcomer", "output": "b"})
    assert "n5" in selector.select(own).ids


def test_a_change_that_makes_the_pool_anew_drops_the_index(selector):
    selector.build_index()
    selector.remove([f"n{i}" for i in range(1_000)])
    assert selector.index is None
    assert all(len(ids) == 4 for ids in choose(selector))


def test_restricted_queries_look_at_every_example(selector):
    expected = choose(selector, outputs=["b"])
    selector.build_index(recall=0.3)
    assert choose(selector, outputs=["b"]) == expected


@pytest.mark.parametrize("shortlist", [360, 400, 800])
def test_where_clusters_hold_too_few_every_example_is_looked_at(shortlist):
    settings = Settings(k=2, search=SearchSettings(shortlist=shortlist), calibrate=False)
    selector = DistillationSelector.from_examples(examples(range(400)), EMBEDDER, settings=settings)
    expected = choose(selector, QUERIES[:5])
    selector.build_index(recall=0.1)
    selector._pool.tensors.index._lists.nprobe = 1
    assert choose(selector, QUERIES[:5]) == expected


def test_a_query_does_not_find_its_own_text(selector):
    selector.build_index(recall=1.0)
    assert "n3" not in selector.select("text 3").ids


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_search_alike(selector, copied):
    selector.build_index(recall=0.9)
    assert choose(copied(selector)) == choose(selector)


def test_it_is_not_saved(selector, tmp_path):
    selector.build_index()
    selector.save(tmp_path / "pool.kdp")
    loaded = DistillationSelector.load(tmp_path / "pool.kdp", EMBEDDER)
    assert loaded.index is None


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_small_pools_have_one_too(n):
    settings = Settings(k=1, outputs="labels", calibrate=False)
    selector = DistillationSelector.from_examples(examples(range(n)), EMBEDDER, settings=settings)
    expected = choose(selector)
    assert selector.build_index(recall=1.0).lists == max(1, min(int(2 * n**0.5), n // 39))
    assert choose(selector) == expected


@pytest.mark.parametrize("recall", [0, -1, 1.5, float("nan")])
def test_what_is_no_recall_is_refused(selector, recall):
    with pytest.raises(ValueError, match=r"recall must be in \(0, 1\], got"):
        selector.build_index(recall=recall)
    assert selector.index is None


def test_without_faiss_it_says_what_to_install(selector, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'kdprompt\[faiss\]'"):
        selector.build_index()
    with pytest.raises(PoolError):
        selector.remove("nobody")


def test_seeds_make_it_reproducible():
    x = torch.as_tensor(VECTORS[:3_000], dtype=torch.float32)
    one, other = (RowIndex.build(x, 20, 0.6, 3) for _ in range(2))
    assert one.search(x, x[:50], 20)[1].tolist() == other.search(x, x[:50], 20)[1].tolist()
