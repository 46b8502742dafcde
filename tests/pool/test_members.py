"""Demonstrations of which some are unread, against a list of them; and how they are made of their columns."""

import copy
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprompt import Pool, PoolError, Schema
from kdprompt.pool.distinct_rows import content_of
from kdprompt.pool.late_examples import LateExamples
from kdprompt.pool.members import Members
from kdprompt.pool.records import Demonstration
from kdprompt.storage.columns import build_columns, read_columns
from kdprompt.storage.records import demonstration_to_record
from support import run_together

TEXT = st.text("aé 😀", max_size=3)
RECORDS = st.lists(
    st.builds(
        lambda text, output, task, more: {"input": f"x{text}", "output": output, "task": task, "more": more},
        TEXT,
        st.none() | TEXT,
        st.none() | st.sampled_from(["s", "t"]),
        st.none() | st.lists(st.integers()) | st.just("\ud800"),
    ),
    max_size=8,
)
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "change", "remove"]), st.integers(0, 99), RECORDS), max_size=4)


def unread(pool):
    """The pool as one that was read from columns."""
    records = [demonstration_to_record(shown, "it") for shown in pool]
    parts, tensors = build_columns(records)
    return Pool.of_members(Members.of_file(read_columns(json.loads(json.dumps(parts)), tensors)), pool.schema)


def apply(pool, change):
    kind, at, records = change
    if kind == "add" or not len(pool):
        return pool.with_records(records)
    ident = list(pool)[at % len(pool)].id
    if kind == "remove":
        return pool.without([ident])
    return pool.with_changed(ident, records[0]) if records else pool


def check(ours, theirs):
    members = ours.members
    assert members.list_ids() == [shown.id for shown in theirs]
    assert members.list_inputs() == [shown.input for shown in theirs]
    assert members.list_pairs() == [(shown.task, shown.output) for shown in theirs]
    assert members.list_contents() == [content_of(shown) for shown in theirs]
    assert [members.list_ids()[i] for i in members.order_by_id()] == sorted(shown.id for shown in theirs)
    assert ours.distinct == theirs.distinct == len({content_of(shown) for shown in theirs})
    assert [ours.index(shown.id) for shown in theirs] == list(range(len(theirs)))
    assert len(ours) == len(theirs) and ours.demonstrations == theirs.demonstrations == tuple(ours)
    assert members[1:] == theirs.demonstrations[1:]
    assert all(shown.id in ours for shown in theirs) and "nobody" not in ours


@settings(deadline=None)
@given(RECORDS, CHANGES)
def test_a_pool_of_unread_examples_is_the_pool_that_was_stored_however_it_is_changed(records, changes):
    theirs = Pool.from_records(records, Schema(outputs=("output",)))
    ours = unread(theirs)
    check(unread(theirs), theirs)
    for change in changes:
        ours, theirs = apply(ours, change), apply(theirs, change)
        check(ours, theirs)
        check(pickle.loads(pickle.dumps(ours)), theirs)
    check(copy.deepcopy(ours), theirs)


def test_a_change_reads_no_example(monkeypatch):
    pool = unread(Pool.from_records([{"input": f"text {i}", "output": "y"} for i in range(20)]))
    ids = pool.members.list_ids()
    monkeypatch.setattr(LateExamples, "_read_fields", lambda *_: pytest.fail("an example was read"))
    changed = pool.with_records([{"input": "more"}]).without([ids[3]]).with_changed(ids[4], {"input": "other"})
    assert len(changed) == 20 and changed.index("nobody" if "nobody" in changed else ids[5]) == 4
    assert changed[3].input == "other" and changed.distinct == 20


def test_an_id_that_an_unread_example_has_is_refused_to_another():
    pool = unread(Pool.from_records([{"id": "a", "input": "x"}, {"id": "b", "input": "y"}]))
    with pytest.raises(PoolError, match="example 2 has the id 'b' that example 1 has already"):
        pool.with_records([{"id": "b", "input": "z"}])


def test_an_example_is_one_object_to_all_threads():
    pool = unread(Pool.from_records([{"input": f"text {i}"} for i in range(50)]))
    seen = []
    run_together(lambda _: seen.append(list(pool)), 4)
    assert len(seen) == 4
    assert all(len({id(shown) for shown in shown_to_all}) == 1 for shown_to_all in zip(*seen, strict=True))


@pytest.mark.parametrize(
    ("count", "expected"), [(0, True), (1, True), (3, True), (4, False), (9, False)], ids=lambda value: str(value)
)
def test_distinct_examples_are_counted_as_far_as_it_is_asked(count, expected):
    records = [{"input": text, "output": output} for text, output in zip("aabba", "xxxyx", strict=True)]
    pool = unread(Pool.from_records(records))
    assert pool.members.has_distinct(count) is expected
    assert not Members(pool).has_distinct(1)  # of others nobody knows it quickly


@pytest.mark.parametrize("fields", ['{"a": ', "[1]", "7", '"x"', "", "[" * 5000], ids=lambda text: text[:8])
def test_fields_that_are_no_object_are_refused_when_their_example_is_asked_for_and_no_other_is(fields):
    records = [{"id": f"i{i}", "input": f"x{i}", "output": None, "task": None, "fields": {"n": i}} for i in range(3)]
    parts, tensors = build_columns(records)
    good = read_columns(parts, tensors)
    broken = LateExamples(
        good.ids, good.inputs, good.outputs, good.tasks, type(good.fields).of(['{"n": 0}', fields, "{}"]), good.order
    )
    members = Members.of_file(broken)
    assert (members[0].fields, members[2].fields) == ({"n": 0}, {})
    for _ in range(2):
        with pytest.raises(PoolError, match=r"fields of example 1 \(id 'i1'\) of the stored selector cannot be read"):
            members[1]
    assert members.list_ids() == ["i0", "i1", "i2"]
    assert members[0] == Demonstration(id="i0", input="x0", fields={"n": 0})
