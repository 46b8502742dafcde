"""Examples in prompts, whatever is in them: braces in texts, messages with tool calls in chats."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import PromptTemplate

from kdprompt.pool.records import Demonstration, Schema, render_value

__all__ = ["BraceSafePromptTemplate", "chat_of"]


_JINJA_SIGN = re.compile(r"[{}\r]|\n\Z")  # what begins a tag, and what jinja2 changes: \r, and a newline at the end


class BraceSafePromptTemplate(PromptTemplate):
    """An example prompt for ``FewShotPromptTemplate``: braces in an example's values stay what they are.

    ``FewShotPromptTemplate`` formats the finished examples once more with the query's variables, so that ``{"x": 1}``
    in an example is taken for a variable. Here every brace of a formatted example is doubled, which that second
    formatting undoes. For examples alone: elsewhere the doubled braces would stay.

    Which formatting is undone must be right: in a jinja2 template a doubled brace begins an expression, and text of an
    example would be executed. So an example prompt of ``template_format="jinja2"`` writes its braces as jinja2 reads
    them. An f-string example prompt cannot know what it stands in: within a jinja2 template it needs
    ``outer_format="jinja2"``.

    Attributes:
        outer_format: ``template_format`` of the ``FewShotPromptTemplate``; None: jinja2 where this template is jinja2,
            else f-string.

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
        outer = self.outer_format or ("jinja2" if self.template_format == "jinja2" else "f-string")
        if outer == "jinja2":
            return _JINJA_SIGN.sub(lambda sign: f"{{{{ {sign[0]!r} }}}}", text)
        return text.replace("{", "{{").replace("}", "}}")


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
