"""Records in, pools out: what is accepted, how it is rendered, and which example, key or line an error names."""

import copy
import hashlib
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kdprompt import (
    Demonstration,
    KDPromptError,
    MissingKeyError,
    Pool,
    PoolError,
    Query,
    QueryError,
    Schema,
    read_jsonl,
)
from kdprompt.pool.content_ids import make_content_id
from kdprompt.pool.records import normalise_text
from kdprompt.pool.value_text import render_value

RECORDS = [
    {"input": "2 + 2", "output": 4, "task": "sums"},
    {"input": "2 * 3", "output": 6, "task": "products"},
    {"input": "no answer"},
]


def write(tmp_path, content):
    path = tmp_path / "pool.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- what is accepted and how it is rendered ----------------------------------------------------------------------


def test_records_become_demonstrations_in_their_order():
    pool = Pool.from_records(RECORDS)
    assert [d.input for d in pool] == ["2 + 2", "2 * 3", "no answer"]
    assert [d.output for d in pool] == ["4", "6", None]
    assert [d.task for d in pool] == ["sums", "products", None]
    assert [d.fields for d in pool] == RECORDS
    assert len(pool) == 3 and repr(pool) == "Pool(3 demonstrations)"


TEXTS = st.text(st.sampled_from("ab Ä\U0001f642\x1b\ud800"), max_size=3)
PLAIN = st.fixed_dictionaries(
    {"input": TEXTS, "output": TEXTS},
    optional={"task": TEXTS | st.none(), "id": TEXTS | st.none(), "more": st.just([1]) | st.integers()},
)
OTHER = st.dictionaries(st.sampled_from(["input", "output", "outputs", "id"]), st.integers() | TEXTS | st.none())


@given(
    records=st.lists(PLAIN | PLAIN | PLAIN | OTHER, max_size=6), schema=st.sampled_from([Schema(), Schema(task=None)])
)
def test_many_examples_at_once_are_those_that_are_parsed_one_by_one(records, schema):
    """By their ids too, which ``parse`` leaves as they are: of the content, with a number behind where it is there."""
    try:
        alone = [Pool((), schema).parse(record, f"example {i}") for i, record in enumerate(records)]
    except KDPromptError as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            Pool.from_records(records, schema)
        return
    ids: list[str] = []
    for record, shown in zip(records, alone, strict=True):
        if schema.id and record.get("id") is not None:
            ids.append(shown.id)
            continue
        written = json.dumps([shown.input, shown.output, shown.task], ensure_ascii=False).encode()
        stem = hashlib.sha256(written).hexdigest()[:12]
        others = (f"{stem}-{copy}" for copy in itertools.count(2))
        ids.append(next(ident for ident in (stem, *itertools.islice(others, len(records))) if ident not in ids))
    if len(set(ids)) < len(ids):
        with pytest.raises(PoolError, match="ids must be unique"):
            Pool.from_records(records, schema)
        return
    pool = Pool.from_records(records, schema)
    assert list(pool) == [shown.model_copy(update={"id": ident}) for shown, ident in zip(alone, ids, strict=True)]
    for shown, record in zip(pool, records, strict=True):
        assert shown.fields == record and shown.fields is not record
        assert (
            shown.fields.get("more") is None
            or type(record["more"]) is int
            or shown.fields["more"] is not record["more"]
        )
    assert list(Pool.from_records(records[:1], schema).with_records(records[1:])) == list(pool)


@pytest.mark.parametrize("output", ["y", None])
def test_a_demonstration_of_texts_is_the_one_that_pydantic_validates(output):
    fields = {"input": "x", "more": [1]}
    fast = Demonstration.of_texts("i", "x", output, None, fields)
    slow = Demonstration(id="i", input="x", output=output, task=None, fields=fields)
    assert fast == slow and repr(fast) == repr(slow) and fast.model_dump_json() == slow.model_dump_json()
    assert fast.model_fields_set == slow.model_fields_set and fast.model_extra is None
    assert copy.deepcopy(fast) == pickle.loads(pickle.dumps(fast)) == slow
    assert fast.model_copy(update={"id": "j"}).id == "j"


@pytest.mark.parametrize("wrong", [{"ident": 1}, {"text": None}, {"output": 2}, {"task": 3}, {"fields": {4: "x"}}])
def test_what_is_no_text_is_validated(wrong):
    texts = {"ident": "i", "text": "x", "output": None, "task": None, "fields": {}}
    with pytest.raises(ValidationError):
        Demonstration.of_texts(**{**texts, **wrong})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is {}", "as it is {}"),
        (7, "7"),
        (0, "0"),
        (2.5, "2.5"),
        (True, "true"),
        (["ä", 1], '["ä", 1]'),
        ({"a": {"b": []}}, '{"a": {"b": []}}'),
        ({1}, "{1}"),
        ({"b", "a"}, "{'a', 'b'}"),
        ({"x": {3, 1}}, '{"x": [1, 3]}'),
        (np.bool_(True), "true"),
        (np.float64(2.5), "2.5"),
        (np.arange(3), "[0, 1, 2]"),
        ({"x": np.int64(3)}, '{"x": 3}'),
        (1j, "1j"),
    ],
)
def test_values_that_are_no_strings_are_rendered(value, text):
    assert render_value(value) == text
    (demonstration,) = Pool.from_records([{"input": value, "output": value}])
    assert (demonstration.input, demonstration.output) == (text, text)


def test_several_keys_are_rendered_as_lines():
    schema = Schema(inputs=("premise", "hypothesis"), outputs=("label", "why"))
    record = {"premise": "It rains.", "hypothesis": ["wet"], "label": True, "why": "water"}
    (demonstration,) = Pool.from_records([record], schema)
    assert demonstration.input == 'premise: It rains.\nhypothesis: ["wet"]'
    assert demonstration.output == "label: true\nwhy: water"


def test_output_keys_none_take_all_that_is_left():
    schema = Schema(inputs=("question",), outputs=None, task="kind", id="key")
    record = {"question": "why?", "answer": "so", "kind": "k", "key": 5}
    (demonstration,) = Pool.from_records([record], schema)
    assert (demonstration.output, demonstration.task, demonstration.id) == ("so", "k", "5")
    (two,) = Pool.from_records([{**record, "note": "n"}], schema)
    assert two.output == "answer: so\nnote: n"
    (none,) = Pool.from_records([{"question": "why?"}], schema)
    assert none.output is None


def test_empty_output_keys_mean_no_outputs():
    (demonstration,) = Pool.from_records([{"input": "x", "output": "y"}], Schema(outputs=()))
    assert demonstration.output is None


def test_task_and_id_keys_can_be_ignored():
    (demonstration,) = Pool.from_records([{**RECORDS[0], "id": "own"}], Schema(task=None, id=None))
    assert demonstration.task is None
    assert demonstration.id == make_content_id("2 + 2", "4", None)


def test_tasks_are_rendered():
    (demonstration,) = Pool.from_records([{"input": "x", "task": 3}])
    assert demonstration.task == "3"


def test_demonstrations_pass_through_unchanged():
    own = Demonstration(id="mine", input="x", output="y", task="t", fields={"z": 1})
    pool = Pool.from_records([own, RECORDS[0]])
    assert pool[0] == own
    assert pool.index("mine") == 0 and "mine" in pool and "other" not in pool


def test_any_iterable_of_mappings_makes_a_pool():
    assert [d.input for d in Pool.from_records(record for record in RECORDS)] == ["2 + 2", "2 * 3", "no answer"]


def test_an_empty_pool_is_a_pool():
    assert len(Pool.from_records([])) == 0


def test_the_originals_are_neither_kept_nor_changed():
    record = dict(RECORDS[0])
    pool = Pool.from_records([record])
    record["input"] = "changed"
    record["more"] = 1
    assert pool[0].fields == RECORDS[0] and pool[0].input == "2 + 2"


def test_case_and_spacing_do_not_make_another_text():
    assert normalise_text("  Straße \n A\tb ") == normalise_text("STRASSE a B")
    assert normalise_text("a b") != normalise_text("ab")


# -- ids ----------------------------------------------------------------------------------------------------------


def test_content_ids_depend_on_content_alone():
    alone = Pool.from_records([RECORDS[1]])[0].id
    assert Pool.from_records(RECORDS)[1].id == Pool.from_records(RECORDS[::-1])[1].id == alone
    assert Pool.from_records([{**RECORDS[1], "unused": 1}])[0].id == alone
    others = [{**RECORDS[1], key: "other"} for key in ("input", "output", "task")]
    assert len({d.id for d in Pool.from_records([RECORDS[1], *others])}) == 4


def test_content_ids_stay_the_same_between_releases():
    """People store ids; a pinned one notices a changed recipe."""
    assert Pool.from_records(RECORDS)[0].id == "6cd7d5aeeb29"
    assert Pool.from_records([{"input": "Größe 大", "output": "ß"}])[0].id == "b93fc18c31a1"


def test_parts_of_the_content_cannot_be_confused():
    assert (
        len(
            {
                make_content_id("a", "b"),
                make_content_id("ab", None),
                make_content_id("a", None, "b"),
                make_content_id('a", "b'),
            }
        )
        == 4
    )


def test_repeated_examples_get_numbered_ids():
    pool = Pool.from_records([RECORDS[0]] * 3)
    first = pool[0].id
    assert [d.id for d in pool] == [first, f"{first}-2", f"{first}-3"]
    assert [d.id for d in pool.with_records([RECORDS[0]])][-1] == f"{first}-4"


def test_a_duplicate_id_names_both_positions():
    records = [{"input": "a", "id": "x"}, {"input": "b"}, {"input": "c", "id": "y"}, {"input": "d", "id": "x"}]
    with pytest.raises(PoolError, match=r"example 3 has the id 'x' that example 0 has already"):
        Pool.from_records(records)
    with pytest.raises(PoolError, match=r"example 1 has the id '1' that example 0 has already"):
        Pool.from_records([{"input": "a", "id": 1}, {"input": "b", "id": "1"}])


def test_a_duplicate_id_of_an_added_example_names_both_positions_in_the_pool():
    pool = Pool.from_records([{"input": "a", "id": "x"}, {"input": "b", "id": "y"}])
    with pytest.raises(PoolError, match=r"example 2 has the id 'y' that example 1 has already"):
        pool.with_records([{"input": "c", "id": "y"}])


# -- errors name the example, the key, the line ------------------------------------------------------------------


def test_a_missing_input_key_names_the_example_and_the_key():
    with pytest.raises(MissingKeyError, match=r"^example 1 has no input key 'question'; it has \['answer'\]"):
        Pool.from_records([{"question": "?"}, {"answer": "!"}], Schema(inputs=("question",)))


def test_a_missing_key_among_several_is_the_one_that_is_named():
    schema = Schema(inputs=("a", "b"), outputs=("c", "d"))
    with pytest.raises(MissingKeyError, match=r"example 0 has no input key 'b'.*input keys are \['a', 'b'\]"):
        Pool.from_records([{"a": 1}], schema)
    with pytest.raises(MissingKeyError, match=r"example 0 has no output key 'd'"):
        Pool.from_records([{"a": 1, "b": 2, "c": 3}], schema)


def test_from_a_file_the_line_is_named_too(tmp_path):
    path = write(tmp_path, '{"input": "a"}\n\n\n{"inputs": "b"}\n')
    with pytest.raises(MissingKeyError, match=r"^example 1 \(.*pool\.jsonl, line 4\) has no input key 'input'"):
        Pool.from_jsonl(path)


def test_a_missing_key_is_a_key_error_and_a_value_error_and_prints_plainly():
    for error in (KeyError, ValueError, KDPromptError, PoolError, QueryError):
        with pytest.raises(error):
            Pool.from_records([{}])
    with pytest.raises(MissingKeyError) as caught:
        Pool.from_records([{"text": 'it says "hi"\n'}])
    assert str(caught.value) == caught.value.args[0]
    assert str(caught.value).startswith("example 0 has no input key 'input'; it has ['text'].")
    assert str(MissingKeyError()) == ""


@pytest.mark.parametrize("blank", ["", "   ", "\n\t"])
def test_an_empty_input_names_the_example(blank):
    with pytest.raises(PoolError, match=r"example 1 has an empty input \(\['input'\]\)"):
        Pool.from_records([RECORDS[0], {"input": blank, "output": "x"}])


@pytest.mark.parametrize("record", ["text", 5, ["input", "x"], None, ("a", "b")])
def test_what_is_no_mapping_is_named(record):
    with pytest.raises(PoolError, match=rf"example 1 must be a mapping, got {type(record).__name__}"):
        Pool.from_records([RECORDS[0], record])


def test_unknown_ids_are_named():
    pool = Pool.from_records(RECORDS)
    with pytest.raises(PoolError, match="no example with the id 'nowhere'"):
        pool.index("nowhere")
    with pytest.raises(PoolError, match="no example with the id 'nowhere'; nothing was removed"):
        pool.without([pool[0].id, "nowhere"])


# -- nothing is lost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda pool: pool.with_records([RECORDS[0], {"no": "input"}]),
        lambda pool: pool.with_records([RECORDS[0], "no mapping"]),
        lambda pool: pool.with_records([{"input": "x", "id": pool[0].id}]),
        lambda pool: pool.without([pool[0].id, "nowhere"]),
    ],
    ids=["missing key", "no mapping", "id twice", "unknown id"],
)
def test_a_failed_change_loses_nothing(change):
    pool = Pool.from_records(RECORDS)
    before = list(pool)
    with pytest.raises(PoolError):
        change(pool)
    assert list(pool) == before and all(pool[pool.index(d.id)] == d for d in before)


def test_changes_make_a_new_pool_and_leave_the_old():
    pool = Pool.from_records(RECORDS)
    larger = pool.with_records([{"input": "new"}])
    smaller = larger.without([pool[1].id])
    assert [d.input for d in pool] == ["2 + 2", "2 * 3", "no answer"]
    assert [d.input for d in larger] == ["2 + 2", "2 * 3", "no answer", "new"]
    assert [d.input for d in smaller] == ["2 + 2", "no answer", "new"]
    assert [smaller.index(d.id) for d in smaller] == [0, 1, 2]
    assert smaller.schema == pool.schema


def test_a_change_keeps_the_schema():
    pool = Pool.from_records([{"q": "a"}], Schema(inputs=("q",)))
    assert pool.with_records([{"q": "b"}])[1].input == "b"
    with pytest.raises(MissingKeyError, match="'q'"):
        pool.without([pool[0].id]).with_records([{"input": "b"}])


# -- files --------------------------------------------------------------------------------------------------------


def test_a_file_gives_the_pool_of_its_records(tmp_path):
    path = write(tmp_path, "".join(json.dumps(record) + "\n" for record in RECORDS))
    assert list(Pool.from_jsonl(path)) == list(Pool.from_records(RECORDS))
    assert list(Pool.from_jsonl(str(path))) == list(Pool.from_records(RECORDS))


def test_blank_lines_bom_and_line_ends_are_passed_over(tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbf{"input": "a"}\r\n\r\n   \n{"input": "b"}')
    assert read_jsonl(path) == [{"input": "a"}, {"input": "b"}]


def test_a_bom_before_a_blank_line_is_blank_too(tmp_path):
    assert read_jsonl(write(tmp_path, b'\xef\xbb\xbf\n{"input": "a"}\n')) == [{"input": "a"}]


def test_files_are_utf_8(tmp_path):
    text = "Größe — 大小 \U0001f600 \u2028 next"
    path = write(tmp_path, json.dumps({"input": text}, ensure_ascii=False) + "\n" + json.dumps({"input": text}))
    assert [d.input for d in Pool.from_jsonl(path)] == [text, text]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{'input': 'b'}", r"pool\.jsonl, line 3 is not valid JSON .*\{'input': 'b'\}"),
        (b'{"input": "b"', r"line 3 is not valid JSON"),
        (b'{"input": "b"} {"input": "c"}', r"line 3 is not valid JSON"),
        (b'{"input": "\xff"}', r"line 3 is not valid JSON .*\\xff"),
        (b'["input", "b"]', r"line 3 must hold a JSON object, got list"),
        (b'"text"', r"line 3 must hold a JSON object, got str"),
        (b"null", r"line 3 must hold a JSON object, got NoneType"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, message):
    path = write(tmp_path, b'{"input": "a"}\n\n' + line + b"\n")
    with pytest.raises(PoolError, match=message):
        Pool.from_jsonl(path)


def test_an_empty_file_is_an_empty_pool(tmp_path):
    assert len(Pool.from_jsonl(write(tmp_path, ""))) == 0


def test_no_file_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        Pool.from_jsonl(tmp_path / "absent.jsonl")


# -- queries ------------------------------------------------------------------------------------------------------


def test_a_query_is_rendered_as_the_pool_is():
    schema = Schema(inputs=("a", "b"))
    record = {"a": 1, "b": ["x"], "task": 7, "output": "never read"}
    pool = Pool.from_records([record], schema)
    assert pool.query(record) == Query(text=pool[0].input, task=pool[0].task)
    assert Pool.from_records(RECORDS).query("a text") == Query(text="a text")
    own = Query(text="q", task="t", outputs=frozenset({"a"}))
    assert pool.query(own) is own


def test_a_query_that_is_none_is_named():
    pool = Pool.from_records(RECORDS)
    with pytest.raises(QueryError, match=r"^query 3 is empty"):
        pool.query("  ", "query 3")
    with pytest.raises(QueryError, match=r"^the query is empty"):
        pool.query({"input": ""})
    with pytest.raises(QueryError, match=r"^the query must be text, a mapping or a Query, got int: 5"):
        pool.query(5)
    with pytest.raises(MissingKeyError, match=r"^query 2 has no input key 'input'; it has \['text'\]"):
        pool.query({"text": "x"}, "query 2")


# -- whose values they are ----------------------------------------------------------------------------------------


def test_what_a_caller_does_to_nested_values_later_does_not_reach_the_pool():
    record = {"input": "a", "output": "x", "meta": {"tags": ["one"]}}
    pool = Pool.from_records([record])
    record["meta"]["tags"].append("two")
    assert pool[0].fields == {"input": "a", "output": "x", "meta": {"tags": ["one"]}}


def test_values_that_cannot_be_copied_stay_as_they_are():
    lock = threading.Lock()
    assert Pool.from_records([{"input": "a", "output": "x", "lock": lock}])[0].fields["lock"] is lock


@pytest.mark.parametrize(
    "value", [object(), [1, object()], {"a": {"b": object()}}, lambda: 1], ids=["object", "list", "mapping", "function"]
)
@pytest.mark.parametrize("key", ["input", "output"])
def test_a_value_without_text_of_its_own_is_refused_with_its_key(key, value):
    """Its address would stand in the prompt, and in the id, which would be another one in every process."""
    record = {"input": "a", "output": "b", key: value}
    with pytest.raises(MissingKeyError, match=f"example 1 has no text under '{key}': .* has no text of its own"):
        Pool.from_records([{"input": "fine", "output": "x at 0x7f0000000000>"}, record])
    with pytest.raises(QueryError, match="the query has no text under 'input'"):
        Pool.from_records([{"input": "a"}]).query({"input": value})


@pytest.mark.parametrize("said", ["empty input", "lone surrogate"])
@pytest.mark.parametrize("make", [Pool, Pool.from_records, lambda given: Pool(()).with_records(given)])
def test_demonstrations_pass_the_same_gate_as_records(make, said):
    """What was let in here was refused where the saved pool was loaded, and all of it was lost."""
    text = "   " if said == "empty input" else "cut \ud83d"
    with pytest.raises(PoolError, match=f"example 1 .*{said}"):
        make([Demonstration(id="good", input="x"), Demonstration(id="bad", input=text, output="y")])


def test_what_the_caller_does_to_the_fields_of_a_demonstration_does_not_reach_the_pool():
    tags = ["kept"]
    pool = Pool.from_records([Demonstration(id="1", input="x", fields={"tags": tags})])
    tags.append("changed")
    assert pool[0].fields["tags"] == ["kept"]


DIGITS = np.arange(3_000)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: {"day": date(2020, 1, 1), "x": inner},
        lambda inner: [date(2020, 1, 1), (inner,)],
        lambda inner: {frozenset({"a", "b"}): inner},
        lambda inner: pd.DataFrame({"a": inner}),
        lambda inner: {"day": date(2020, 1, 1), "frame": pd.DataFrame({"a": inner})},
    ],
)
def test_different_values_are_different_wherever_they_stand(wrap):
    other = DIGITS.copy()
    other[1_500] = -1
    pool = Pool.from_records([{"input": "x", "output": wrap(values)} for values in (DIGITS, other, DIGITS.copy())])
    assert pool.distinct == 2 and "..." not in pool[0].output and "1499" in pool[0].output


def test_sets_anywhere_have_one_text_in_every_process():
    code = (
        "from datetime import date\n"
        "from kdprompt import Pool\n"
        "tags = {'a', 'b', 'c', 'd'}\n"
        "values = [{'day': date(2020, 1, 1), 'tags': tags}, {frozenset(tags)}, [(frozenset(tags), date(2020, 1, 1))]]\n"
        "print([Pool.from_records([{'input': value}])[0].id for value in values])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1 and len(said.pop()) > 20


@pytest.mark.parametrize(
    "value",
    [
        {"day": date(2020, 1, 1), "n": [1, "a"], "t": (1,), "e": {}, "none": None},
        [date(2020, 1, 1), {"x": True}, (), [], {"b": 2.5}],
        date(2020, 1, 1),
        {1: {"s": "it's"}, "d": date(2020, 1, 1)},
    ],
)
def test_what_json_has_no_form_for_is_written_as_python_writes_it(value):
    assert render_value(value) == str(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.datetime64("2020-01-01T00:00", "ns"), "2020-01-01T00:00:00.000000000"),
        (np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]"), '["2020-01-01", "2021-01-01"]'),
    ],
)
def test_times_of_numpy_are_times_and_no_numbers(value, text):
    assert render_value(value) == text


@pytest.mark.parametrize("key", ["input", "output", "task"])
def test_a_number_that_python_does_not_write_is_named(key):
    record = {"input": "x", "output": "y", key: 10**5_000}
    with pytest.raises(MissingKeyError, match=f"example 0 has no text under '{key}': a int there cannot be written"):
        Pool.from_records([record])


def test_an_accent_is_the_same_text_however_it_is_composed():
    assert normalise_text("Cafe\u0301  cre\u0300me") == normalise_text("caf\u00e9 cr\u00e8me")
