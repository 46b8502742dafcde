"""Workers made by fork answer, and say that they compute on one thread."""

import multiprocessing
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, torch
torch.set_num_threads(2)
from kdprompt import DistillationSelector, Settings
def embed(texts): return [[float(text.count(letter)) + 0.1 for letter in "abcdefghij0123456789"] for text in texts]
pool = [{"input": f"case {i} {'abcdefghij'[i % 10]}", "output": i % 2} for i in range(200)]
selector = DistillationSelector.from_examples(pool, embed, settings=Settings(k=3))
def work(query): return selector.select(query).ids
workers = multiprocessing.get_context("fork").Pool(2)
print(workers.map_async(work, ["case a"]).get(timeout=90) == [selector.select("case a").ids], torch.get_num_threads())
workers.terminate()
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_forked_worker_answers_on_one_thread_and_says_so():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True", "2"], done.stderr
    assert "computes on one. Start workers by 'spawn'" in "".join(done.stderr.splitlines())
