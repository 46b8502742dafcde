"""How deeply examples may be nested: the same in memory as in files, and never Python's own limit."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from kdprompt import Pool, PoolError, QueryError
from kdprompt.pool.nesting import MAX_DEPTH, is_too_deep
from kdprompt.printable import to_json_line

WRAPS = {"list": lambda value: [value], "tuple": lambda value: (value,), "mapping": lambda value: {"k": value}}


def nest(levels, wrap=WRAPS["list"]):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("kind", WRAPS)
@pytest.mark.parametrize("levels", [0, 1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 100_000])
def test_levels_are_counted(levels, kind):
    value = nest(levels, WRAPS[kind])
    assert is_too_deep(value) == (levels > MAX_DEPTH)
    assert is_too_deep(["flat", {"k": 1}, value, 2.5]) == (levels + 1 > MAX_DEPTH)


def test_what_holds_itself_is_too_deep_and_what_is_shared_is_looked_at_once():
    inside: list[Any] = []
    inside.append(inside)
    assert is_too_deep(inside)
    shared: Any = [1]
    for _ in range(MAX_DEPTH - 1):
        shared = [shared, shared]  # 2 ** 99 ways from the top to the bottom
    assert not is_too_deep(shared) and is_too_deep([shared])


@dataclass
class Ticket:
    input: Any
    output: str = "x"


DEEP = nest(5000)


@pytest.mark.parametrize(
    "example",
    [
        {"input": DEEP},
        {"input": "a", "output": DEEP},
        {"input": "a", "note": DEEP},
        {"input": "a", "id": DEEP},
        {"input": "a", "task": {"k": DEEP}},
        {"messages": [{"role": DEEP, "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"text": DEEP}]}]},
        Ticket(DEEP),
        DEEP,
    ],
    ids=lambda example: type(example).__name__,
)
def test_an_example_nested_too_deeply_is_refused_by_its_place(example):
    with pytest.raises(PoolError, match=r"example 1 is nested more than 100 levels deep; give text"):
        Pool.from_records([{"input": "fine", "output": "x"}, example])
    with pytest.raises(QueryError, match=r"the query is nested more than 100 levels deep; give text"):
        Pool(()).query(example)


def test_an_example_nested_as_deeply_as_may_be_can_be_written_and_read_again(tmp_path):
    record = {"input": nest(MAX_DEPTH - 1), "output": "x"}
    (shown,) = Pool.from_records([record])
    assert json.loads(to_json_line(shown.fields)) == record
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps(record))
    assert Pool.from_file(path)[0] == shown
