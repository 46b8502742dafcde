"""What kdprompt does, as logs and as traces: counts, durations and classes of errors, never what is in an example.

Every module logs to the logger of its own name, under ``kdprompt``. ``observe`` logs a step at DEBUG when it ends and,
where the process uses OpenTelemetry, makes a span of it, ``kdprompt.select`` say, with the counts as attributes.

Texts of examples, queries and answers are in no record and no span, messages of errors neither, since these name the
text at fault. Whoever catches an error has its message.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

__all__ = ["name_error", "observe"]

TRACES = "opentelemetry.trace"  # looked for among what is imported: who uses it has imported it, nobody else pays

Count = int | float | str

logging.getLogger("kdprompt").addHandler(logging.NullHandler())  # silent until an application says otherwise


@contextmanager
def observe(logger: logging.Logger, step: str, **counts: Count) -> Iterator[dict[str, Count]]:
    """Logs a step and makes a span of it.

    Args:
        logger: Of the module that takes the step.
        step: Its name, a verb.
        **counts: What is to be said of it, by name.

    Yields:
        The counts; some that are only known later may be added.
    """
    trace = sys.modules.get(TRACES)
    if trace is None and not logger.isEnabledFor(logging.DEBUG):
        yield counts
        return
    started = time.perf_counter()
    with _start_span(trace, step) as span:
        error = ""
        try:
            yield counts
        except BaseException as fault:
            error = name_error(fault)
            raise
        finally:
            _end_span(trace, span, counts, error)
            said = ", ".join(f"{name}={value}" for name, value in counts.items())
            logger.debug(
                "%s %s %.1f ms (%s)%s",
                step,
                "failed after" if error else "took",
                1000 * (time.perf_counter() - started),
                said,
                f": {error}" if error else "",
            )


def _start_span(trace: Any, step: str) -> Any:
    if trace is None:
        return nullcontext()
    return trace.get_tracer("kdprompt").start_as_current_span(
        f"kdprompt.{step}", record_exception=False, set_status_on_exception=False
    )


def _end_span(trace: Any, span: Any, counts: dict[str, Count], error: str) -> None:
    if span is None:
        return
    span.set_attributes({f"kdprompt.{name}": value for name, value in counts.items()})
    if error:
        span.set_attribute("error.type", error)
        span.set_status(trace.Status(trace.StatusCode.ERROR))


def name_error(error: BaseException) -> str:
    """The class of an error, and of what caused it; its message may hold text of an example.

    Example:
        >>> name_error(ValueError("in 'the customer's text'"))
        'ValueError'
    """
    cause = error.__cause__
    return type(error).__name__ + (f" by {type(cause).__name__}" if cause is not None else "")
