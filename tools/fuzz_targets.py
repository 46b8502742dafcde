"""What is fuzzed: borders, the inputs that are drawn for them, and what each promises. Inputs are values of JSON."""

import contextlib
import functools
import gzip
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

import fuzz_inputs as drawn
from kdprompt import Pool, PromptTemplate, Schema, Settings
from kdprompt.cli.config import read_config
from kdprompt.errors import PoolError, QueryError, TemplateError
from kdprompt.pool.jinja_template import JinjaTemplate
from kdprompt.pool.nesting import is_too_deep
from kdprompt.pool.prompt import approximate_tokens
from kdprompt.pool.records import Demonstration
from kdprompt.pool.value_text import render_value
from kdprompt.printable import make_printable, to_json_line
from kdprompt.report.markdown import escape_markdown

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
    if packed != "plain":
        data = gzip.compress(data)[: -5 if packed == "cut" else None]
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
    assert _fixed_template().text([shown], text) == f"<{text}|{text}>{text}"
    assert PromptTemplate().text([shown], text) == f"Input: {text}\nOutput: {text}\n\nInput: {text}\nOutput:"
    with contextlib.suppress(TemplateError):
        JinjaTemplate(source=source).render(shown)
    with contextlib.suppress(TemplateError):
        PromptTemplate(demonstration=source, query=source).text([shown], text)


@functools.cache
def _fixed_template() -> JinjaTemplate:
    return JinjaTemplate(source="{% for e in examples %}<{{ e.input }}|{{ e.note }}>{% endfor %}{{ input }}")


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
    name = make_printable(" ".join(value.split()))
    page = f"| a |\n| --- |\n| x{escape_markdown(value)}x |\n"
    tokens = _markdown().parse(page)
    inline = [token for token in tokens if token.type == "inline"][1:]
    assert len(inline) == 1
    assert all(child.type == "text" for child in inline[0].children or ())
    assert "".join(child.content for child in inline[0].children or ()) == f"x{name}x"


@functools.cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def check_config(value: Any, folder: Path) -> None:
    """A TOML file sets options of commands, or is an error that names it."""
    path = folder / "kdprompt.toml"
    path.write_text(value, encoding="utf-8", errors="replace")
    try:
        read_config(path, _program().commands)
    except ValueError as error:
        assert str(path) in str(error)


def check_command(value: Any, folder: Path) -> None:
    """The command line ends with 0 or 2, prints nothing that steers a terminal, and no traceback."""
    from kdprompt.cli.app import main

    _tidy(folder)
    pool = str(folder / "pool.jsonl")
    arguments = ["kdprompt", "select", "--pool", pool, *(item.replace("\0", "") for item in value)]
    kept = str(folder.parent / "embeddings")  # not among the user's: these vectors are made up
    program, out, err = _program(), io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "80", "KDPROMPT_CACHE": kept}),
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch("typer.main.get_command", lambda _: program),  # typer makes it anew for each call
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


def _tidy(folder: Path) -> None:
    """The folder as it was at first: an input may have had something written into it."""
    for entry in os.scandir(folder):
        if entry.name not in FILES:
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.remove(entry)
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")


def _encode(_: Any, texts: list[str], __: Any) -> Any:
    import torch

    vectors = torch.tensor([[float(text.count(sign)) for sign in "abcdefgh "] + [1.0] for text in texts])
    return vectors / vectors.norm(dim=-1, keepdim=True)


@functools.cache
def _program() -> Any:
    import typer

    from kdprompt.cli.app import app

    return typer.main.get_command(app)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


# -- targets ------------------------------------------------------------------------------------------------------


ROWS = [{"input": f"{'abcdefgh'[i % 8]} bad cafe {i}", "output": "ab"[i % 2]} for i in range(12)]
FILES: Mapping[str, str] = {  # that a command line may name
    "pool.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "t.jinja": "{% for e in examples %}{{ e.input }} {% endfor %}{{ input }}",
}


@dataclass
class Target:
    """A border.

    Attributes:
        name: Its name.
        inputs: What is drawn.
        promise: Raises where an input breaks the promise; a second argument is a folder for files.
        share: Of the time.
        fits: Whether a value of JSON is an input.
        needs_folder: Whether the promise has that second argument.
        folder: The folder.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    promise: Callable[..., None]
    share: float = 1.0
    fits: Callable[[Any], bool] = lambda value: True
    needs_folder: bool = False
    folder: Path | None = None

    def prepare(self, folder: Path) -> None:
        """Makes a folder of its own in a folder."""
        self.folder = folder / self.name
        self.folder.mkdir()

    def check(self, value: Any) -> None:
        """Raises where an input breaks the promise; errors of the user are none."""
        self.promise(value, self.folder) if self.needs_folder else self.promise(value)


def is_flat(value: Any) -> bool:
    """Whether it is nested no more deeply than examples may be."""
    return not is_too_deep(value)


def is_list(value: Any) -> bool:
    """Whether records can be read from it."""
    return isinstance(value, list)


def is_text(value: Any) -> bool:
    """Whether it is a text."""
    return isinstance(value, str)


def are_texts(value: Any) -> bool:
    """Whether it is a list of texts."""
    return is_list(value) and all(map(is_text, value))


def is_file(value: Any) -> bool:
    """Whether it is the end of a file's name, bytes, and how they are packed."""
    if not are_texts(value) or len(value) != 3 or value[2] not in drawn.PACKED:
        return False
    return len(ascii(value[0])) < 100 and not re.search("[/\0\ud800-\udfff]", value[0])


def is_template(value: Any) -> bool:
    """Whether it is a template and a text; no sandbox ends a template that asks for a number of a million digits."""
    return are_texts(value) and len(value) == 2 and not re.search(r"\*\*(?s:.*)\*\*|\*\s*\d{3}", value[0])


TARGETS = {
    target.name: target
    for target in (
        Target("records", drawn.RECORDS, check_records, fits=is_list),
        Target("chats", drawn.CHATS.map(lambda chat: [{"messages": chat}]), check_records, fits=is_list),
        Target("queries", drawn.JSON, check_query),
        Target("files", drawn.FILES, check_file, fits=is_file, needs_folder=True),
        Target("templates", st.tuples(drawn.MARKUP, drawn.ANY_TEXT).map(list), check_template, fits=is_template),
        Target("settings", drawn.SETTINGS, check_settings),
        Target("tokens", drawn.ANY_TEXT, check_tokens, share=0.5, fits=is_text),
        Target("json", drawn.JSON, check_json_line, share=0.5, fits=is_flat),
        Target("names", drawn.ANY_TEXT, check_name, fits=is_text),
        Target("config", drawn.TOML, check_config, share=0.5, fits=is_text, needs_folder=True),
        Target("command", drawn.ARGUMENTS, check_command, share=2.0, fits=are_texts, needs_folder=True),
    )
}
"""Every border by its name."""

__all__ = ["TARGETS", "Target"]
