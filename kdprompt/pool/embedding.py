"""Texts to vectors: the embedder protocol, its adapters, and the default model.

The protocol is LangChain's own shape, so any LangChain ``Embeddings`` is an ``Embedder`` as it is. Vectors
stay where the embedder puts them; this is the only module that takes a device.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from kdprompt.fault_search import MOST_FAILURES, PartialAnswer, answer_all, may_be_general
from kdprompt.observation import name_error, observe
from kdprompt.pool.concurrent_calls import call_service
from kdprompt.pool.embedder_faults import EmbedderFault, name_text, stays
from kdprompt.pool.transient_errors import back_off, is_transient, retry
from kdprompt.pool.vectors import check_vectors, read_vectors
from kdprompt.pool.worker_threads import call_in_thread

__all__ = [
    "CallableEmbedder",
    "Embedder",
    "TextsToVectors",
    "embed_documents",
    "embed_each",
    "embed_outputs",
    "embed_queries",
    "embed_query_async",
    "embed_together",
]

T = TypeVar("T")
logger = logging.getLogger(__name__)

PART = 32  # queries of concurrent calls that are embedded in one call

TextsToVectors = Callable[[list[str]], Any]
"""A function from a list of texts to ``[n, d]``."""


@runtime_checkable
class Embedder(Protocol):
    """Anything with LangChain's two embedding methods."""

    def embed_documents(self, texts: list[str]) -> Any:
        """Texts to ``[n, d]``: a tensor, an array, or a list of lists of numbers."""
        ...

    def embed_query(self, text: str) -> Any:
        """One text to ``[d]``."""
        ...


class CallableEmbedder:
    """An embedder around a function from a list of texts to ``[n, d]``.

    Example:
        >>> embedder = CallableEmbedder(lambda texts: [[float(len(t)), 1.0] for t in texts])
        >>> embedder.embed_query("four")
        [4.0, 1.0]
    """

    def __init__(self, function: TextsToVectors) -> None:
        self.function = function

    def __repr__(self) -> str:
        return f"CallableEmbedder({getattr(self.function, '__qualname__', None) or repr(self.function)})"

    def embed_documents(self, texts: list[str]) -> Any:
        """The function's answer, ``[n, d]``."""
        return self.function(texts)

    def embed_query(self, text: str) -> Any:
        """The function's answer for one text, ``[d]``."""
        rows = self.function([text])
        return rows[0] if hasattr(rows, "__getitem__") else next(iter(rows))

    def embed_queries(self, texts: list[str]) -> Any:
        """The function's answer for many queries, ``[m, d]``."""
        return self.function(texts)


def embed_documents(embedder: Embedder, texts: Sequence[str]) -> Tensor:
    """Embeds texts once each and checks what came back.

    Where the embedder fails on all of them together, the text at fault is looked for by bisection, and named.

    Args:
        embedder: The embedder.
        texts: Texts; equal ones are embedded once.

    Returns:
        ``[n, d]`` of a floating dtype.

    Raises:
        EmbeddingError: Wrong number of rows, ragged rows, NaN, infinite or zero rows; or the embedder's own error,
            which is the cause. Names the text.
        OSError: A service that cannot be reached, after 3 calls: the embedder's own class, with the text.
    """
    return _embed_distinct(texts, embedder.embed_documents, "embed_documents")


def embed_queries(embedder: Embedder, texts: Sequence[str], *, find_fault: bool = True) -> Tensor:
    """As ``embed_documents``, with the embedder's query side; in one pass where it has ``embed_queries``.

    Args:
        embedder: The embedder.
        texts: Texts; equal ones are embedded once.
        find_fault: Whether to look for the text at fault. False calls once and raises an ``EmbedderFault``.
    """
    batched = getattr(embedder, "embed_queries", None)
    if batched is not None:
        return _embed_distinct(texts, batched, "embed_queries", find_fault)

    def one_by_one(distinct: list[str]) -> list[Tensor]:
        return embed_each(embedder.embed_query, distinct)

    return _embed_distinct(texts, one_by_one, "embed_query", find_fault)


def embed_each(embed_one: Callable[[str], Any], texts: Sequence[str]) -> list[Tensor]:
    """Embeds texts by a function that takes one a call, in as few calls as there are texts.

    The text at fault is known without a search. Errors that may pass are tried again; a service that is down is known
    by 3 calls.

    Args:
        embed_one: One text to ``[d]``.
        texts: The texts.

    Returns:
        A tensor ``[d]`` each.

    Raises:
        EmbeddingError: As ``embed_documents``, which lets it out as it is.
    """
    rows: list[Tensor] = []
    for text in texts:
        try:
            rows.append(read_vectors(retry(partial(embed_one, text)), [text], "embed_query of the embedder"))
        except Exception as error:
            alone = bool(rows) or not _is_general(error, embed_one, texts)
            raise name_text(error, [text] if alone else list(texts)) from error
    return rows


def _is_general(error: Exception, embed_one: Callable[[str], Any], texts: Sequence[str]) -> bool:
    """Whether texts behind the first, which failed, fail too: up to 3 calls in all, retries of the first included."""
    if stays(error) or not may_be_general(error):
        return False
    if is_transient(error):
        return True
    for text in texts[1:MOST_FAILURES]:
        try:
            embed_one(text)
        except Exception as fault:
            error = fault
        else:
            return False
    return True


async def embed_query_async(embedder: Embedder, text: str) -> Tensor | None:
    """One query's embedding ``[d]`` without holding up the event loop; None where many are better embedded together.

    An embedder with ``embed_queries`` takes a whole batch at once. The others are asked at the same time, by their own
    ``aembed_query`` where they have one, so that those behind a network wait together and not one after the other.

    Raises:
        EmbeddingError: As ``embed_documents``.
    """
    if hasattr(embedder, "embed_queries"):
        return None
    embed_async = getattr(embedder, "aembed_query", None)
    name = "embed_query" if embed_async is None else "aembed_query"

    def ask() -> Awaitable[Any]:
        return call_in_thread(embedder.embed_query, text) if embed_async is None else embed_async(text)

    try:
        with observe(logger, "embed", texts=1, method=name):
            vector = await call_service(embedder, ask)
    except Exception as error:
        raise name_text(error, [text]) from error
    return check_vectors([_read_one(vector, text, name)], [text], f"{name} of the embedder")[0]


@dataclass(frozen=True)
class TogetherEmbedded:
    """Queries that are answered together, embedded in parts.

    Attributes:
        places: Of those that have a vector.
        vectors: Theirs ``[m, d]``.
        failed: Places whose part failed, with the error.
        untried: Places behind two parts that failed.
    """

    places: list[int]
    vectors: Tensor | None
    failed: list[tuple[list[int], Exception]]
    untried: list[int]

    def report(self, answers: Sequence[T]) -> Sequence[T]:
        """The answers for ``places`` where these are all.

        Raises:
            PartialAnswer: A part failed; holds the answers.
        """
        if self.failed:
            raise PartialAnswer(dict(zip(self.places, answers, strict=True)), self.failed, self.untried)
        return answers


def embed_together(embedder: Embedder, asked: Sequence[tuple[str, Tensor | None]]) -> TogetherEmbedded:
    """Embeds queries that are answered together, 32 a call: one at fault among 64 is found in 8 calls then.

    Args:
        embedder: The embedder.
        asked: Text of each query and what ``embed_query_async`` gave for it: all have a vector, or none.
    """
    known = [vector for _, vector in asked if vector is not None]
    if known:
        return TogetherEmbedded(list(range(len(asked))), torch.stack(known), [], [])
    places: list[int] = []
    vectors: list[Tensor] = []
    failed: list[tuple[list[int], Exception]] = []
    for start in range(0, len(asked), PART):
        part = list(range(start, min(start + PART, len(asked))))
        if len(failed) == 2 and not places:  # a third would tell nothing more
            return TogetherEmbedded([], None, failed, list(range(start, len(asked))))
        try:
            vectors.append(embed_queries(embedder, [asked[place][0] for place in part], find_fault=False))
            places += part
        except Exception as error:
            failed.append((part, error))
    return TogetherEmbedded(places, torch.cat(vectors) if vectors else None, failed, [])


def _read_one(vector: Any, text: str, name: str) -> Tensor:
    """One vector as a tensor of its own: an embedder may use its buffer again for the next text."""
    return read_vectors(vector, [text], f"{name} of the embedder")


def _embed_distinct(texts: Sequence[str], function: TextsToVectors, name: str, find_fault: bool = True) -> Tensor:
    distinct = list(dict.fromkeys(texts))

    def embed(part: list[str]) -> Tensor:
        return check_vectors(function(list(part)), part, f"{name} of the embedder")  # it may sort its list

    with observe(logger, "embed", texts=len(distinct), method=name):
        try:
            vectors = embed(distinct)
        except Exception as error:
            if stays(error):
                raise
            if not find_fault:
                raise EmbedderFault from error
            said = name_error(error)
            logger.warning("%s of %d texts failed (%s); the text at fault is looked for", name, len(distinct), said)
            vectors = _embed_in_parts(embed, distinct, error)
    row = {text: i for i, text in enumerate(distinct)}
    return vectors[torch.tensor([row[text] for text in texts], dtype=torch.long, device=vectors.device)]


def _embed_in_parts(embed: Callable[[list[str]], Tensor], texts: list[str], error: Exception) -> Tensor:
    """Embeds texts that failed together part by part; raises the error of the first at fault, with its text."""

    def pause(error: Exception, failures: int) -> None:
        time.sleep(back_off(error, failures))

    rows, faults = answer_all(lambda part: list(embed(part)), texts, error, pause, is_transient)
    if faults:
        at_fault = [texts[place] for place in sorted(faults)]
        raise name_text(next(iter(faults.values())), at_fault)
    return torch.stack([rows[place] for place in range(len(texts))])


def embed_outputs(known: dict[str, Tensor], embedder: Embedder, texts: Sequence[str]) -> Tensor:
    """Embeddings of output texts ``[m, d′]``, zeros for empty ones; those that are not known yet join ``known``."""
    new = sorted({text for text in texts if text and text not in known})
    if new:
        known.update(zip(new, embed_documents(embedder, new), strict=True))
    blank = torch.zeros_like(next(iter(known.values()))) if known else torch.zeros(1)
    return torch.stack([known[text] if text else blank for text in texts])
