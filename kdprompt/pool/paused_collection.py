"""Many objects at once: without the garbage collector, which would look at all of them again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused_collection"]


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pauses the collection of cycles while objects are made that stay; memory is still freed as it is let go of.

    What was made then counts as old, so that the first collection afterwards does not look at all of it.

    Example:
        >>> import gc
        >>> with paused_collection():
        ...     gc.isenabled()
        False
        >>> gc.isenabled()
        True
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else the application has frozen objects of its own
            gc.freeze()
            gc.unfreeze()  # among the oldest
        if was_on:
            gc.enable()
