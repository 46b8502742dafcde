"""A value that is computed when somebody looks, once, whichever thread looks first."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

__all__ = ["LateValue"]

T = TypeVar("T")


class LateValue(Generic[T]):
    """A value, or what makes it; a copy or a pickle holds the value.

    Args:
        make: Makes it. Where it fails, whoever looked gets the error, and the next one tries again.

    Example:
        >>> late = LateValue(lambda: print("made") or 7)
        >>> late.value, late.value
        made
        (7, 7)
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] | None = make
        self._lock = threading.Lock()

    @classmethod
    def of(cls, value: T) -> "LateValue[T]":
        """One that is there."""
        late = cls(lambda: value)
        late._value, late._make = value, None
        return late

    @property
    def value(self) -> T:
        """The value."""
        if self._make is not None:
            with self._lock:
                if self._make is not None:  # else another thread was first
                    with torch.inference_mode(False):  # a caller's inference mode must not bind what is kept
                        self._value: T = self._make()
                    self._make = None
        return self._value

    @property
    def is_made(self) -> bool:
        """Whether it is there without a computation."""
        return self._make is None

    def __reduce__(self) -> tuple[Any, ...]:
        return LateValue.of, (self.value,)
