"""Examples in the forms in which people have them give one and the same pool."""

from collections import namedtuple
from dataclasses import dataclass, make_dataclass

import pandas
import pytest
from pydantic import BaseModel, create_model

from kdprompt import Demonstration, Pool, PoolError, Schema

ROWS = [{"input": "2 + 2", "output": 4}, {"input": "a {x}", "output": 7}]
Row = namedtuple("Row", ["input", "output"])
Model = create_model("Model", input=(str, ...), output=(int, ...))
Record = make_dataclass("Record", ["input", "output"])


class Dataset:
    """Iterates over rows, as datasets.Dataset does, and has columns by name."""

    column_names = ("input", "output")

    def __iter__(self):
        return iter(ROWS)


class Polars:
    def to_dicts(self):
        return ROWS


@pytest.mark.parametrize(
    "examples",
    [
        (row for row in ROWS),
        pandas.DataFrame(ROWS),
        pandas.DataFrame(ROWS, index=["x", "y"]),
        Polars(),
        Dataset(),
        [Row(**row) for row in ROWS],
        [Model(**row) for row in ROWS],
        [Record(**row) for row in ROWS],
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_gives_the_same_pool(examples):
    assert [(d.id, d.input, d.output) for d in Pool.from_records(examples)] == [
        (d.id, d.input, d.output) for d in Pool.from_records(ROWS)
    ]


def test_missing_values_of_a_frame_are_none():
    frame = pandas.DataFrame([{"input": "a", "output": "x"}, {"input": "b"}])
    assert [d.output for d in Pool.from_records(frame)] == ["x", None]


def test_values_stay_objects():
    @dataclass
    class Inner:
        x: int

    class Outer(BaseModel):
        input: str
        inner: object

    inner = Inner(3)
    (shown,) = Pool.from_records([Outer(input="a", inner=inner)])
    assert shown.fields["inner"] == inner and shown.output is None
    ready = Demonstration(id="1", input="a")
    assert Pool.from_records([ready])[0] == ready


def test_chats_are_examples():
    def chat(*texts):
        return {"messages": [{"role": role, "content": text} for role, text in texts], "id": texts[-1][1]}

    one = chat(("system", "Be kind."), ("user", "2 + 2"), ("assistant", "4"))
    several = chat(("user", "hi"), ("assistant", "hello"), ("user", "2 + 2"), ("assistant", "4!"))
    parts = chat(
        ("user", [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}]), ("assistant", "x")
    )
    pool = Pool.from_records([one, several, parts])
    assert [(d.input, d.output) for d in pool] == [
        ("2 + 2", "4"),
        ("user: hi\nassistant: hello\nuser: 2 + 2", "4!"),
        ("look", "x"),
    ]
    assert pool[0].fields["messages"] == one["messages"]
    asked = Pool.from_records([{**one, "id": "q"}], Schema(inputs=("question",), outputs=("answer",)))
    assert (asked[0].input, asked[0].output) == ("2 + 2", "4")
    assert asked.query({"messages": one["messages"][:2]}).text == "2 + 2"


@pytest.mark.parametrize("examples", [{"input": "a", "output": "b"}, "text", b"text"])
def test_one_example_is_not_several(examples):
    with pytest.raises(PoolError, match="examples must be several, got one"):
        Pool.from_records(examples)
