"""What is fuzzed: borders, the inputs that are drawn for them, and what each promises. Inputs are values of JSON."""

import contextlib
import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from kdprompt import Pool, PromptTemplate, Schema, Settings
from kdprompt.cli.config import read_config
from kdprompt.errors import PoolError, QueryError, TemplateError
from kdprompt.pool.files import SUFFIXES
from kdprompt.pool.jinja_template import JinjaTemplate
from kdprompt.pool.prompt import approximate_tokens
from kdprompt.pool.records import Demonstration, render_value
from kdprompt.printable import make_printable, to_json_line
from kdprompt.report.markdown import escape_markdown

Inputs = st.SearchStrategy[Any]

# -- what is drawn ------------------------------------------------------------------------------------------------

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
FILES = st.tuples(
    st.sampled_from([*SUFFIXES, ".x", ""]), BYTES | LINES | TABLES, st.sampled_from(["plain", "gzip", "cut"])
).map(list)
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


# -- what is promised ---------------------------------------------------------------------------------------------


def check_records(value: Any) -> None:
    """Records become a pool whose texts can be written, or an error of the pool."""
    with contextlib.suppress(PoolError):
        for shown in Pool.from_records(value):
            "".join((shown.id, shown.input, shown.output or "", shown.task or "")).encode("utf-8")
            to_json_line(shown.fields)


def check_query(value: Any) -> None:
    """A query is one that can be written, or an error."""
    with contextlib.suppress(QueryError):
        Pool(()).query(value).text.encode("utf-8")


def check_file(value: Any, folder: Path) -> None:
    """A file becomes a pool, or an error that names it."""
    suffix, text, packed = value
    data = text.encode("latin-1", "replace")
    data = {"plain": data, "gzip": gzip.compress(data), "cut": gzip.compress(data)[:-5]}[packed]
    path = folder / f"pool{suffix}"
    path.write_bytes(data)
    try:
        Pool.from_file(path, Schema())
    except PoolError as error:
        assert str(path) in str(error) or "id" in str(error), error


def check_template(value: Any) -> None:
    """Values come out of a template as they went in; a template that cannot be filled is an error of its own."""
    source, text = value
    shown = Demonstration(id="1", input=text, output=text, fields={"note": text})
    fixed = JinjaTemplate(source="{% for e in examples %}<{{ e.input }}|{{ e.note }}>{% endfor %}{{ input }}")
    assert fixed.text([shown], text) == f"<{text}|{text}>{text}"
    assert PromptTemplate().text([shown], text) == f"Input: {text}\nOutput: {text}\n\nInput: {text}\nOutput:"
    with contextlib.suppress(TemplateError):
        JinjaTemplate(source=source).render(shown)
    with contextlib.suppress(TemplateError):
        PromptTemplate(demonstration=source, query=source).text([shown], text)


def check_settings(value: Any) -> None:
    """Settings are what was given, or a ValueError (pydantic's names the field)."""
    with contextlib.suppress(ValueError):
        Settings.model_validate_json(Settings.model_validate(value).model_dump_json())


def check_tokens(value: Any) -> None:
    """A text has at least as many tokens as words, and at most as many as three times its letters."""
    tokens = approximate_tokens(value)
    assert isinstance(tokens, int) and len(value.split()) <= tokens <= 4 * len(value)


def check_json_line(value: Any) -> None:
    """A JSON line is strict JSON on one line, and text that can be shown is stable."""
    line = to_json_line(value)
    assert len(line.splitlines()) == 1 and "\x1b" not in line
    line.encode("utf-8")
    json.loads(line, parse_constant=_refuse)
    text = render_value(value)
    assert make_printable(make_printable(text)) == make_printable(text)


def check_name(value: Any) -> None:
    """A name in a Markdown table is text of one cell."""
    from markdown_it import MarkdownIt

    name = make_printable(" ".join(value.split()))
    page = f"| a |\n| --- |\n| x{escape_markdown(value)}x |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    inline = [token for token in tokens if token.type == "inline"][1:]
    assert len(inline) == 1
    assert all(child.type == "text" for child in inline[0].children or ())
    assert "".join(child.content for child in inline[0].children or ()) == f"x{name}x"


def check_config(value: Any, folder: Path) -> None:
    """A TOML file sets options of commands, or is an error that names it."""
    path = folder / "kdprompt.toml"
    path.write_text(value, encoding="utf-8", errors="replace")
    try:
        read_config(path, _commands())
    except ValueError as error:
        assert str(path) in str(error)


def check_command(value: Any, folder: Path) -> None:
    """The command line ends with 0 or 2, prints nothing that steers a terminal, and no traceback."""
    from kdprompt.cli.app import main

    arguments = [
        "kdprompt",
        "select",
        "--pool",
        str(folder / "pool.jsonl"),
        *(item.replace("\0", "") for item in value),
    ]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", arguments),
        mock.patch("kdprompt.SentenceTransformerEmbedder._encode", _encode),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(folder),
    ):
        try:
            main()
        except SystemExit as left:
            assert left.code in (0, 2), left.code
    printed = out.getvalue() + err.getvalue()
    assert "Traceback" not in printed and not {"\x1b", "\x9b", "\u202e"} & set(printed)


def _encode(_: Any, texts: list[str], __: Any) -> Any:
    import torch

    vectors = torch.tensor([[float(text.count(sign)) for sign in "abcdefgh "] + [1.0] for text in texts])
    return vectors / vectors.norm(dim=-1, keepdim=True)


def _commands() -> Any:
    import typer

    from kdprompt.cli.app import app

    command: Any = typer.main.get_command(app)
    return command.commands


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


# -- targets ------------------------------------------------------------------------------------------------------


@dataclass
class Target:
    """A border.

    Attributes:
        name: Its name.
        inputs: What is drawn.
        promise: Raises where an input breaks the promise; a second argument is a folder for files.
        share: Of the time.
        needs_folder: Whether the promise has that second argument.
        folder: The folder.
    """

    name: str
    inputs: Inputs
    promise: Callable[..., None]
    share: float = 1.0
    needs_folder: bool = False
    folder: Path | None = None

    def prepare(self, folder: Path) -> None:
        """Makes the files that inputs may name."""
        self.folder = folder
        if self.needs_folder:
            rows = [{"input": f"{'abcdefgh'[i % 8]} bad cafe {i}", "output": "ab"[i % 2]} for i in range(12)]
            (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / "t.jinja").write_text("{% for e in examples %}{{ e.input }} {% endfor %}{{ input }}")
            os.environ["COLUMNS"] = "80"

    def check(self, value: Any) -> None:
        """Raises where an input breaks the promise; errors of the user are none."""
        self.promise(value, self.folder) if self.needs_folder else self.promise(value)


TARGETS = {
    target.name: target
    for target in (
        Target("records", RECORDS, check_records),
        Target("chats", CHATS.map(lambda chat: [{"messages": chat}]), check_records),
        Target("queries", JSON, check_query),
        Target("files", FILES, check_file, needs_folder=True),
        Target("templates", st.tuples(MARKUP, ANY_TEXT).map(list), check_template),
        Target("settings", SETTINGS, check_settings),
        Target("tokens", ANY_TEXT, check_tokens, share=0.5),
        Target("json", JSON, check_json_line, share=0.5),
        Target("names", ANY_TEXT, check_name),
        Target("config", TOML, check_config, share=0.5, needs_folder=True),
        Target("command", ARGUMENTS, check_command, share=2.0, needs_folder=True),
    )
}
"""Every border by its name."""

__all__ = ["TARGETS", "Target"]
