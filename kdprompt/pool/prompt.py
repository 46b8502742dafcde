"""Demonstrations to text or chat messages. Values are put in verbatim: braces in them mean nothing."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdprompt.pool.records import Demonstration

__all__ = ["PromptTemplate", "approximate_tokens", "to_messages"]

CountTokens = Callable[[str], int]
_PLACE = re.compile(r"\{(input|output)\}")


@dataclass(frozen=True)
class PromptTemplate:
    r"""How a prompt is written. ``{input}`` and ``{output}`` stand for the values; nothing else is replaced.

    Attributes:
        demonstration: One demonstration.
        query: The query, left open for the model's answer.
        separator: Between them.
        instruction: In front of everything, where not empty.

    Example:
        >>> from kdprompt.pool.pool import Demonstration
        >>> shown = Demonstration(id="1", input='{"a": 1}', output="json")
        >>> print(PromptTemplate(separator="\n").text([shown], "x = {}"))
        Input: {"a": 1}
        Output: json
        Input: x = {}
        Output:
    """

    demonstration: str = "Input: {input}\nOutput: {output}"
    query: str = "Input: {input}\nOutput:"
    separator: str = "\n\n"
    instruction: str = ""

    def render(self, demonstration: Demonstration) -> str:
        """One demonstration as text."""
        return _fill(self.demonstration, {"input": demonstration.input, "output": demonstration.output or ""})

    def text(self, demonstrations: Iterable[Demonstration], query: str) -> str:
        """The finished prompt for a query."""
        parts = [self.instruction] if self.instruction else []
        parts += [self.render(demonstration) for demonstration in demonstrations]
        return self.separator.join([*parts, _fill(self.query, {"input": query, "output": ""})])


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place[1]], template)


def to_messages(demonstrations: Iterable[Demonstration], query: str, *, system: str = "") -> list[dict[str, str]]:
    """The prompt as a chat: a user and an assistant message each demonstration, then the query.

    Args:
        demonstrations: In reading order.
        query: The user's input.
        system: Put first as a system message, where not empty.

    Returns:
        Messages with ``role`` and ``content``, as OpenAI-style APIs take them.
    """
    messages = [{"role": "system", "content": system}] if system else []
    for demonstration in demonstrations:
        messages.append({"role": "user", "content": demonstration.input})
        messages.append({"role": "assistant", "content": demonstration.output or ""})
    return [*messages, {"role": "user", "content": query}]


def approximate_tokens(text: str) -> int:
    """A tokenizer-free count: words of up to 6 letters, longer ones in pieces of 6, and each other sign, count one.

    Within some 20 % of common BPE tokenizers on English; pass the model's own tokenizer where a budget is tight.

    Example:
        >>> approximate_tokens("Selected demonstrations, in order.")
        9
    """
    return sum(-(-len(piece) // 6) if piece[0].isalnum() else 1 for piece in re.findall(r"\w+|[^\w\s]", text))


def count_demonstration_tokens(
    demonstrations: Sequence[Demonstration], template: PromptTemplate, count: CountTokens
) -> list[int]:
    """Tokens that each demonstration takes in a prompt, its separator included."""
    return [count(template.render(demonstration) + template.separator) for demonstration in demonstrations]
