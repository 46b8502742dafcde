"""What an embedder does not read of a long text: a model of 256 tokens takes inputs that begin alike for equal."""

from collections.abc import Sequence
from typing import Any

from kdprompt.pool.embedding import Embedder

__all__ = ["find_unread", "tail_beyond"]

ALWAYS_READ = 120  # bytes; a text has no more tokens than bytes, and models read 128 tokens or more


def find_unread(embedder: Embedder, texts: Sequence[str]) -> list[str]:
    """The end of each text that the embedder does not read; empty where it reads all, or where nobody knows.

    An embedder says so by a method ``find_unread`` of its own, from texts to their ends.
    """
    known = getattr(embedder, "find_unread", None)
    long = [text for text in dict.fromkeys(texts) if len(text.encode("utf-8", "surrogatepass")) > ALWAYS_READ]
    ends = dict(zip(long, known(long), strict=True)) if known is not None and long else {}
    return [ends.get(text, "") for text in texts]


def tail_beyond(tokenizer: Any, texts: Sequence[str], limit: int) -> list[str]:
    """The end of each text behind its first ``limit`` tokens.

    Args:
        tokenizer: A ``tokenizers.Tokenizer`` without truncation.
        texts: The texts.
        limit: Tokens that are read, special ones not counted.
    """
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    offsets = [encoding.offsets for encoding in encodings]
    return [
        text[places[limit][0] :] if len(places) > limit else "" for text, places in zip(texts, offsets, strict=True)
    ]
