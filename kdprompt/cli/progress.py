"""Embedding with a progress bar on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["ProgressEmbedder", "progress_bar"]

CHUNK = 256


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error that leaves nothing behind."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as progress:
        yield progress


class ProgressEmbedder(SentenceTransformerEmbedder):
    """The sentence-transformers embedder, chunk by chunk with a progress bar of its own."""

    @property
    def model(self) -> "SentenceTransformer":
        """The loaded model; the libraries' own bars and reports stay off the terminal."""
        if self._model is None:
            from transformers.utils import logging

            logging.disable_progress_bar()
            logging.set_verbosity_error()
            with Console(stderr=True).status("loading the embedding model"):
                return super().model
        return super().model

    def _encode(self, texts: list[str], prompt_name: str | None) -> Tensor:
        if len(texts) <= CHUNK:
            return super()._encode(texts, prompt_name)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: less padding
        parts = []
        with progress_bar() as progress:
            bar = progress.add_task("embedding", total=len(texts))
            for start in range(0, len(texts), CHUNK):
                chunk = [texts[i] for i in order[start : start + CHUNK]]
                parts.append(super()._encode(chunk, prompt_name))
                progress.advance(bar, len(chunk))
        vectors = torch.cat(parts)
        back = torch.empty(len(order), dtype=torch.long, device=vectors.device)
        back[torch.tensor(order, device=vectors.device)] = torch.arange(len(order), device=vectors.device)
        return vectors[back]
