"""Strategies for pools that change: records, and what is added, updated and removed."""

from hypothesis import strategies as st

__all__ = ["draw_changes", "draw_records"]


def draw_records(words):
    """Records of ``words + 1`` inputs, so that some repeat one another; of two tasks, with and without output."""
    return st.fixed_dictionaries(
        {
            "input": st.integers(0, words).map(lambda i: f"word {i}"),
            "output": st.sampled_from(["red", "blue", "green", None]),
            "task": st.sampled_from(["a", "a", "b", None]),
        }
    )


def draw_changes(records, *, place, most_removed, **sizes):
    """Lists of changes: what is updated or removed is a number up to ``place``, taken modulo the pool's size."""
    return st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(records, min_size=1, max_size=3)),
            st.tuples(st.just("update"), st.integers(0, place), records),
            st.tuples(st.just("remove"), st.lists(st.integers(0, place), min_size=1, max_size=most_removed)),
        ),
        **sizes,
    )
