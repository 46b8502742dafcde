"""A prompt as tokens, and the demonstration that each token belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration

__all__ = ["Segments"]

NO_DEMONSTRATION = -1


@dataclass(frozen=True)
class Segments:
    """A prompt of ``n`` tokens in segments: its demonstrations, and the rest.

    Attributes:
        text: The prompt.
        token_ids: ``[n]``.
        token_owners: Demonstration of each token ``[n]``; −1 for special tokens, the instruction and the query.
        demonstration_count: Number of demonstrations.
    """

    text: str
    token_ids: Tensor
    token_owners: Tensor
    demonstration_count: int

    @classmethod
    def build(
        cls,
        tokenizer: Any,
        demonstrations: Sequence[Demonstration],
        query: str,
        template: PromptTemplate | None = None,
    ) -> "Segments":
        """Writes and tokenises a prompt, and finds the demonstration of each token by its place in the text.

        A separator belongs to the demonstration before it.

        Args:
            tokenizer: A fast tokenizer of transformers, which knows where in the text its tokens come from.
            demonstrations: In reading order.
            query: The input to answer; it stands last.
            template: How the prompt is written; None takes the default.

        Raises:
            TypeError: The tokenizer does not know where its tokens come from.
            ValueError: A token reaches from one demonstration into the next, or into the query; it is named.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise TypeError(
                f"the probe needs a fast tokenizer, which knows where in the text its tokens come from; got "
                f"{type(tokenizer).__name__}: load it with AutoTokenizer.from_pretrained(…, use_fast=True)"
            )
        template = template or PromptTemplate()
        text = template.text(demonstrations, query)
        spans = _demonstration_spans(demonstrations, template)
        encoding = tokenizer(text, return_offsets_mapping=True)
        owners = [_find_owner(start, end, spans, text) for start, end in encoding["offset_mapping"]]
        return cls(text, torch.tensor(encoding["input_ids"]), torch.tensor(owners), len(demonstrations))


def _demonstration_spans(demonstrations: Sequence[Demonstration], template: PromptTemplate) -> list[tuple[int, int]]:
    """First character of each demonstration in the text and first character after its separator."""
    start = len(template.instruction) + len(template.separator) if template.instruction else 0
    spans = []
    for demonstration in demonstrations:
        end = start + len(template.render(demonstration)) + len(template.separator)
        spans.append((start, end))
        start = end
    return spans


def _find_owner(start: int, end: int, spans: Sequence[tuple[int, int]], text: str) -> int:
    """Demonstration of the token that stands for the characters from ``start`` to ``end`` (not included)."""
    if start >= end:  # a special token stands for no character
        return NO_DEMONSTRATION

    def owner_of_character(place: int) -> int:
        return next((i for i, (low, high) in enumerate(spans) if low <= place < high), NO_DEMONSTRATION)

    first, last = owner_of_character(start), owner_of_character(end - 1)
    if first != last:
        before = f"demonstration {first}" if first != NO_DEMONSTRATION else "the instruction"
        after = f"demonstration {last}" if last != NO_DEMONSTRATION else "the query"
        raise ValueError(
            f"the tokenizer's token {text[start:end]!r} (characters {start} to {end}) reaches from {before} into "
            f"{after}: its attention belongs to both. Use a separator that the tokenizer does not join to what "
            "follows, such as a line break"
        )
    return first
