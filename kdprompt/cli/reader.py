"""Readers and other Python objects that a command names."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from kdprompt.cli.terminal import Terminal
from kdprompt.paths import expand_home

__all__ = ["CacheOption", "count_answers", "import_attribute", "keep_answers", "open_reader"]

CacheOption = Annotated[
    Path | None,
    Option(
        help="Folder that keeps the reader's answers: what was answered is not asked again. Embeddings are kept there "
        "too; default for these: the user's cache folder."
    ),
]


def open_reader(
    spec: str, log: Terminal, scoring: Any = "normalised", max_new_tokens: int | None = None, **how: Any
) -> Any:
    """The reader of a name: ``smollm2``, a Hugging Face name or folder, or ``python:MODULE:NAME``.

    Args:
        spec: Its name.
        log: Says that it is loading.
        scoring: Of a local model, as ``LabelReader`` takes it.
        max_new_tokens: Of a local model likewise; None leaves it at its default.
        how: ``dtype`` and ``device`` of a local model, as ``load_causal_lm`` takes them.
    """
    from kdprompt.readers import LabelReader, TextReader, load_causal_lm

    if spec.startswith("python:"):
        return TextReader(import_attribute(spec), name=spec.removeprefix("python:"))  # answers are kept by this name
    with log.status(f"loading {spec}"):
        model = load_causal_lm(spec, **how)
    return (
        LabelReader(model, scoring)
        if max_new_tokens is None
        else LabelReader(model, scoring, max_new_tokens=max_new_tokens)
    )


class _Counted:
    """A reader that says when it has answered."""

    def __init__(self, reader: Any, answered: Callable[[], None]) -> None:
        self.name = reader.name
        self.count_tokens = reader.count_tokens
        self.max_new_tokens = getattr(reader, "max_new_tokens", None)
        self._reader = reader
        self._answered = answered

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Any]:
        """The reader's own."""
        for answer in self._reader.answers(prompts, labels):
            self._answered()
            yield answer


@contextmanager
def keep_answers(reader: Any, folder: Path | None) -> Iterator[Any]:
    """A reader whose answers are kept in a folder, so that a run that was killed goes on; itself without a folder."""
    from kdprompt.evaluate import Store

    if reader is None or folder is None:
        yield reader
        return
    with Store(expand_home(folder)) as store:
        yield store.cached_reader(reader)


@contextmanager
def count_answers(reader: Any, total: int | None = None) -> Iterator[Any]:
    """A reader whose answers are counted on the terminal, of at most ``total``; nothing where there is none."""
    from kdprompt.cli.progress import progress_bar

    if reader is None:
        yield None
        return
    with progress_bar() as progress:
        bar = progress.add_task(f"asking {reader.name}", total=total)
        yield _Counted(reader, lambda: progress.advance(bar))


def import_attribute(spec: str) -> Any:
    """What ``python:MODULE:NAME`` names; modules of the working directory are found.

    Raises:
        ValueError: It does not name two things, or cannot be imported; the message says what was raised.
    """
    _, module, name = (*spec.split(":"), "", "")[:3]
    if not module or not name:
        raise ValueError(f"python objects are named python:MODULE:NAME, got {spec!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of the user's own runs, and may raise anything
        raise ValueError(f"{spec!r} cannot be imported: {type(error).__name__}: {error!s:.300}") from error
    finally:
        sys.path.pop(0)
