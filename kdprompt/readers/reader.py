"""The protocol of a reader: prompts in, answers out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Answer", "Reader"]


@dataclass(frozen=True)
class Answer:
    """A reader's answer to one prompt.

    Attributes:
        text: The answer; one of the labels where the reader chooses among them.
        log_probs: Log-probability of each label given, in nats, normalised over the labels; None where unknown.
    """

    text: str
    log_probs: tuple[float, ...] | None = None


class Reader(Protocol):
    """Anything that answers prompts.

    Attributes:
        name: Identifies the model and how it is asked. Answers are cached under it.
    """

    name: str

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """Answers prompts one after the other.

        Args:
            prompts: The prompts.
            labels: All possible outputs, or None where the output is free text.

        Returns:
            One answer a prompt, in the order of the prompts, each as soon as it is known.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Length of a text in the reader's tokens."""
        ...
