"""What hypothesis draws for the targets of the fuzzer, and inputs written by hand that are likely to reach far."""

import gzip
import io
import json
from typing import Any

from hypothesis import strategies as st

from kdprompt.pool.files import SUFFIXES

__all__ = [
    "ANY_TEXT",
    "ARGUMENTS",
    "CHATS",
    "FILES",
    "JSON",
    "MARKUP",
    "PACKED",
    "RECORDS",
    "SETTINGS",
    "TOML",
    "WRITTEN",
]

Inputs = st.SearchStrategy[Any]

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
MARKUP = st.lists(
    st.sampled_from(
        ["{", "}", "{{", "}}", "{%", "%}", "{#", "#}", " input ", " e.input", "examples", "for e in ", "\n"]
    )
    | st.sampled_from(["endfor", "[x]", "[/]", "|", "`", "$", "\x1b[2J", "\u202e", "7*7", "**", "//0", "1", "'", "if "])
    | TEXT,
    max_size=12,
).map("".join)
ANY_TEXT = TEXT | MARKUP
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3), max_leaves=8
)
KEYS = st.sampled_from(["input", "output", "task", "id", "outputs", "messages", "role", "content"]) | TEXT
RECORDS = st.lists(st.dictionaries(KEYS, JSON, max_size=5) | JSON, max_size=4)
CHATS = st.lists(st.dictionaries(st.sampled_from(["role", "content", "x"]), JSON, max_size=3), max_size=3)
BYTES = st.binary(max_size=120).map(lambda data: data.decode("latin-1"))
LINES = st.lists(st.dictionaries(KEYS, JSON, max_size=3) | JSON, max_size=3).map(
    lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
)
TABLES = st.lists(st.lists(ANY_TEXT, max_size=4), max_size=4).map(
    lambda rows: (
        "\n".join(["input,output,id", *(",".join(row) for row in rows)]).encode("utf-8", "replace").decode("latin-1")
    )
)
PACKED = ("plain", "gzip", "cut")
FILES = st.tuples(st.sampled_from([*SUFFIXES, ".x", ""]), BYTES | LINES | TABLES, st.sampled_from(PACKED)).map(list)
GROUPS = ("k", "k_max", "budget", "order", "outputs", "objective", "search", "static", "delta", "seed", "template")
SETTINGS = st.dictionaries(st.sampled_from(GROUPS) | TEXT, JSON, max_size=4)
TOML = st.lists(
    st.sampled_from(["[select]\n", "k = 3\n", "pool = 'x'\n", "static = true\n", "[", "]", "=", "query = ['a']\n", '"'])
    | ANY_TEXT,
    max_size=8,
).map("".join)
OPTIONS = ("--query", "--k", "--budget", "--task", "--permit", "--order", "--device", "--input-key", "--output-key")
FLAGS = (
    "--static",
    "--messages",
    "--no-outputs",
    "--instruction",
    "--template",
    "--config",
    "--id-key",
    "--output",
    "--",
)
VALUES = (
    "x",
    "2",
    "auto",
    "0",
    "-1",
    "support",
    "input",
    "output",
    "nearest-last",
    "cpu",
    "-",
    "pool.jsonl",
    "t.jinja",
)
ARGUMENTS = st.lists(st.sampled_from([*OPTIONS, *FLAGS, *VALUES]) | ANY_TEXT, max_size=7)


def _parquet() -> str:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"input": ["a", None], "output": ["x", "y"]}), file, compression="none")
    return file.getvalue().decode("latin-1")


def _files() -> list[Any]:
    line = '{"input": "zażółć", "output": ["x", 1], "id": 7}'.encode().decode("latin-1")
    packed = gzip.compress(line.encode("latin-1"), mtime=0).decode("latin-1")
    texts = {
        ".jsonl": f"{line}\n\n{line}\n",
        ".json": f"[{line}, {line}]",
        ".csv": 'input,output,id\r\n"a, ""b""",x,1\r\nc,,2\r\n',
        ".tsv": "input\toutput\na\tx\n",
        ".parquet": _parquet(),
        ".txt": "a\n\nb\n",
    }
    return [*([suffix, text, "plain"] for suffix, text in texts.items()), [".jsonl.gz", packed, "plain"]]


WRITTEN: dict[str, list[Any]] = {  # by target
    "records": [
        [{"input": "a", "output": "x", "task": "t", "id": 1}, {"input": ["b", {"c": 1.5}], "output": None}],
        [{"input": {"text": "a"}, "outputs": ["x", "y"]}, {"messages": [{"role": "user", "content": "a"}]}],
    ],
    "chats": [
        [
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": [{"type": "text", "text": "a"}]},
                    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
                    {"role": "tool", "content": "1", "tool_call_id": "c"},
                    {"role": "assistant", "content": "x"},
                ]
            }
        ]
    ],
    "queries": ["a", {"input": "a", "task": "t", "outputs": ["x"]}, {"input": ["a", 1], "own": {"x": -0.5}}],
    "files": _files(),
    "templates": [
        ["{% for e in examples %}{{ e.input }}: {{ e.output | upper }}{{ e.note[0] }}\n{% endfor %}{{ input }}", "a"],
        ["{# c #}{% for e in examples if e.output %}{{ loop.index }}{{ e.input ~ '|' }}{% endfor %}{{ input }}", "{{"],
        ["Q: {input}\nA: {output}", "{input}"],
    ],
    "settings": [
        {"k": 4, "k_max": 8, "seed": 1, "delta": 0.1, "order": "nearest-last"},
        {"k": "auto", "budget": 100, "search": {"min_similarity": 0.2}, "template": {"separator": "\n"}},
    ],
    "config": ['pool = "x"\n[select]\nk = 3\nquery = ["a", "b"]\nstatic = true\n\n[doctor]\npool = "y"\n'],
    "command": [
        ["--query", "a bad cafe", "--k", "2"],
        ["--query", "cafe", "--query", "b", "--budget", "40", "--messages", "--order", "nearest-last"],
        ["--static", "--k", "3", "--permit", "a", "--instruction", "{x}", "--output", "-"],
        ["--query", "a", "--template", "t.jinja", "--task", "t"],
        ["--query", "b", "--input-key", "output", "--output-key", "input", "--no-outputs"],
    ],
}
"""Inputs written by hand, as values of JSON."""
