"""Errors of a service that may be gone at the next call, and calls that are tried again after them.

SDKs have classes of their own for these, so they are known by their kind: connections and time-outs of Python, HTTP
status codes, and the names that HTTP clients and SDKs give their classes.
"""

import logging
import random
from collections.abc import Callable
from typing import Any, TypeVar

from kdprompt.observation import name_error

__all__ = ["ATTEMPTS", "back_off", "is_transient", "retry"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

ATTEMPTS = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds
STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
CLASS_NAMES = frozenset(
    {
        "APIConnectionError",
        "ClientConnectionError",
        "ConnectTimeout",
        "InternalServerError",
        "RateLimitError",
        "ServerDisconnectedError",
        "ServiceUnavailable",
        "ServiceUnavailableError",
        "Timeout",
        "TooManyRequests",
        "TransportError",
    }
)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may be answered a moment later.

    Example:
        >>> is_transient(ConnectionError("reset")), is_transient(TimeoutError()), is_transient(ValueError("no"))
        (True, True, False)
    """
    return _may_pass(error) or (error.__cause__ is not None and _may_pass(error.__cause__))


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if isinstance(status, int):
        return status in STATUSES
    return any(base.__name__ in CLASS_NAMES for base in type(error).__mro__)


def back_off(error: Exception, failures: int) -> float:
    """Seconds to wait before the next call: none after an error that stays, else 0.2, 0.4, 0.8 … with some jitter."""
    return _pause(failures) if is_transient(error) else 0.0


def _pause(failures: int) -> float:
    return min(FIRST_PAUSE * 2.0 ** (max(failures, 1) - 1), LONGEST_PAUSE) + random.uniform(0.0, FIRST_PAUSE)


def retry(function: Callable[[], T]) -> T:
    """The answer of a call, which is made up to 3 times where its error may be gone the next time."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    def say(state: Any) -> None:
        error = name_error(state.outcome.exception())
        logger.warning("a call failed (%s), attempt %d of %d; trying again", error, state.attempt_number, ATTEMPTS)

    answer: T = Retrying(
        before_sleep=say,
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(ATTEMPTS),
        wait=lambda state: _pause(state.attempt_number),
        reraise=True,
    )(function)
    return answer
