"""Concurrent calls of a service that takes one item a call: few while it is down, all at the same time while it is up.

Of calls that begin together two go ahead. Once one is answered, the others follow at the same time. Where both fail, a
third is made after a pause, and if that fails too, the service is down for all that wait: 3 calls, and not 3 an item.

Rejected: to let all go at once and count afterwards, which is a call for each item just when a service struggles.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from kdprompt.fault_search import CallTally, may_be_general
from kdprompt.observation import name_error
from kdprompt.pool.transient_errors import ATTEMPTS, back_off, is_transient

__all__ = ["call_service"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

AHEAD = 2  # calls at the same time while nothing is known; the third tells whether a service is down


async def call_service(service: object, call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call, which is made up to 3 times where its error may be gone the next time.

    Args:
        service: Who is called; concurrent calls of the same object in the same event loop know of each other.
        call: Makes the call.

    Raises:
        Exception: The call's own; of a service that is down, that of another call.
    """
    bursts = _bursts.setdefault(asyncio.get_running_loop(), {})
    burst = bursts.get(id(service))
    if burst is None or burst.is_down:  # who comes later asks anew
        burst = bursts[id(service)] = _Burst()
    burst.callers += 1
    try:
        answer: T = await burst.ask(call)
        return answer
    finally:
        burst.callers -= 1
        if not burst.callers and bursts.get(id(service)) is burst:
            del bursts[id(service)]


class _Burst:
    """Calls of one service that overlap in time."""

    def __init__(self) -> None:
        self.callers = 0
        self._ahead = 0  # calls that were begun while nothing was known
        self._tally = CallTally()  # of the calls since it was last known to be up
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def is_down(self) -> bool:
        return self._tally.is_down

    async def ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            await self._wait_for_turn()
            was_up = self._tally.answered
            self._ahead += not was_up
            try:
                if self._error is not None:
                    await asyncio.sleep(back_off(self._error, max(attempt - 1, self._tally.failures)))
                answer = await call()
            except Exception as error:
                self._note_failure(error, was_up)
                if attempt == ATTEMPTS or self.is_down or not is_transient(error):
                    raise
                said = name_error(error)
                logger.warning("a call failed (%s), attempt %d of %d; trying again", said, attempt, ATTEMPTS)
            else:
                self._tally, self._error = CallTally(answered=True), None
                return answer
            finally:
                self._ahead -= not was_up
                self._wake()
        raise AssertionError("the last attempt gives an answer or raises")

    async def _wait_for_turn(self) -> None:
        while not (self._tally.answered or self.is_down or self._ahead < (AHEAD if self._error is None else 1)):
            await self._changed.wait()
        if self.is_down and self._error is not None:
            raise self._error

    def _note_failure(self, error: Exception, was_up: bool) -> None:
        if not was_up:
            self._tally.report(error)
            self._error = error
        elif self._tally.answered and may_be_general(error):  # the first of those that were under way counts for all
            self._tally, self._error = CallTally(), error
            self._tally.report(error)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


_bursts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Burst]] = WeakKeyDictionary()
