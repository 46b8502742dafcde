"""Functions of callers in a worker thread, whatever they raise."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["call_in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def call_in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function gives, without holding up the event loop.

    A ``StopIteration`` (a recording or a mock that has run out) cannot be set on a future: whoever waits for it would
    wait for ever. It comes as the cause of a ``RuntimeError``, as generators and coroutines do it.
    """

    def call() -> T:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            raise RuntimeError("a function in a worker thread raised StopIteration") from error

    return await asyncio.to_thread(call)
