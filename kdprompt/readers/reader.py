"""Readers: what answers a prompt. And how a few prompts are compared by what one answers, without wasting calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Answer", "Reader"]


@dataclass(frozen=True)
class Answer:
    """What a reader answered.

    Attributes:
        text: The answer; one of the labels where the reader chooses among them.
        log_probs: Log-probability of each label given, in nats, normalised over them; None where unknown.
    """

    text: str
    log_probs: tuple[float, ...] | None = None


class Reader(Protocol):
    """Anything that answers a prompt. ``name`` identifies model and mode: answers are cached under it."""

    name: str

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """The answer to each prompt, as it comes; where ``labels`` are given, they are all the outputs there can be."""
        ...

    def count_tokens(self, text: str) -> int:
        """Length of a text."""
        ...
