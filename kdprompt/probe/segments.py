"""Which token of a prompt belongs to which demonstration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration

__all__ = ["Segments"]

REST = -1


@dataclass(frozen=True)
class Segments:
    """A tokenised prompt with the owner of each token.

    Attributes:
        text: The prompt.
        ids: Token ids ``[n]``.
        owner: Demonstration of each token ``[n]``; −1 for the rest: special tokens, instruction, query.
        count: Number of demonstrations.
    """

    text: str
    ids: Tensor
    owner: Tensor
    count: int

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        demonstrations: Sequence[Demonstration],
        query: str,
        template: PromptTemplate | None = None,
    ) -> "Segments":
        """Tokenises a prompt and finds each token's demonstration by its place in the text.

        A separator belongs to the demonstration before it.

        Args:
            tokenizer: A fast tokenizer of transformers: it knows where in the text its tokens come from.
            demonstrations: In reading order.
            query: Stands last.
            template: How the prompt is written.

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
        bounds = _bounds(demonstrations, template)
        coded = tokenizer(text, return_offsets_mapping=True)
        owner = [_owner(start, end, bounds, text) for start, end in coded["offset_mapping"]]
        return cls(text, torch.tensor(coded["input_ids"]), torch.tensor(owner), len(demonstrations))


def _bounds(demonstrations: Sequence[Demonstration], template: PromptTemplate) -> list[tuple[int, int]]:
    """Where each demonstration stands in the text, its separator included."""
    at = len(template.instruction) + len(template.separator) if template.instruction else 0
    bounds = []
    for demonstration in demonstrations:
        end = at + len(template.render(demonstration)) + len(template.separator)
        bounds.append((at, end))
        at = end
    return bounds


def _owner(start: int, end: int, bounds: Sequence[tuple[int, int]], text: str) -> int:
    if start >= end:  # special tokens come from nowhere
        return REST

    def at(place: int) -> int:
        return next((i for i, (low, high) in enumerate(bounds) if low <= place < high), REST)

    first, last = at(start), at(end - 1)
    if first != last:
        name = f"demonstration {last}" if last != REST else "the query"
        raise ValueError(
            f"the tokenizer's token {text[start:end]!r} (characters {start} to {end}) reaches from "
            f"{f'demonstration {first}' if first != REST else 'the instruction'} into {name}: its attention belongs to "
            "both. Use a separator that the tokenizer does not join to what follows, such as a line break"
        )
    return first
