"""A pool in shards on a real Ray cluster of this machine, where processes die meanwhile; and the page that shows it."""

import os
import signal
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector, PoolError, QueryError, Settings
from kdprompt.distributed import ShardedPool
from page_snippets import differ, read_snippets, run_snippets

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "cluster.md"
ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'kdprompt[ray]')")


def embed_slowly(texts):
    """Vectors of 16 dimensions that depend on the text alone, after a while."""
    time.sleep(0.1)
    generators = [torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts]
    return torch.stack([torch.randn(16, generator=generator) for generator in generators])


def make_selector(size):
    examples = [
        {"input": f"example {i}", "output": "abc"[i % 3], "task": ("left", "right")[i % 2]} for i in range(size)
    ]
    return DistillationSelector.from_examples(examples, CallableEmbedder(embed_slowly), settings=Settings(k=6))


@pytest.fixture(scope="module")
def cluster():
    """A cluster on this machine, whose processes run what this module defines."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=4, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield ray
    ray.shutdown()


def list_processes():
    """Id and command line of each process here."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as file:
                    yield int(entry), file.read()
            except OSError:
                continue  # it has ended


def kill_in_mid_run(pool):
    """One of the processes that search, as by a machine that fails, and one that holds a shard."""
    workers = [pid for pid, name in list_processes() if "_QueryWorker" in name]
    os.kill(workers[0], signal.SIGKILL)
    ray.kill(pool._shards[1], no_restart=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_and_a_shard_that_die_in_mid_run_change_nothing(cluster):
    selector, queries = make_selector(240), [f"query {i}" for i in range(90)]
    expected = [selection.ids for selection in selector.select_batch(queries)]
    pool = ShardedPool(selector, 2, num_cpus=0)
    data = ray.data.from_items([{"input": query} for query in queries], override_num_blocks=6)
    found = {}
    for row in pool.select(data, workers=2, batch_size=5).iter_rows():
        if not found:
            kill_in_mid_run(pool)
        assert row["input"] not in found
        found[row["input"]] = tuple(row["demonstrations"])
    assert [found.get(query) for query in queries] == expected

    alone = selector.select_static(k=3)
    merged = pool.select_static(k=3)
    assert merged.notes[0] == alone.notes[0]
    assert merged.terms.total <= 1.05 * alone.terms.total
    with pytest.raises(QueryError, match="no task 'middle'"):
        pool.select_static(queries[:5], task="middle")
    with pytest.raises(PoolError, match="at most the number of distinct examples"):
        pool.select_static(k=1000)


@pytest.mark.filterwarnings("ignore")
def test_more_shards_than_examples_are_refused(cluster):
    with pytest.raises(ValueError, match=r"shards must be from 1 to .*\(8\), got 9"):
        ShardedPool(make_selector(8), 9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_page_of_clusters_says_what_happens(cluster, shared_embedder):
    text = PAGE.read_text(encoding="utf-8")
    for snippet, printed in zip(read_snippets(text), run_snippets(text, PAGE.name), strict=True):
        assert snippet.output is None or differ(snippet.output, printed) == ""
