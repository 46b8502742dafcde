"""Examples in the forms in which people have them: frames, data sets, dataclasses, pydantic models, chats."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from kdprompt.errors import PoolError
from kdprompt.pool.content_ids import make_content_id
from kdprompt.pool.value_text import render_value

__all__ = ["list_examples", "to_mapping"]


def list_examples(examples: Iterable[Any]) -> list[Any]:
    """Examples one by one, from a list, a generator, a pandas or polars frame, or a ``datasets.Dataset``.

    Raises:
        PoolError: They are one example, a text or a column rather than several examples.
    """
    if isinstance(examples, str | bytes | Mapping):
        raise PoolError(f"examples must be several, got one {type(examples).__name__}; wrap it in a list")
    to_dicts = getattr(examples, "to_dicts", None)  # polars
    if callable(to_dicts):
        return list(to_dicts())
    if hasattr(examples, "columns") and callable(to_dict := getattr(examples, "to_dict", None)):  # pandas
        return list(to_dict("records"))
    return list(examples)


def to_mapping(example: Any, input_key: str = "input", output_key: str = "output") -> Any:
    """An example as a mapping where it can be one, else as it is.

    Dataclasses, named tuples and pydantic models give their fields. A chat in OpenAI's form, ``{"messages": [...]}``,
    without an input of its own, gives its last answer as the output and what stands before it as the input: the user's
    text where that is one message, else a line ``role: text`` each. Calls of functions are JSON; an image or another
    part that is no text is ``[type id]``, the same for the same content.

    Args:
        example: The example.
        input_key: Where the input of a chat goes.
        output_key: Where its output goes.

    Example:
        >>> chat = [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]
        >>> mapping = to_mapping({"messages": chat})
        >>> mapping["input"], mapping["output"]
        ('2 + 2', '4')
    """
    if type(example) is dict and input_key in example:  # nearly all of them
        return example
    if isinstance(example, BaseModel):
        example = {name: getattr(example, name) for name in type(example).model_fields}
    elif dataclasses.is_dataclass(example) and not isinstance(example, type):
        example = {field.name: getattr(example, field.name) for field in dataclasses.fields(example)}
    elif isinstance(example, tuple) and hasattr(example, "_asdict"):
        example = example._asdict()
    if isinstance(example, Mapping) and input_key not in example and _is_chat(example.get("messages")):
        return {**example, **_split_chat(example["messages"], input_key, output_key)}
    return example


def _is_chat(messages: object) -> bool:
    return (
        isinstance(messages, Sequence)
        and not isinstance(messages, str)
        and len(messages) > 0
        and all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in messages)
    )


def _split_chat(messages: Sequence[Mapping[str, Any]], input_key: str, output_key: str) -> dict[str, str]:
    said = [(str(message["role"]), _text(message)) for message in messages]
    answer = said.pop()[1] if said[-1][0] == "assistant" else None
    asked = [(role, text) for role, text in said if role not in ("system", "developer")]
    whole = asked[0][1] if len(asked) == 1 else "\n".join(f"{role}: {text}" for role, text in asked)
    return {input_key: whole} | ({} if answer is None else {output_key: answer})


def _text(message: Mapping[str, Any]) -> str:
    """What a message says: its text, a mark for each part that is none, and the functions that it calls."""
    content = message["content"]
    parts = content if isinstance(content, Sequence) and not isinstance(content, str) else [content]
    texts = [_part(part) for part in parts if part is not None and part != ""]
    calls = [call.get("function", call) for call in message.get("tool_calls") or () if isinstance(call, Mapping)]
    return "\n".join([*texts, *map(render_value, calls)])


def _part(part: object) -> str:
    if isinstance(part, Mapping):
        if "text" in part:
            return str(part["text"])
        content = ascii(render_value(part))  # whatever signs it holds
        return f"[{part.get('type', 'part')} {make_content_id(content)}]"  # an image, say, told from others
    return str(part)
