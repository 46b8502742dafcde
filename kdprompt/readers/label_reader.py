"""Readers: what answers a prompt. A local model scores labels; any other model writes text."""

from collections.abc import Iterator, Sequence
from typing import Literal

from kdprompt.readers.causal_lm import HuggingFaceModel, LabelReading
from kdprompt.readers.reader import Answer

__all__ = ["LabelReader"]

Scoring = Literal["normalised", "sum", "constrained"]


class LabelReader:
    """A local causal LM that chooses among labels.

    Args:
        model: The model.
        scoring: ``normalised``: mean log-likelihood a token of the whole label; ``sum``: its log-probability;
            ``constrained``: what greedy decoding writes if it may write labels alone (no probabilities).
        max_new_tokens: Of an answer where there are no labels.
    """

    def __init__(self, model: HuggingFaceModel, scoring: Scoring = "normalised", *, max_new_tokens: int = 32) -> None:
        self.model = model
        self.scoring = scoring
        self.max_new_tokens = max_new_tokens
        self.name = f"{model.name}/{scoring}"

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """The likeliest label with all probabilities, or generated text where there are no labels.

        Prompts that begin alike are read together where they stand side by side.
        """
        if labels is None:
            yield from (Answer(self.model.generate(each, max_new_tokens=self.max_new_tokens)) for each in prompts)
            return
        for pack in self.model.packs(prompts, labels):
            yield from (self._answer(reading, labels) for reading in self.model.read(pack, labels))

    def _answer(self, reading: LabelReading, labels: Sequence[str]) -> Answer:
        if self.scoring == "constrained":
            return Answer(labels[reading.greedy()])
        scores = reading.mean if self.scoring == "normalised" else reading.total
        return Answer(labels[int(scores.argmax())], tuple(scores.double().log_softmax(-1).tolist()))

    def count_tokens(self, text: str) -> int:
        """Tokens of the model's own tokenizer."""
        return self.model.count_tokens(text)
