"""A reader that chooses among labels by their likelihood under a local causal language model."""

from collections.abc import Iterator, Sequence
from typing import Literal

from kdprompt.readers.causal_lm import CausalLM
from kdprompt.readers.reader import Answer
from kdprompt.readers.scores import LabelScores

__all__ = ["LabelReader", "LabelScoring"]

WINDOW = 64  # prompts that are answered before the first of them is given, so that similar lengths come together
LabelScoring = Literal["normalised", "sum", "constrained"]


class LabelReader:
    """A local causal language model that chooses among labels.

    Args:
        model: The language model.
        scoring: How labels are compared. ``normalised``: mean log-likelihood per token of the label; ``sum``:
            log-probability of the whole label; ``constrained``: greedy decoding restricted to the labels, which gives
            no probabilities.
        max_new_tokens: Most tokens of an answer where there are no labels.
    """

    def __init__(self, model: CausalLM, scoring: LabelScoring = "normalised", *, max_new_tokens: int = 32) -> None:
        self.model = model
        self.scoring = scoring
        self.max_new_tokens = max_new_tokens
        self.name = f"{model.name}/{scoring}"

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """The likeliest label and the log-probability of each; generated text where there are no labels.

        Neighbouring prompts that begin alike share one forward pass.

        Raises:
            ValueError: The tokenizer merges the end of a prompt with the beginning of a label.
        """
        if labels is None:
            yield from self._write(prompts)
            return
        for pack in self.model.split_into_packs(prompts, labels):
            for scores in self.model.score_batch(pack, labels):
                yield self._choose(scores, labels)

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens of the model's own tokenizer."""
        return self.model.count_tokens(text)

    def _write(self, prompts: Sequence[str]) -> Iterator[Answer]:
        """Text for each prompt; prompts of similar length are read side by side."""
        for start in range(0, len(prompts), WINDOW):
            window = prompts[start : start + WINDOW]
            texts: dict[int, str] = {}
            for batch in self.model.split_into_batches(window, self.max_new_tokens):
                written = self.model.generate_batch([window[i] for i in batch], max_new_tokens=self.max_new_tokens)
                texts |= zip(batch, written, strict=True)
            for i in range(len(window)):
                yield Answer(texts[i])

    def _choose(self, scores: LabelScores, labels: Sequence[str]) -> Answer:
        if self.scoring == "constrained":
            return Answer(labels[scores.decode_greedily()])
        values = scores.mean_log_probs if self.scoring == "normalised" else scores.log_probs
        return Answer(labels[int(values.argmax())], tuple(values.double().log_softmax(-1).tolist()))
