"""A reader around any model that writes text: a function, or an LLM or chat model of LangChain."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kdprompt.pool.prompt import approximate_tokens
from kdprompt.readers.reader import Answer

__all__ = ["TextReader"]


class TextReader:
    """A reader around a model that writes text.

    The answer is the first line of what the model writes. Where labels are given, it is the longest label that this
    line begins with, whatever the case; a line that begins with no label is the answer itself.

    Args:
        model: A function from prompt to text, or an object with LangChain's ``invoke``.
        name: Identifies the model; None takes the name of the function or class.
        count_tokens: Returns the length of a text in tokens.

    Raises:
        TypeError: The model is neither callable nor has ``invoke``.
    """

    def __init__(
        self, model: Any, *, name: str | None = None, count_tokens: Callable[[str], int] = approximate_tokens
    ) -> None:
        if not callable(model) and not hasattr(model, "invoke"):
            raise TypeError(f"a reader must be callable or have invoke(), got {type(model).__name__}: {model!r:.80}")
        self.model = model
        self.name = name or getattr(model, "__name__", type(model).__name__)
        self._count_tokens = count_tokens

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """Asks the model for each prompt in turn, when its answer is needed.

        Raises:
            TypeError: The model answers with something other than text.
        """
        return (self._answer(prompt, labels or ()) for prompt in prompts)

    def count_tokens(self, text: str) -> int:
        """Length of a text by the function given."""
        return self._count_tokens(text)

    def _answer(self, prompt: str, labels: Sequence[str]) -> Answer:
        line = self._write(prompt).strip().split("\n")[0].strip()
        folded = line.casefold()
        matches = [label for label in labels if folded.startswith(label.casefold())]
        return Answer(max(matches, key=len, default=line))

    def _write(self, prompt: str) -> str:
        """The model's text for a prompt; the content blocks of a chat model are joined."""
        reply = self.model.invoke(prompt) if hasattr(self.model, "invoke") else self.model(prompt)
        content = getattr(reply, "content", reply)
        if isinstance(content, list):
            content = "".join(block if isinstance(block, str) else str(block.get("text", "")) for block in content)
        if not isinstance(content, str):
            raise TypeError(
                f"the reader {self.name!r} must answer with text, got {type(reply).__name__}: {reply!r:.80}"
            )
        return content
