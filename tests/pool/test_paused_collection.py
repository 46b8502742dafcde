"""The collection of cycles is paused and goes on, whatever happens, and what an application froze stays frozen."""

import gc

import pytest

from kdprompt.pool.paused_collection import paused_collection


def test_collection_goes_on_after_an_error():
    with pytest.raises(ZeroDivisionError), paused_collection():
        assert not gc.isenabled()
        _ = 1 / 0
    assert gc.isenabled()


def test_who_paused_it_before_keeps_it_paused():
    gc.disable()
    try:
        with paused_collection(), paused_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_frozen_objects_stay_frozen():
    gc.collect()
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with paused_collection():
            kept = [[i] for i in range(10_000)]
        assert gc.get_freeze_count() == pytest.approx(count, rel=0.01) and len(kept) == 10_000
    finally:
        gc.unfreeze()


def test_what_was_made_counts_as_old():
    gc.collect()
    with paused_collection():
        kept = [[i] for i in range(10_000)]
    assert gc.get_count()[0] < 1_000 and len(kept) == 10_000 and gc.get_freeze_count() == 0
