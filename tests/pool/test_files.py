"""Files of records: every format gives the same pool, and what is wrong is named by file and line."""

import csv
import datetime
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdprompt import MissingKeyError, Pool, PoolError, Schema
from kdprompt.pool.files import SUFFIXES, read_records

ROWS = [
    {"id": "a", "input": 'two "quoted", words\nand a line', "output": "yes"},
    {"id": "b", "input": "zażółć 银行 {x}", "output": "no"},
]


def as_csv(rows, delimiter=","):
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(rows):
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


WRITERS = {
    "jsonl": as_lines,
    "ndjson": as_lines,
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "csv": as_csv,
    "tsv": lambda rows: as_csv(rows, "\t"),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_pool(tmp_path, kind, packed):
    path = tmp_path / f"Pool.{kind.upper()}{'.gz' if packed else ''}"
    data = WRITERS[kind](ROWS)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert list(Pool.from_file(path)) == list(Pool.from_records(ROWS))
    renamed = [{"q": row["input"], "a": row["output"], "key": row["id"]} for row in ROWS]
    path.write_bytes(WRITERS[kind](renamed))
    pool = Pool.from_file(path, Schema(inputs=("q",), outputs=("a",), id="key"))
    assert [(d.id, d.input, d.output) for d in pool] == [(r["id"], r["input"], r["output"]) for r in ROWS]
    assert f".{kind}" in SUFFIXES


def test_a_separator_is_seen_in_the_header_and_an_empty_cell_is_none(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text("\ufeffinput;output;task\r\na, b;007;\r\nc;;t\r\n\r\n", encoding="utf-8")
    first, second = Pool.from_file(path)
    assert (first.input, first.output, first.task) == ("a, b", "007", None)
    assert (second.input, second.output, second.task) == ("c", None, "t")


def test_json_lines_under_the_name_of_json_are_read(tmp_path):
    path = tmp_path / "pool.json"
    path.write_bytes(WRITERS["jsonl"](ROWS))
    assert list(Pool.from_file(path)) == list(Pool.from_records(ROWS))


def test_values_of_parquet_keep_their_types(tmp_path):
    path = tmp_path / "pool.parquet"
    day = datetime.date(2024, 2, 29)
    path.write_bytes(as_parquet([{"input": b"bytes", "output": 3, "day": day, "parts": ["a", None]}]))
    (shown,) = Pool.from_file(path)
    assert (shown.input, shown.output) == ("bytes", "3")
    assert shown.fields == {"input": "bytes", "output": 3, "day": day, "parts": ["a", None]}


def test_plain_text_is_queries_alone(tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text("\ufefffirst {x}\r\n\n  second \n", encoding="utf-8")
    assert read_records(path, text_key="q") == [("line 1", {"q": "first {x}"}), ("line 3", {"q": "second"})]
    with pytest.raises(PoolError, match="plain text, which has no outputs"):
        Pool.from_file(path)
    path = tmp_path / "queries.json"
    path.write_text('["one", {"q": "two"}]')
    assert read_records(path, text_key="q") == [("item 1", {"q": "one"}), ("item 2", {"q": "two"})]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.csv", b"input,output\na,b\nc\n", r"p\.csv, line 3 has 1 values, the header 2"),
        ("p.csv", b"input,output\na,b,c\n", r"p\.csv, line 2 has 3 values"),
        ("p.csv", b"input,input\na,b\n", r"p\.csv, line 1: two columns are named 'input'"),
        ("p.csv", b'input,output\na,"b\n', r"p\.csv, line 2 cannot be read as CSV"),
        ("p.csv", b"input,output\na,b\n\xff,d\n", r"p\.csv, line 3 is not UTF-8"),
        ("p.csv", b"input,output\n,b\n", r"example 0 \(.*p\.csv, line 2\) has no input"),
        ("p.json", b'{"input": "a"}', r"p\.json must hold a list of objects, got dict"),
        ("p.json", b'[{"input": "a"}, 3]', r"p\.json, item 2 must hold a JSON object, got int"),
        ("p.json", b'[{"input": "a"}', r"p\.json is not valid JSON"),
        ("p.json", b"[" * 5000 + b"]" * 5000, r"p\.json is not valid JSON"),
        ("p.json", b'[{"input": ' + b"[" * 150 + b"]" * 150 + b"}]", r"nested more than 100 levels deep"),
        ("p.jsonl", b'{"input": ' + b"[" * 150 + b"]" * 150 + b"}", r"p\.jsonl, line 1 .*nested more than 100 levels"),
        ("p.jsonl", b'{"input": "a"}\n{"input": ' + b"9" * 5000 + b"}", r"p\.jsonl, line 2 is not valid JSON"),
        ("p.jsonl.gz", gzip.compress(b'{"input": "a"}')[:-9], r"p\.jsonl\.gz cannot be unpacked"),
        ("p.parquet", b"PAR1 no parquet", r"p\.parquet cannot be read as Parquet"),
        ("p", b'{"input": "a"}\n"b"\n', r"p, line 2 must hold a JSON object, got str"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("p") else "",
)
def test_what_is_wrong_is_named_by_file_and_line(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(PoolError, match=message):
        Pool.from_file(path)


def test_a_long_cell_is_read(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text("input,output\n" + "x" * 200_000 + ",y\n")
    limit = csv.field_size_limit()
    assert len(Pool.from_file(path)[0].input) == 200_000 and csv.field_size_limit() == limit


def test_a_misspelt_key_is_no_missing_output():
    with pytest.raises(MissingKeyError, match=r"example 1 has no output: it has no key 'label', but 'lable'"):
        Pool.from_records([{"input": "a", "label": "x"}, {"input": "b", "lable": "y"}], Schema(outputs=("label",)))
    with pytest.raises(MissingKeyError, match=r"Did you mean 'inptu'\?"):
        Pool.from_records([{"inptu": "a", "output": "x"}])
    pool = Pool.from_records([{"input": "a"}, {"input": "b", "output": None}, {"input": "c", "output_id": 3}])
    assert [d.output for d in pool] == [None, None, None]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kind=st.sampled_from([*WRITERS, "txt", "none"]),
    data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    packed=st.booleans(),
)
def test_no_file_gives_another_error_than_ours(tmp_path, kind, data, packed):
    path = tmp_path / f"pool.{kind}"
    path.write_bytes(gzip.compress(data) if packed else data)
    try:
        Pool.from_file(path)
    except PoolError as error:
        assert str(path) in str(error)


def test_the_home_folder_may_stand_in_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pool.jsonl").write_text('{"input": "a", "output": "b"}\n')
    assert len(Pool.from_file("~/pool.jsonl")) == 1
    with pytest.raises(FileNotFoundError, match="no home folder of '~nobody-of-this-name'"):
        Pool.from_file("~nobody-of-this-name/pool.jsonl")
