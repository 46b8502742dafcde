"""Examples in prompts, whatever is in them: braces in texts, messages with tool calls in chats."""

import re
import sys
from collections.abc import Iterable
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import BasePromptTemplate, PromptTemplate
from langchain_core.prompts.message import BaseMessagePromptTemplate

from kdprompt.pool.records import Demonstration, Schema
from kdprompt.pool.value_text import render_value

__all__ = ["BraceSafePromptTemplate", "chat_of"]


MAX_CALLERS = 16  # between a few-shot template and the example prompt that it formats
_JINJA_SIGN = re.compile(r"[{}\r]|\n\Z")  # what begins a tag, and what jinja2 changes: \r, and a newline at the end


class BraceSafePromptTemplate(PromptTemplate):
    """An example prompt for ``FewShotPromptTemplate``: braces in an example's values stay what they are.

    ``FewShotPromptTemplate`` formats the finished examples once more with the query's variables, so that ``{"x": 1}``
    in an example is taken for a variable. Here every brace of a formatted example is doubled, which that second
    formatting undoes. For examples alone: elsewhere the doubled braces would stay.

    Which formatting is undone must be right: in a jinja2 template a doubled brace begins an expression, and text of an
    example would be executed. So the template looks who formats it: braces are written as the ``template_format`` of
    the few-shot template reads them, whatever the format of the example prompt, and within a chat, which does not
    format again, values stay as they are. Called by itself it writes for an f-string template, or for jinja2 where it
    is jinja2 itself.

    Attributes:
        outer_format: What is written where no template is seen that formats it, as when you call ``format`` yourself.

    Example:
        >>> from langchain_core.prompts import FewShotPromptTemplate
        >>> prompt = FewShotPromptTemplate(
        ...     examples=[{"q": "one x", "a": '{"x": 1}'}],
        ...     example_prompt=BraceSafePromptTemplate.from_template("{q}: {a}"),
        ...     suffix="{q}:",
        ...     input_variables=["q"],
        ... )
        >>> print(prompt.format(q="no {x}"))
        one x: {"x": 1}
        <BLANKLINE>
        no {x}:
    """

    outer_format: Literal["f-string", "jinja2"] | None = None

    def format(self, **kwargs: Any) -> str:
        """The formatted example, in the syntax that the outer template reads.

        Raises:
            KeyError: A variable of the template is missing.
        """
        text = super().format(**kwargs)
        outer = _find_outer_format(self)
        if outer == "unknown":
            outer = self.outer_format or ("jinja2" if self.template_format == "jinja2" else "f-string")
        if outer is None:
            return text
        if outer == "jinja2":
            return _JINJA_SIGN.sub(lambda sign: f"{{{{ {sign[0]!r} }}}}", text)
        return text.replace("{", "{{").replace("}", "}}")


def _find_outer_format(prompt: PromptTemplate) -> str | None:
    """How what a template writes is formatted again: by the nearest template among the callers.

    LangChain does not say to an example prompt what it stands in, and only the callers know.

    Returns:
        The format, None where it is not formatted again, or ``unknown`` where no template is among the callers.
    """
    frame = sys._getframe(2)
    for _ in range(MAX_CALLERS):
        owner = frame.f_locals.get("self")
        if owner is not prompt and isinstance(owner, BasePromptTemplate | BaseMessagePromptTemplate):
            again = getattr(owner, "template_format", None) if hasattr(owner, "example_prompt") else None
            return again if again in ("f-string", "jinja2") else None
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "unknown"


def chat_of(demonstrations: Iterable[Demonstration], schema: Schema) -> list[BaseMessage]:
    """Demonstrations as a chat: messages among their values as they are, everything else as human and AI text.

    Args:
        demonstrations: In reading order; their fields are the original examples.
        schema: Which keys hold the input and the output.

    Returns:
        The messages, two a demonstration where its values are texts.
    """
    chat: list[BaseMessage] = []
    for shown in demonstrations:
        outputs = schema.outputs
        if outputs is None:
            outputs = tuple(key for key in shown.fields if key not in {*schema.inputs, schema.task, schema.id})
        chat += _side(shown, schema.inputs, shown.input, HumanMessage)
        chat += _side(shown, outputs, shown.output or "", AIMessage)
    return chat


def _side(
    shown: Demonstration, keys: Iterable[str], text: str, kind: type[HumanMessage] | type[AIMessage]
) -> list[BaseMessage]:
    values = [shown.fields[key] for key in keys if key in shown.fields]
    messages_of_values = [messages_in(value) for value in values]
    if not any(messages_of_values):
        return [kind(text)]
    chat: list[BaseMessage] = []
    for value, messages in zip(values, messages_of_values, strict=True):
        chat += messages or [kind(render_value(value))]
    return chat


def messages_in(value: Any) -> list[BaseMessage]:
    """The messages that a value is, or none where it is anything else."""
    several = [value] if isinstance(value, BaseMessage) else value
    if isinstance(several, list | tuple) and several and all(isinstance(message, BaseMessage) for message in several):
        return [message.model_copy(deep=True) for message in several]
    return []
