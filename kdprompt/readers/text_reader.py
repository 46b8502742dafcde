"""A reader around any model that writes text."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kdprompt.pool.prompt import approximate_tokens
from kdprompt.readers.reader import Answer

__all__ = ["TextReader"]


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
