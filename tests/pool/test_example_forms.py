"""Examples in the forms in which people have them give one and the same pool."""

from collections import namedtuple
from dataclasses import dataclass, make_dataclass

import pandas
import pytest
from pydantic import BaseModel, create_model

from kdprompt import Demonstration, MissingKeyError, Pool, PoolError, Schema
from kdprompt.pool.content_ids import make_content_id

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
    image = '{"type": "image_url", "image_url": {}}'
    pool = Pool.from_records([one, several, parts])
    assert [(d.input, d.output) for d in pool] == [
        ("2 + 2", "4"),
        ("user: hi\nassistant: hello\nuser: 2 + 2", "4!"),
        (f"look\n[image_url {make_content_id(ascii(image))}]", "x"),
    ]
    assert pool[0].fields["messages"] == one["messages"]
    asked = Pool.from_records([{**one, "id": "q"}], Schema(inputs=("question",), outputs=("answer",)))
    assert (asked[0].input, asked[0].output) == ("2 + 2", "4")
    assert asked.query({"messages": one["messages"][:2]}).text == "2 + 2"


@pytest.mark.parametrize("examples", [{"input": "a", "output": "b"}, "text", b"text"])
def test_one_example_is_not_several(examples):
    with pytest.raises(PoolError, match="examples must be several, got one"):
        Pool.from_records(examples)


def test_calls_of_functions_and_parts_that_are_no_text_are_part_of_a_chat():
    """They were dropped: a call was an empty answer, two images one example."""

    def chat(url, answer):
        parts = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": url}}]
        return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", **answer}]}

    call = {"id": "x1", "type": "function", "function": {"name": "look", "arguments": '{"n": 2}'}}
    pool = Pool.from_records(
        [
            chat("data:1", {"content": "a cat"}),
            chat("data:2", {"content": "a cat"}),
            chat("data:1", {"content": None, "tool_calls": [call]}),
            chat("data:1", {"content": "let me see", "tool_calls": [{**call, "id": "x2"}]}),
        ]
    )
    assert pool.distinct == 4 and pool[0].input == pool[2].input != pool[1].input
    assert pool[0].input.startswith("what is it\n[image_url ")
    function = '{"name": "look", "arguments": "{\\"n\\": 2}"}'
    assert (pool[2].output, pool[3].output) == (function, f"let me see\n{function}")


@pytest.mark.parametrize("key", [3, 0, None, (1,)])
def test_a_key_that_is_no_text_is_named(key):
    with pytest.raises(PoolError, match=r"example 1 has the key .* keys must be text"):
        Pool.from_records([ROWS[0], {**ROWS[1], key: 4}])
    with pytest.raises(PoolError, match="keys must be text"):
        Pool.from_records(pandas.DataFrame({"input": ["a"], "output": ["b"], key: [1]}))


@pytest.mark.parametrize("value", [b"abc", bytearray(b"abc")])
def test_bytes_are_to_be_decoded(value):
    with pytest.raises(MissingKeyError, match="example 0 has bytes under 'input'; decode them"):
        Pool.from_records([{"input": value, "output": "x"}])


@pytest.mark.parametrize(("name", "text"), [("p.jsonl", "{}"), ("p.json", "[{}]")])
def test_a_key_that_stands_twice_is_named_and_no_value_is_lost(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text.replace("{}", '{"input": "a", "output": "x", "output": "y"}'), encoding="utf-8")
    with pytest.raises(PoolError, match=rf"{name}.*the key 'output' stands twice in one object"):
        Pool.from_file(path)
