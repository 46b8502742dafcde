"""Micro-batching: concurrent calls of a coroutine are answered by one call of a function.

Takes a function that answers many items at once, and gives a coroutine that answers one. There is no timer: a call that
comes alone is served at the next turn of the event loop, and calls that arrive while a batch is computed make up the
next batch.

A batch that fails is bisected (``fault_search``), after the other batches that wait have been served.

Rejected: waiting a few milliseconds for more calls, which makes every single call slower.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import ismethod
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakMethod

from kdprompt.fault_search import FaultSearch, PartialAnswer
from kdprompt.observation import name_error
from kdprompt.pool.transient_errors import back_off, is_transient
from kdprompt.pool.worker_threads import call_in_thread

__all__ = ["MicroBatcher"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _PendingCall(Generic[Item, Answer]):
    """A call that waits for its answer."""

    item: Item
    future: asyncio.Future[Answer]


class MicroBatcher(Generic[Item, Answer]):
    """Awaits one answer; concurrent calls are answered together, in a worker thread.

    Each event loop has batches of its own, so that several loops may share one instance. A copy starts with no calls
    waiting.

    Args:
        answer_batch: Answers several items at once, in their order. The object of a method is not kept alive by this
            one, so that it is freed at once when its owner lets go of it, with whatever it holds.
        max_batch_size: Most items per call of ``answer_batch``, at least 1.

    Raises:
        ValueError: ``max_batch_size`` is below 1.

    Example:
        >>> async def main():
        ...     doubled = MicroBatcher(lambda items: [2 * item for item in items])
        ...     return await asyncio.gather(doubled(1), doubled(2))
        >>> asyncio.run(main())
        [2, 4]
    """

    def __init__(self, answer_batch: Callable[[Sequence[Item]], Sequence[Answer]], max_batch_size: int = 128) -> None:
        if max_batch_size < 1:
            raise ValueError(f"max_batch_size must be at least 1, got {max_batch_size}")
        self._find_answer_batch: Callable[[], Callable[[Sequence[Item]], Sequence[Answer]] | None]
        self._find_answer_batch = WeakMethod(answer_batch) if ismethod(answer_batch) else lambda: answer_batch
        self.max_batch_size = max_batch_size
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_PendingCall[Item, Answer]]]
        self._waiting = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()  # an event loop keeps weak references to its tasks alone

    @property
    def answer_batch(self) -> Callable[[Sequence[Item]], Sequence[Answer]]:
        """Answers several items at once; ``ReferenceError`` where its object is no more."""
        found = self._find_answer_batch()
        if found is None:
            raise ReferenceError("whoever was to answer these calls is no more")
        return found

    async def __call__(self, item: Item) -> Answer:
        """Answers one item.

        Raises:
            ValueError: ``answer_batch`` gives more or fewer answers than it got items.
            Exception: Whatever ``answer_batch`` raises for this item alone; with a ``PartialAnswer`` it answers some.
        """
        loop = asyncio.get_running_loop()
        call: _PendingCall[Item, Answer] = _PendingCall(item, loop.create_future())
        waiting = self._waiting.get(loop)
        if waiting is None:
            self._waiting[loop] = waiting = []
            task = loop.create_task(self._serve_waiting(loop, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting.append(call)
        return await call.future

    async def _serve_waiting(self, loop: asyncio.AbstractEventLoop, waiting: list[_PendingCall[Item, Answer]]) -> None:
        """Serves the calls of one event loop, batch by batch, until none waits."""
        calls: list[_PendingCall[Item, Answer]] = []
        try:
            await asyncio.sleep(0)  # every coroutine that is ready in this turn of the loop makes its call first
            while waiting:
                calls, waiting[:] = list(waiting), []
                await self._serve(calls)
        finally:
            del self._waiting[loop]
            for call in (*calls, *waiting):  # if this task is cancelled; a future that has its answer keeps it
                call.future.cancel()

    async def _serve(self, calls: Sequence[_PendingCall[Item, Answer]]) -> None:
        """Serves calls batch by batch; what failed is searched for its faults when the other batches are served."""
        search = FaultSearch([], size=self.max_batch_size, is_transient=is_transient)
        for start in range(0, len(calls), self.max_batch_size):
            batch = range(start, min(start + self.max_batch_size, len(calls)))
            places = [place for place in batch if not calls[place].future.done()]
            if not places:
                continue
            if len(search.failed) > 1 and not search.answered:
                search.untried += places  # two batches failed: a third of the kind would tell nothing more
                continue
            outcome = await self._answer_places(calls, places)
            search.untried += outcome.untried
            for group, error in outcome.failed:
                said = name_error(error)
                logger.warning("%d calls failed together (%s); the one at fault is looked for", len(group), said)
                search.failed.append((group, error))
                search.report(error)
            if outcome.answers:
                search.report(None)
        await self._find_faults(calls, search)

    async def _find_faults(self, calls: Sequence[_PendingCall[Item, Answer]], search: FaultSearch) -> None:
        for places in search:
            if search.pressing is not None:
                await asyncio.sleep(back_off(search.pressing, search.failures))
            outcome = await self._answer_places(calls, places)
            search.report(outcome.failed[0][1] if outcome.failed else None)
        for place, error in search.faults.items():
            if not calls[place].future.done():
                calls[place].future.set_exception(error)

    async def _answer_places(self, calls: Sequence[_PendingCall[Item, Answer]], places: Sequence[int]) -> PartialAnswer:
        """Answers some of the calls in one pass, without those that were cancelled; says what failed, by place."""
        alive = [place for place in places if not calls[place].future.done()]
        try:
            answers = await self._compute_answers([calls[place].item for place in alive])
            outcome = PartialAnswer(dict(enumerate(answers)), [])
        except PartialAnswer as partial:
            outcome = partial
        except Exception as error:
            outcome = PartialAnswer({}, [(list(range(len(alive))), error)])
        for i, answer in outcome.answers.items():
            if not calls[alive[i]].future.done():
                calls[alive[i]].future.set_result(answer)
        failed = [([alive[i] for i in group], error) for group, error in outcome.failed]
        return PartialAnswer(outcome.answers, failed, [alive[i] for i in outcome.untried])

    async def _compute_answers(self, items: Sequence[Item]) -> Sequence[Answer]:
        answers = await call_in_thread(self.answer_batch, items) if items else []
        if len(answers) != len(items):
            raise ValueError(f"answer_batch must give one answer per item, got {len(answers)} for {len(items)}")
        return answers

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep; event loops and futures belong to this instance alone."""
        return {"answer_batch": self.answer_batch, "max_batch_size": self.max_batch_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(vars(MicroBatcher(state["answer_batch"], state["max_batch_size"])))
