"""Concurrent calls in one pass: what coroutines ask for at the same time is answered by one call of a function.

There is no timer and no waiting: a call that comes alone goes on at the next turn of the event loop, and what comes
while a pass is computed makes up the next one.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["MicroBatcher"]

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class MicroBatcher(Generic[Asked, Answered]):
    """Awaits one answer; the answers to what is asked concurrently are computed together, in a worker thread.

    Event loops do not share batches, so one instance may serve several. A copy starts with nothing waiting.

    Args:
        answer: Many at once, in order.
        size: Most items a pass.

    Example:
        >>> async def main():
        ...     doubled = MicroBatcher(lambda items: [2 * item for item in items])
        ...     return await asyncio.gather(doubled(1), doubled(2))
        >>> asyncio.run(main())
        [2, 4]
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answered]], size: int = 128) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.answer = answer
        self.size = size
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[tuple[Asked, asyncio.Future[Answered]]]]
        self._waiting = WeakKeyDictionary()
        self._running: set[asyncio.Task[None]] = set()  # a task that nothing refers to may be collected

    async def __call__(self, item: Asked) -> Answered:
        """The answer to one item; raises what ``answer`` raises for it alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        waiting = self._waiting.get(loop)
        if waiting is None:
            self._waiting[loop] = waiting = []
            task = loop.create_task(self._drain(loop, waiting))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        waiting.append((item, future))
        return await future

    async def _drain(
        self, loop: asyncio.AbstractEventLoop, waiting: list[tuple[Asked, asyncio.Future[Answered]]]
    ) -> None:
        batch: list[tuple[Asked, asyncio.Future[Answered]]] = []
        try:
            await asyncio.sleep(0)  # all that is ready to run in this turn of the loop asks first
            while waiting:
                batch = [(item, future) for item, future in waiting[: self.size] if not future.done()]
                del waiting[: self.size]
                await self._serve(batch)
        finally:
            del self._waiting[loop]
            for _, future in (*batch, *waiting):  # of a task that was cancelled; what is answered stays so
                future.cancel()

    async def _serve(self, batch: Sequence[tuple[Asked, asyncio.Future[Answered]]]) -> None:
        try:
            answers = await self._answers([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # one item's fault is that item's alone
                for each in batch:
                    await self._serve([each])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), found in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(found)

    async def _answers(self, items: Sequence[Asked]) -> Sequence[Answered]:
        answers = await asyncio.to_thread(self.answer, items) if items else []
        if len(answers) != len(items):
            raise ValueError(f"answer must give one answer an item, got {len(answers)} for {len(items)}")
        return answers

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep: loops and futures belong to this instance."""
        return {"answer": self.answer, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(vars(MicroBatcher(state["answer"], state["size"])))
