"""Readers: what answers a prompt. A local model scores labels; any other model writes text."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from kdprompt.pool.prompt import approximate_tokens
from kdprompt.readers.causal_lm import HuggingFaceModel, LabelReading
from kdprompt.readers.reader import Answer

__all__ = ["LabelReader", "TextReader"]

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


class TextReader:
    """A callable, or any LangChain LLM or chat model, that writes text.

    Where labels are given, the answer is the longest label that the first line begins with, else that line.

    Args:
        model: A function from prompt to text, or an object with LangChain's ``invoke``.
        name: Identifies it; None takes its class or function name.
        count_tokens: Length of a text in tokens.
    """

    def __init__(
        self, model: Any, *, name: str | None = None, count_tokens: Callable[[str], int] = approximate_tokens
    ) -> None:
        if not callable(model) and not hasattr(model, "invoke"):
            raise TypeError(f"a reader must be callable or have invoke(), got {type(model).__name__}: {model!r:.80}")
        self.model = model
        self.name = name or getattr(model, "__name__", type(model).__name__)
        self._count = count_tokens

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """What the model writes, to its first line break."""
        return (self._answer(prompt, labels or ()) for prompt in prompts)

    def _answer(self, prompt: str, labels: Sequence[str]) -> Answer:
        reply = self.model.invoke(prompt) if hasattr(self.model, "invoke") else self.model(prompt)
        text = getattr(reply, "content", reply)
        if isinstance(text, list):  # content blocks of a chat model
            text = "".join(block if isinstance(block, str) else str(block.get("text", "")) for block in text)
        if not isinstance(text, str):
            raise TypeError(
                f"the reader {self.name!r} must answer with text, got {type(reply).__name__}: {reply!r:.80}"
            )
        line = text.strip().split("\n")[0].strip()
        plain = line.casefold()
        begins = [label for label in labels if plain.startswith(label.casefold())]
        return Answer(max(begins, key=len, default=line))

    def count_tokens(self, text: str) -> int:
        """By the function given."""
        return self._count(text)
