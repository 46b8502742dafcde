"""What becomes of an embedder's own errors: they name the text that they came from."""

from collections.abc import Iterator
from contextlib import contextmanager

from kdprompt.errors import EmbeddingError, KDPromptError
from kdprompt.pool.transient_errors import is_transient

__all__ = ["EmbedderFault", "name_text", "naming", "stays"]

NAMED = "_kdprompt_named_its_text"  # an attribute of errors that keep their class


class EmbedderFault(Exception):
    """An embedder failed on some of several texts; ``__cause__`` is its error. Never leaves a selector."""


def stays(error: BaseException) -> bool:
    """Whether an error speaks for itself: kdprompt's own, a package that is not installed, one that names its text."""
    return isinstance(error, KDPromptError | ImportError) or hasattr(error, NAMED)


@contextmanager
def naming(text: str) -> Iterator[None]:
    """Lets an ``EmbedderFault`` out as the embedder's error on this text."""
    try:
        yield
    except EmbedderFault as fault:
        raise name_text(fault, [text]) from fault.__cause__


def name_text(error: Exception, texts: list[str]) -> Exception:
    """The error to raise where an embedder failed on texts.

    Args:
        error: The embedder's, or an ``EmbedderFault`` that it caused.
        texts: The text at fault; several where no single one is.

    Returns:
        An ``EmbeddingError`` that names the text and was caused by the error. An error of a connection keeps its class,
        so that whoever waits for a service catches what he caught before.
    """
    if _is_wrapped(error) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if stays(error):
        return error
    where = f"the text {texts[0]!r:.80}" if len(texts) == 1 else f"all of {len(texts)} texts ({texts[0]!r:.60} …)"
    message = f"the embedder failed on {where}: {type(error).__name__}: {error}"
    if is_transient(error) or isinstance(error, OSError):
        return _renew(error, message)
    named = EmbeddingError(f"{message}. Check the embedder on that text, or leave it out. Nothing was changed.")
    named.__cause__ = error
    return named


def _is_wrapped(error: Exception) -> bool:
    """Whether an error only carries the embedder's: a coroutine and a future cannot raise a ``StopIteration``."""
    return isinstance(error, EmbedderFault) or (
        isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration | StopAsyncIteration)
    )


def _renew(error: Exception, message: str) -> Exception:
    """An error of the same class with another message, or the error with a note where its class wants more."""
    try:
        renewed = type(error)(message)
    except Exception:
        renewed = None
    if type(renewed) is type(error) and message in str(renewed):
        renewed.__cause__ = error
    else:
        error.add_note(message)
        renewed = error
    setattr(renewed, NAMED, True)
    return renewed
