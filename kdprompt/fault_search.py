"""Which items of a batch make a call fail, in few calls, with the answers of all others.

A call that answers many items at once fails as a whole. To call for each item instead would multiply the load on a
service just when it struggles. So a batch that failed is bisected: of two halves one is called; if that is answered,
the fault lies in the other. One item at fault among n costs some 2 + log₂ n calls, the first included; a service that
is down is noticed after 3 calls, since two halves that both fail have no single item at fault.

The search itself calls nothing, so that threads and event loops can share it: see ``FaultSearch``.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

__all__ = ["CallTally", "FaultSearch", "PartialAnswer", "answer_all", "may_be_general"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_FAILURES = 3  # calls that fail, without one that is answered, before a service counts as down
MOST_FAILURES_OF_ITEMS = 12  # the same where errors are of a kind that speaks of the items
ABOUT_ITEMS = (ValueError, TypeError, LookupError, ArithmeticError)


def may_be_general(error: BaseException) -> bool:
    """Whether an error may have nothing to do with the items: of a connection, say, and not of a value."""
    return not isinstance(error.__cause__ or error, ABOUT_ITEMS)


class PartialAnswer(Exception):
    """A batch was answered in parts, and some of them failed.

    Attributes:
        answers: Answers by place in the batch.
        failed: Places that failed together, each group with its error.
        untried: Places that were not tried, since all before them failed.
    """

    def __init__(
        self, answers: dict[int, Any], failed: list[tuple[list[int], Exception]], untried: Sequence[int] = ()
    ) -> None:
        super().__init__(answers, failed, untried)
        self.answers, self.failed, self.untried = answers, failed, list(untried)


@dataclass(kw_only=True)
class CallTally:
    """Calls of a service that may be down.

    Attributes:
        answered: Whether any call has been answered, so that the service is up.
        failures: Calls that failed since one was answered.
        general: Calls that failed in turn by errors that may be of the service and not of the items.
    """

    answered: bool = False
    failures: int = 0
    general: int = 0

    @property
    def is_down(self) -> bool:
        """Whether so many calls failed, and none was answered, that the next would fail too."""
        return not self.answered and (self.general >= MOST_FAILURES or self.failures >= MOST_FAILURES_OF_ITEMS)

    def report(self, error: Exception | None) -> None:
        """Says how the last call ended: with an error, or None where it was answered."""
        self.answered |= error is None
        self.failures = 0 if error is None else self.failures + 1
        self.general = self.general + 1 if error is not None and may_be_general(error) else 0


@dataclass
class FaultSearch(CallTally):
    """Bisects the places of items that failed together. Iterate over the calls to make; say how each ended.

    Attributes:
        failed: Groups of places that failed together, each with its error.
        size: Most items a call.
        is_transient: Whether an error may be gone at the next call: then an item that failed alone is tried again.
        faults: The error of each place at fault; complete when the iteration ends.
        untried: Places whose group was not called for; the fault of their group was found elsewhere.

    Example:
        >>> search = FaultSearch([([0, 1, 2, 3], ValueError("somewhere"))])
        >>> for places in search:
        ...     search.report(ValueError("here") if 2 in places else None)
        >>> search.faults
        {2: ValueError('here')}
    """

    failed: list[tuple[list[int], Exception]]
    size: int = sys.maxsize
    is_transient: Callable[[Exception], bool] = may_be_general
    faults: dict[int, Exception] = field(default_factory=dict)
    untried: list[int] = field(default_factory=list)
    _error: Exception | None = None

    @property
    def pressing(self) -> Exception | None:
        """The last error while no call has been answered: a reason to wait before the next."""
        return None if self.answered else self._error

    def report(self, error: Exception | None) -> None:
        """Says how the last call ended: with an error, or None where it was answered."""
        self._error = error
        super().report(error)

    def __iter__(self) -> Iterator[list[int]]:
        """The places of each call to make; ``report`` must follow before the next."""
        if not self.failures and not self.answered:  # nothing was reported of the groups
            for _, error in self.failed:
                self.report(error)
        while self.failed or self.untried:
            if self.failed:
                yield from self._narrow(*self.failed.pop())
                continue
            waiting = sorted(self.untried)
            rest, self.untried = waiting[: self.size], waiting[self.size :]
            yield rest
            if self._error is not None:
                self.failed.append((rest, self._error))

    def _narrow(self, group: list[int], error: Exception) -> Iterator[list[int]]:
        """Finds one place at fault in a group that failed."""
        if len(group) == 1:
            yield from self._settle(group, error, again=self._may_pass(error))
            return
        is_repeated = False  # a fault that no second call has shown may have been an accident
        while len(group) > 1:
            half, other = group[: len(group) // 2], group[len(group) // 2 :]
            yield half
            if self._error is None:
                group = other
                continue
            error, is_repeated, group = self._error, True, half
            if self.answered:
                self.untried += other
            else:
                yield from self._try_other(other)
            if self.is_down:
                self._give_up([*half, *other], error)
                return
        yield from self._settle(group, error, again=not is_repeated)

    def _try_other(self, group: list[int]) -> Iterator[list[int]]:
        """Calls the other half while nothing has been answered: a service that is down fails here too."""
        if not self.is_down:
            yield group
            if self._error is not None:
                self.failed.append((group, self._error))

    def _settle(self, group: list[int], error: Exception, again: bool) -> Iterator[list[int]]:
        """A group of one is at fault, unless it is answered when it is tried again."""
        while again:
            yield group
            if self._error is None:
                return
            error, again = self._error, self._may_pass(self._error)
        self.faults[group[0]] = error

    def _may_pass(self, error: Exception) -> bool:
        return self.is_transient(error) and not self.answered and not self.is_down

    def _give_up(self, places: list[int], error: Exception) -> None:
        rest = [*places, *self.untried, *(place for group, _ in self.failed for place in group)]
        self.faults.update(dict.fromkeys(rest, error))
        self.failed, self.untried = [], []


def answer_all(
    answer: Callable[[list[Item]], Sequence[Answer]],
    items: Sequence[Item],
    error: Exception,
    pause: Callable[[Exception, int], None],
    is_transient: Callable[[Exception], bool] = may_be_general,
) -> tuple[dict[int, Answer], dict[int, Exception]]:
    """Answers the items of a call that failed, until all have an answer or one is found at fault.

    Args:
        answer: Answers several items at once, in their order.
        items: The items that failed together.
        error: How they failed.
        pause: Called before a call while none has been answered, with the last error and the number of failures.
        is_transient: As ``FaultSearch`` takes it.

    Returns:
        Answers by place, and the errors of the places at fault: of one, or of all where nothing is answered.
    """
    answers: dict[int, Answer] = {}
    search = FaultSearch([(list(range(len(items))), error)], is_transient=is_transient)
    for places in search:
        if search.faults:
            break
        if not search.answered:
            pause(error, search.failures)
        try:
            found = answer([items[place] for place in places])
        except Exception as fault:
            error = fault
            search.report(fault)
        else:
            answers.update(zip(places, found, strict=True))
            search.report(None)
    return answers, search.faults
