"""Demonstrations to text or chat messages. Values are put in verbatim: braces in them mean nothing."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

from kdprompt.errors import TemplateError
from kdprompt.pool.records import Demonstration

__all__ = ["PromptTemplate", "approximate_tokens", "to_messages"]

CountTokens = Callable[[str], int]
_PLACE = re.compile(r"\{(input|output)\}")
_NAME = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_ANSWERS = ("output", "label", "answer", "response", "completion", "target", "result")  # as others name the output
_PIECE = re.compile(
    r"(?=[A-Za-z+/=_-]*\d)[A-Za-z0-9+/=_-]{16,}"  # hexadecimal, base64, ids
    r"|(?<=\d)[A-Za-z]|[A-Z]?[a-z]+|[A-Z]+|[\r\n]+|[ \t\f\v]{2,}| (?=\d|\Z)|[^ \t\f\v]"
)
_TOKENS_A_LETTER = (  # up to this sign; measured on SmolLM2, Qwen2.5 and Gemma 3, the most of the three
    ("\u036f", 1.0),  # Latin
    ("\u058f", 1.3),  # Greek, Cyrillic, Armenian
    ("\u07ff", 1.5),  # Hebrew, Arabic
    ("\uabff", 2.4),  # Indic, Thai, Georgian, Kana, Han
    ("\ud7ff", 3.0),  # Hangul
    ("\uffff", 2.4),
    ("\U0010ffff", 3.0),  # emoji
)


@dataclass(frozen=True)
class PromptTemplate:
    r"""How a prompt is written. ``{input}`` and ``{output}`` stand for the values; nothing else is replaced.

    Attributes:
        demonstration: One demonstration.
        query: The query, left open for the model's answer.
        separator: Between them.
        instruction: In front of everything, where not empty.

    Raises:
        TemplateError: Demonstration or query show no ``{input}`` but another name in braces, ``{question}`` say; or a
            demonstration no ``{output}`` but ``{label}`` or ``{answer}``.

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

    def __post_init__(self) -> None:
        for part in ("demonstration", "query"):
            text = getattr(self, part)
            names = [name for name in _NAME.findall(text) if name not in ("input", "output")]
            if "{input}" not in text and names:
                self._refuse(part, names[0], "input")
            answers = [name for name in names if name.casefold() in _ANSWERS]
            if part == "demonstration" and "{output}" not in text and answers:
                self._refuse(part, answers[0], "output")

    def _refuse(self, part: str, name: str, missing: str) -> None:
        raise TemplateError(
            f"the template of a {part} would print {{{name}}} as it stands and never show the {missing}: write "
            f"{{input}} there (and {{output}}), got {getattr(self, part)!r:.80}"
        )

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
    """A tokenizer-free count that errs on the safe side: rather too many tokens than a budget exceeded.

    English counts 1.0 to 1.6 times its tokens. Digits count one each, hexadecimal and base64 one a sign, and
    letters of other scripts what a byte-level tokenizer with a mainly English vocabulary makes of them: 1.3 to 3. A
    model with a large vocabulary needs fewer; pass its own tokenizer where a budget is tight.

    Example:
        >>> [approximate_tokens(text) for text in ("Selected demonstrations, in order.", "银行卡", "2026")]
        [11, 8, 4]
    """
    accented = sum("\u00c0" <= sign <= "\u024f" for sign in text)
    letters = 2.5 if 100 * accented > len(text) else 4  # other languages than English in Latin letters
    spare = len(text) // 64  # for pieces that a tokenizer cuts otherwise
    return math.ceil(sum(_count_piece(piece, letters) for piece in _PIECE.findall(text))) + spare


def _count_piece(piece: str, letters: float) -> float:
    """Tokens of a piece of text, at ``letters`` a token where it is a word."""
    first, length = piece[0], len(piece)
    if not first.isascii():
        return next(tokens for end, tokens in _TOKENS_A_LETTER if first <= end)
    if first.isspace():
        return math.ceil(length / (2 if first in "\r\n" else 8))
    if not piece.isalpha():  # a sign, a digit, or a blob
        return length
    return math.ceil(length / (2 if piece.isupper() else letters))


def count_demonstration_tokens(
    demonstrations: Sequence[Demonstration], template: PromptTemplate, count: CountTokens
) -> list[int]:
    """Tokens that each demonstration takes in a prompt, its separator included.

    Raises:
        ValueError: ``count`` gives no whole number of at least 0.
    """
    texts = [template.render(demonstration) + template.separator for demonstration in demonstrations]
    return [_check_count(count(text), text) for text in texts]


def _check_count(tokens: object, text: str) -> int:
    if isinstance(tokens, Integral) and not isinstance(tokens, bool) and int(tokens) >= 0:
        return int(tokens)
    raise ValueError(
        f"count_tokens must give a whole number of tokens, at least 0, got {tokens!r:.60} ({type(tokens).__name__}) "
        f"for {text!r:.60}. A tokenizer's list of tokens has a length: count_tokens=lambda text: len(encode(text))."
    )
