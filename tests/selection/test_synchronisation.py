"""Operations that make the host wait for an accelerator: few in a pass, none for each query or demonstration."""

import traceback
from collections import Counter
from pathlib import PurePath

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import kdprompt
from kdprompt import CallableEmbedder, DistillationSelector, Settings

WAIT = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2"}
ROWS, WIDTH = 600, 16
PACKAGE = PurePath(kdprompt.__file__).parent  # a checkout may have its name, too


class WaitCount(TorchDispatchMode):
    """Counts, by function, operations whose result decides what the host does or how large a tensor is."""

    def __init__(self):
        super().__init__()
        self.by_function = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name
        by_mask = name == "aten::index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAIT or by_mask:
            frames = [frame for frame in traceback.extract_stack() if PurePath(frame.filename).is_relative_to(PACKAGE)]
            self.by_function[frames[-1].name] += 1
        return func(*args, **(kwargs or {}))


def count_waits(k, queries):
    """Of one pass for many queries, when everything that is kept is known: by function."""
    vectors = torch.randn(ROWS + queries, WIDTH, generator=torch.Generator().manual_seed(1))
    examples = [{"input": f"example {i}", "output": "abc"[i % 3]} for i in range(ROWS)]
    embedder = CallableEmbedder(lambda texts: vectors[: len(texts)])
    settings = Settings(k=k)
    selector = DistillationSelector.from_examples(examples, embedder, settings=settings, vectors=vectors[:ROWS])
    texts = [f"query {i}" for i in range(queries)]
    selector.select_batch(texts, vectors=vectors[ROWS:])
    with WaitCount() as waits:
        selector.select_batch(texts, vectors=vectors[ROWS:])
    return waits.by_function


@pytest.mark.parametrize("k", [4, 12, "auto"])
def test_a_pass_waits_as_often_for_many_queries_as_for_few_but_for_rounds_of_swaps(k):
    few, many = count_waits(k, 8), count_waits(k, 128)
    for waits in (few, many):
        del waits["refine_by_swaps"]
    assert many == few
    assert sum(many.values()) <= 14


def test_greedy_search_does_not_wait_and_a_round_of_swaps_waits_a_few_times():
    waits = count_waits(12, 128)
    assert "greedy_search" not in waits
    rounds = 24  # of swaps, at most; one takes place for all queries at once
    assert waits["refine_by_swaps"] <= 4 * rounds
