"""Progress on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from kdprompt.cli.terminal import Terminal, plain
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["ProgressEmbedder", "progress_bar", "show_tables_progress"]


class _Description(ProgressColumn):
    """What is being done; it may name a data set, a selector or a model."""

    def render(self, task: Task) -> Text:
        """The description, without markup."""
        return plain(task.description)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error that leaves nothing behind."""
    columns = (_Description(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Terminal(stderr=True)
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as progress:
        yield progress


@contextmanager
def show_tables_progress() -> Iterator[Callable[[int, int], None]]:
    """What shows how many tables of a benchmark are summarised, of how many: bootstraps take minutes."""
    with progress_bar() as progress:
        bar = progress.add_task("summarising tables", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


class ProgressEmbedder(SentenceTransformerEmbedder):
    """The sentence-transformers embedder, loaded without its reports, with the library's own bar on a terminal.

    Args:
        model: As ``SentenceTransformerEmbedder`` takes it.
        device: Likewise.
    """

    def __init__(self, model: "str | SentenceTransformer | None" = None, *, device: str | None = None) -> None:
        super().__init__(model, device=device, progress=Terminal(stderr=True).is_terminal)

    @property
    def model(self) -> "SentenceTransformer":
        """The loaded model; the libraries' own bars and reports stay off the terminal."""
        if self._model is None:
            from transformers.utils import logging

            logging.disable_progress_bar()
            logging.set_verbosity_error()
            with Terminal(stderr=True).status("loading the embedding model"):
                return super().model
        return super().model
