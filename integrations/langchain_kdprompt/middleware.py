"""``DistillationMiddleware``: demonstrations for the last thing that the user said, in every model call of an agent."""

from collections.abc import Awaitable, Callable
from typing import Any

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as error:
    raise ImportError(
        "DistillationMiddleware needs LangChain 1 or later with its agents: pip install 'kdprompt[agents]'"
    ) from error
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_kdprompt.selector import DistillationExampleSelector

__all__ = ["DistillationMiddleware"]


class DistillationMiddleware(AgentMiddleware[Any, Any, Any]):
    """Puts demonstrations in front of the conversation, for the model call alone: the agent's state never holds them.

    They are chosen for the last message of the user, so they stay the same while the agent calls its tools, and a
    provider can go on from the prefix that it has read.

    Args:
        selector: Chooses the examples. Its one input key takes the user's text; an example's inputs become human
            messages and its outputs AI messages, and values that are messages (tool calls included) stay as they are.
        input_key: Where the selector has no input keys (all values are its text), the key that the text goes under.

    Raises:
        ValueError: The selector has several input keys, or not this one: a user's turn is one text.
    """

    def __init__(self, selector: DistillationExampleSelector, *, input_key: str | None = None) -> None:
        super().__init__()
        keys = selector.input_keys
        if keys is not None and len(keys) > 1:
            raise ValueError(
                f"the selector must have one input key, for a user's turn is one text, got {keys}; build it with "
                f"input_keys=[{keys[0]!r}], say"
            )
        if keys is not None and input_key is not None and keys != [input_key]:
            raise ValueError(f"input_key must be the selector's only input key, got {input_key!r} of {keys}")
        self.selector = selector
        self.input_key = input_key or (keys[0] if keys else "input")

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Any:
        """Calls the model with the demonstrations in front; a conversation without a user's message goes as it is."""
        asked = _last_turn(request)
        if asked is None:
            return handler(request)
        return handler(_with(request, self.selector.select_messages({self.input_key: asked})))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Any:
        """As ``wrap_model_call``; concurrent agents are served in one pass."""
        asked = _last_turn(request)
        if asked is None:
            return await handler(request)
        return await handler(_with(request, await self.selector.aselect_messages({self.input_key: asked})))


def _last_turn(request: ModelRequest[Any]) -> str | None:
    for message in reversed(request.messages):
        if isinstance(message, HumanMessage) and str(message.text).strip():
            return str(message.text)
    return None


def _with(request: ModelRequest[Any], shown: list[BaseMessage]) -> ModelRequest[Any]:
    return request.override(messages=[*shown, *request.messages])  # type: ignore[list-item]
