"""Concurrent calls in one pass, and ``aselect``, which is made of them."""

import asyncio
import copy
import pickle
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch

from kdprompt import DistillationSelector, EmbeddingError, PoolError, Query, QueryError, Settings
from kdprompt.micro_batching import MicroBatcher


def run(coroutine, seconds=60):
    """Runs it; what does not end fails."""

    async def bounded():
        return await asyncio.wait_for(coroutine, seconds)

    return asyncio.run(bounded())


class Recorded:
    """Doubles numbers, notes every pass, and can be held up in the first one."""

    def __init__(self):
        self.passes = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, items):
        self.passes.append(list(items))
        assert self.go.wait(60)
        if "bad" in items:
            raise KeyError("bad")
        return [2 * item for item in items]

    async def begun(self, passes=1):
        while len(self.passes) < passes:
            await asyncio.sleep(0.001)


@pytest.fixture
def recorded():
    return Recorded()


async def spawned(double, items):
    """Tasks that have all asked."""
    tasks = [asyncio.ensure_future(double(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


# -- the batcher --------------------------------------------------------------------------------------------------


def test_what_is_asked_at_the_same_time_is_one_pass_in_order(recorded):
    double = MicroBatcher(recorded)

    async def main():
        return await asyncio.gather(*map(double, range(50)))

    assert run(main()) == list(range(0, 100, 2))
    assert recorded.passes == [list(range(50))]


def test_what_comes_during_a_pass_makes_up_the_next_one(recorded):
    double = MicroBatcher(recorded)
    recorded.go.clear()

    async def main():
        (first,) = await spawned(double, [0])
        await recorded.begun()
        later = await spawned(double, [1, 2, 3])
        recorded.go.set()
        return [await first, *await asyncio.gather(*later), await double(4)]

    assert run(main()) == [0, 2, 4, 6, 8]
    assert recorded.passes == [[0], [1, 2, 3], [4]]


def test_the_event_loop_turns_while_a_pass_is_computed(recorded):
    double = MicroBatcher(recorded)
    recorded.go.clear()

    async def main():
        (task,) = await spawned(double, [1])
        await recorded.begun()
        assert not task.done()
        recorded.go.set()  # by the loop itself, which the pass must not hold
        return await task

    assert run(main()) == 2


@pytest.mark.parametrize(("size", "passes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (8, [7])])
def test_no_pass_is_larger_than_its_size(size, passes, recorded):
    double = MicroBatcher(recorded, size)

    async def main():
        return await asyncio.gather(*map(double, range(7)))

    assert run(main()) == list(range(0, 14, 2))
    assert [len(each) for each in recorded.passes] == passes


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused(size, recorded):
    with pytest.raises(ValueError, match=f"max_batch_size must be at least 1, got {size}"):
        MicroBatcher(recorded, size)


def test_an_error_of_one_item_is_that_items_alone(recorded):
    double = MicroBatcher(recorded)

    async def main():
        return await asyncio.gather(*map(double, [1, "bad", 3, "bad"]), return_exceptions=True)

    one, bad, three, worse = run(main())
    assert (one, three) == (2, 6)
    assert isinstance(bad, KeyError) and isinstance(worse, KeyError) and bad is not worse
    assert run(double(5)) == 10


@pytest.mark.parametrize("answers", [[], [1], [1, 2, 3]], ids=len)
def test_a_wrong_number_of_answers_is_an_error_and_nobody_waits_for_ever(answers):
    double = MicroBatcher(lambda items: answers if len(items) > 1 else [1, 2])

    async def main():
        return await asyncio.gather(double(1), double(2), return_exceptions=True)

    for error in run(main(), 20):
        assert isinstance(error, ValueError) and "one answer per item, got 2 for 1" in str(error)


def test_a_cancelled_call_leaves_the_others(recorded):
    double = MicroBatcher(recorded, 2)
    recorded.go.clear()

    async def main():
        tasks = await spawned(double, range(6))
        await recorded.begun()
        for i in (1, 2, 3):  # one in the pass, and a whole pass of those that wait
            tasks[i].cancel()
        await asyncio.sleep(0)
        recorded.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = run(main())
    assert [found[i] for i in (0, 4, 5)] == [0, 8, 10]
    assert all(isinstance(found[i], asyncio.CancelledError) for i in (1, 2, 3))
    assert recorded.passes == [[0, 1], [4, 5]]


def test_nobody_waits_for_a_pass_whose_task_was_cancelled(recorded):
    double = MicroBatcher(recorded, 1)
    recorded.go.clear()

    async def main():
        before = asyncio.all_tasks()
        asked = await spawned(double, [1, 2])
        await recorded.begun()
        (drain,) = asyncio.all_tasks() - before - set(asked)
        drain.cancel()
        done, waiting = await asyncio.wait(asked, timeout=20)
        recorded.go.set()
        assert len(done) == 2 and not waiting and all(task.cancelled() for task in asked)
        return await double(3)

    assert run(main()) == 6


def test_a_loop_that_ended_in_the_middle_leaves_the_next_one_alone(recorded):
    double = MicroBatcher(recorded)
    recorded.go.clear()

    async def impatient():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(double(1), 0.05)
        recorded.go.set()

    run(impatient())
    assert run(double(2)) == 4
    assert recorded.passes[-1] == [2]


def test_loops_in_two_threads_share_no_pass():
    def owners(items):
        seen.append({owner for owner, _ in items})
        return list(items)

    seen, both, found = [], threading.Barrier(2, timeout=60), {}
    echo = MicroBatcher(owners)

    async def main(owner):
        answers = []
        for turn in range(20):
            both.wait()
            answers += await asyncio.gather(*(echo((owner, (turn, i))) for i in range(5)))
        return answers

    threads = [threading.Thread(target=lambda o=owner: found.update({o: run(main(o))})) for owner in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for owner in "ab":
        assert found[owner] == [(owner, (turn, i)) for turn in range(20) for i in range(5)]
    assert Counter(map(tuple, seen)) == {("a",): 20, ("b",): 20}


# -- aselect ------------------------------------------------------------------------------------------------------

WIDTH = 6
OUTPUTS = {"a": "red", "b": "green", "c": "blue"}


class Plain:
    """LangChain's two methods; texts that say ``fail`` fail. Texts that begin alike lie together."""

    def __init__(self):
        self.asked = []
        self.meeting = None

    def vector(self, text):
        centre = np.random.default_rng(ord(text[0])).normal(size=WIDTH)
        return centre + 0.4 * np.random.default_rng(list(text.encode())).normal(size=WIDTH)

    def embed_documents(self, texts):
        return np.array([self.vector(text) for text in texts])

    def embed_query(self, text):
        self.asked.append([text])
        if self.meeting is not None:
            self.meeting.wait()
        if "fail" in text:
            raise ConnectionError(text)
        return np.zeros(WIDTH) if "zero" in text else self.vector(text)

    def __getstate__(self):
        return {**self.__dict__, "meeting": None}  # a barrier cannot be copied


class Batched(Plain):
    """Many at once."""

    def embed_queries(self, texts):
        self.asked.append(list(texts))
        if any("fail" in text for text in texts):
            raise ConnectionError("fail")
        return np.array([np.zeros(WIDTH) if "zero" in text else self.vector(text) for text in texts])


class Awaited(Plain):
    """A service that is waited for."""

    def __init__(self):
        super().__init__()
        self.flying, self.most = 0, 0

    async def aembed_query(self, text):
        self.flying += 1
        self.most = max(self.most, self.flying)
        await self.wait()
        self.flying -= 1
        return list(super().embed_query(text))

    async def wait(self):
        await asyncio.sleep(0.02)

    def embed_query(self, text):
        raise AssertionError("the coroutine is there")


class AwaitedInWaves(Awaited):
    """Those that are in flight together are answered together, however late a busy machine is."""

    wave = None

    async def wait(self):
        if self.wave is None or self.wave.done():
            self.wave = asyncio.ensure_future(asyncio.sleep(0.02))
        await asyncio.shield(self.wave)


EMBEDDERS = pytest.mark.parametrize("kind", [Plain, Batched, Awaited], ids=lambda kind: kind.__name__)
QUERIES = [f"{letter} query {i}" for i in range(4) for letter in "abc"]


def selector(kind, n=36, tasks=(None,), **settings):
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": OUTPUTS["abc"[i % 3]]} for i in range(n)]
    for i, example in enumerate(examples):
        if (task := tasks[i // 3 % len(tasks)]) is not None:
            example["task"] = task
    return DistillationSelector.from_examples(examples, kind(), settings=Settings(**{"k": 4, **settings}))


async def together(chooser, queries, **more):
    return await asyncio.gather(*(chooser.aselect(query, **more) for query in queries), return_exceptions=True)


def by_hand(chooser, queries, **more):
    """Without the embedder's query side."""
    vectors = torch.tensor(np.array([chooser.embedder.vector(Query.model_validate(q).text) for q in queries]))
    return chooser.select_batch(queries, vectors=vectors, **more)


@EMBEDDERS
def test_aselect_answers_as_select_does(kind):
    chooser = selector(kind)
    queries = [Query(text=text) for text in QUERIES]
    expected = by_hand(chooser, queries)
    assert run(together(chooser, queries)) == expected
    assert len({found.ids for found in expected}) > 3
    assert [run(chooser.aselect(query)).ids for query in QUERIES[:3]] == [found.ids for found in expected[:3]]


@EMBEDDERS
def test_each_call_keeps_its_own_task_and_outputs(kind):
    chooser = selector(kind, tasks=("left", "right"))

    async def main():
        return await asyncio.gather(
            chooser.aselect("a query", task="left"),
            chooser.aselect({"input": "a query", "task": "right"}),
            chooser.aselect("a query", outputs=["blue", "green"]),
            chooser.aselect("a query"),
        )

    left, right, coloured, free = run(main())
    assert {d.task for d in left.demonstrations} == {"left"} and {d.task for d in right.demonstrations} == {"right"}
    assert {d.output for d in coloured.demonstrations} <= {"blue", "green"}
    assert [each.ids for each in (left, coloured, free)] == [
        by_hand(chooser, [query])[0].ids
        for query in (
            Query(text="a query", task="left"),
            Query(text="a query", outputs=frozenset({"blue", "green"})),
            Query(text="a query"),
        )
    ]


@EMBEDDERS
def test_each_call_keeps_its_own_k_prefix_and_what_the_reader_knows(kind):
    chooser = selector(kind)
    prefix = chooser.select_static(k=2)
    own = {"red": -0.1, "green": -3.0, "blue": -3.0}
    asked = [{}, {"k": 2}, {"prefix": prefix}, {"prefix": prefix.ids, "k": 6}, {"own": own}, {"prefix": ()}]

    async def main():
        return await asyncio.gather(*(chooser.aselect("a query", **more) for more in asked))

    found = run(main())
    expected = [by_hand(chooser, [Query(text="a query", own=more.pop("own", None))], **more)[0] for more in asked]
    assert found == expected
    assert [len(each) for each in found] == [4, 2, 4, 6, 4, 4] and found[3].ids[:2] == prefix.ids


def test_a_prefix_that_cannot_stand_fails_alone():
    chooser = selector(Batched)

    async def main():
        calls = (chooser.aselect("a query", prefix=each) for each in (None, ["nowhere"], "a"))
        return await asyncio.gather(*calls, return_exceptions=True)

    found = run(main())
    assert found[0] == chooser.select("a query")
    assert [type(each) for each in found[1:]] == [PoolError, QueryError] and "wrap it in a list" in str(found[2])


@EMBEDDERS
def test_a_bad_query_fails_alone(kind):
    chooser = selector(kind, tasks=("left", "right"))
    unknown = Query(text="a query", task="up")
    bad = ["", unknown, "b fail", "b zero", Query(text="a query", outputs=frozenset({"pink"}))]
    found = run(together(chooser, ["a query", *bad, "c query"]))
    errors = [QueryError, QueryError, ConnectionError, EmbeddingError, QueryError]
    assert [type(each) for each in found[1:-1]] == errors
    assert "b zero" in str(found[4]) and "no task 'up'" in str(found[2])
    good = by_hand(chooser, [Query(text="a query"), Query(text="c query")])
    assert [found[0], found[-1]] == good


class Counted(Batched):
    """Fails on texts that say so, or always; notes when each call began."""

    def __init__(self, error=RuntimeError):
        super().__init__()
        self.error, self.down, self.seconds = error, False, 0.0

    def embed_queries(self, texts):
        self.asked.append(list(texts))
        time.sleep(self.seconds)
        if self.down or any("poison" in text for text in texts):
            raise self.error("no")
        return np.array([self.vector(text) for text in texts])


def queries_with_poison(place, n=64):
    return [f"{'abc'[i % 3]} {'poison' if i == place else 'query'} {i}" for i in range(n)]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ConnectionError])
@pytest.mark.parametrize("place", [0, 21, 32, 63])
def test_one_poisoned_query_of_64_costs_8_calls_and_itself_alone(place, error):
    chooser, texts = selector(Counted), queries_with_poison(place)
    chooser.embedder.error = error
    found = run(together(chooser, texts))
    fault = found.pop(place)
    assert texts[place] in str(fault) and isinstance(fault, ConnectionError if error is ConnectionError else ValueError)
    assert len(chooser.embedder.asked) <= 8
    assert found == by_hand(chooser, [Query(text=text) for text in texts if "poison" not in text])


@pytest.mark.parametrize("n", [1, 20, 64, 300])
def test_a_service_that_is_down_is_called_three_times(n):
    chooser = selector(Counted)
    chooser.embedder.down, chooser.embedder.error = True, ConnectionError
    found = run(together(chooser, queries_with_poison(-1, n)))
    assert [type(each) for each in found] == [ConnectionError] * n and len(chooser.embedder.asked) <= 3
    assert "b query 1" in str(found[1 % n]) or n == 1
    chooser.embedder.down = False
    assert len(run(chooser.aselect("a query"))) == 4


@pytest.mark.parametrize("place", [5, 40])
def test_the_other_callers_wait_little_longer(place):
    chooser = selector(Counted)
    run(together(chooser, queries_with_poison(-1)))
    chooser.embedder.seconds = 0.2

    async def timed(text):
        start = time.monotonic()
        try:
            await chooser.aselect(text)
        except EmbeddingError:
            return None
        return time.monotonic() - start

    async def median(texts):
        waits = [wait for wait in await asyncio.gather(*map(timed, texts)) if wait is not None]
        return sorted(waits)[len(waits) // 2]

    clean = run(median(queries_with_poison(-1)))
    assert run(median(queries_with_poison(place))) < 2 * clean


def test_a_call_that_failed_once_is_made_again():
    chooser = selector(Counted)
    calls = chooser.embedder.asked

    class Once(Counted):
        def embed_queries(self, texts):
            self.down = not self.asked
            return super().embed_queries(texts)

    for kind, n in ((Once, 1), (Once, 12)):
        chooser.embedder = kind(ConnectionError)
        assert all(len(found) == 4 for found in run(together(chooser, queries_with_poison(-1, n))))
    assert calls == []


@pytest.mark.parametrize("kind", [Plain, Awaited])
def test_an_embedder_of_one_is_tried_again(kind):
    chooser = selector(kind)
    vector, left = chooser.embedder.vector, [2]

    def flaky(text):
        left[0] -= 1
        if left[0] >= 0:
            raise TimeoutError(text)
        return vector(text)

    chooser.embedder.vector = flaky
    assert len(run(chooser.aselect("a query"))) == 4 and left == [-1]
    left[0] = 2
    chooser.embedder.aembed_query = None
    assert len(chooser.select("a query")) == 4 if kind is Plain else True


def test_callers_that_were_cancelled_are_not_embedded():
    chooser = selector(Counted)
    chooser.embedder.seconds = 0.3

    async def main():
        first = asyncio.ensure_future(chooser.aselect("a query"))
        await asyncio.sleep(0.1)
        late = [asyncio.ensure_future(chooser.aselect(f"b query {i}")) for i in range(4)]
        await asyncio.sleep(0.05)
        for task in late[:3]:
            task.cancel()
        return await asyncio.gather(first, *late, return_exceptions=True)

    assert len(run(main())) == 5
    assert chooser.embedder.asked == [["a query"], ["b query 3"]]


def test_an_embedder_of_many_is_asked_once():
    chooser = selector(Batched)
    run(together(chooser, QUERIES))
    assert chooser.embedder.asked == [QUERIES]


def test_an_embedder_that_is_awaited_is_asked_for_all_at_the_same_time_once_it_answers():
    chooser = selector(AwaitedInWaves)
    run(together(chooser, QUERIES))
    assert chooser.embedder.most == len(QUERIES) - 2 and len(chooser.embedder.asked) == len(QUERIES)


def test_an_embedder_of_one_is_asked_from_several_threads():
    """Each call waits until another one is under way."""
    chooser = selector(Plain)
    chooser.embedder.meeting = threading.Barrier(2, timeout=30)
    found = run(together(chooser, QUERIES[:4]))
    assert [each.ids for each in found] == [each.ids for each in by_hand(chooser, [Query(text=t) for t in QUERIES[:4]])]


class Faulty(Plain):
    """Takes one text a call; fails on texts that say so, or always."""

    def __init__(self, error=ConnectionError):
        super().__init__()
        self.error, self.down = error, False

    def embed_query(self, text):
        self.asked.append(text)
        if self.down or "poison" in text:
            raise self.error("no")
        return self.vector(text)


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError])
@pytest.mark.parametrize("n", [1, 2, 64])
def test_a_service_of_one_that_is_down_is_called_three_times(n, error):
    chooser, texts = selector(Faulty), queries_with_poison(-1, n)
    embedder = chooser.embedder
    embedder.down, embedder.error = True, error
    kind = ConnectionError if error is ConnectionError else EmbeddingError
    assert [type(each) for each in run(together(chooser, texts))] == [kind] * n and len(embedder.asked) <= 3
    embedder.asked.clear()
    with pytest.raises(kind) as caught:
        chooser.select_batch(texts)
    assert len(embedder.asked) <= 3 and str(caught.value).count("the embedder failed") == 1
    embedder.down = False
    assert len(run(chooser.aselect("a query"))) == 4


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError, ValueError])
@pytest.mark.parametrize("place", [0, 40])
def test_one_poisoned_query_costs_a_service_of_one_itself_alone(place, error):
    chooser, texts = selector(Faulty), queries_with_poison(place)
    chooser.embedder.error = error
    found = run(together(chooser, texts))
    assert texts[place] in str(found.pop(place)) and all(len(each) == 4 for each in found)
    assert len(chooser.embedder.asked) <= 66
    chooser.embedder.asked.clear()
    with pytest.raises((EmbeddingError, ConnectionError), match=texts[place]):
        chooser.select_batch(texts)
    assert len(chooser.embedder.asked) <= place + 3


def test_a_service_of_one_that_dies_among_many_calls_is_tried_again_twice_in_all():
    chooser = selector(Faulty)
    left = [20]

    async def answer(text):
        chooser.embedder.asked.append(text)
        await asyncio.sleep(0.05)
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError("gone")
        return chooser.embedder.vector(text)

    chooser.embedder.aembed_query = answer
    found = run(together(chooser, queries_with_poison(-1)))
    assert [type(each) for each in found].count(ConnectionError) == 44 and len(chooser.embedder.asked) <= 66


@pytest.mark.parametrize("kind", [Plain, Batched, Awaited])
def test_a_recording_that_has_run_out_fails_alone(kind):
    """A ``StopIteration`` cannot be set on a future: who waited for it waited for ever."""
    chooser = selector(kind)
    vector = chooser.embedder.vector

    def answer(text):
        return next(iter(())) if "over" in text else vector(text)

    chooser.embedder.vector = answer
    found = run(asyncio.wait_for(together(chooser, ["a query", "b over"]), 30))
    assert len(found[0]) == 4 and type(found[1]) is EmbeddingError
    assert "failed on the text 'b over': StopIteration" in str(found[1])
    if kind is not Awaited:
        with pytest.raises(EmbeddingError) as caught:
            chooser.select("b over")
        assert str(caught.value) == str(found[1])


def test_other_functions_that_have_run_out_do_not_hang_either():
    async def ask():
        return await asyncio.wait_for(MicroBatcher(lambda items: next(iter(())))(1), 30)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        run(ask())


def test_a_cancelled_aselect_leaves_the_others():
    chooser = selector(Awaited)

    async def main():
        tasks = [asyncio.ensure_future(chooser.aselect(query)) for query in QUERIES[:3]]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, cancelled, last = run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [first, last] == by_hand(chooser, [Query(text=QUERIES[0]), Query(text=QUERIES[2])])


def copied(chooser):
    return copy.copy(chooser)


def deep(chooser):
    return copy.deepcopy(chooser)


def pickled(chooser):
    return pickle.loads(pickle.dumps(chooser))


@pytest.mark.parametrize("again", [copied, deep, pickled])
@pytest.mark.parametrize("kind", [Plain, Batched], ids=lambda kind: kind.__name__)
def test_a_copy_of_a_selector_is_a_selector_of_its_own(again, kind):
    chooser = selector(kind)
    before = run(chooser.aselect("a query"))
    other = again(chooser)
    assert run(other.aselect("a query")) == before
    other.remove(before.ids)
    after = run(other.aselect("a query"))
    assert not set(after.ids) & set(before.ids) and after == other.select("a query")
    assert run(chooser.aselect("a query")) == before and len(chooser.pool) == 36


def test_a_selector_may_be_copied_while_it_answers():
    chooser = selector(Awaited)

    async def main():
        task = asyncio.ensure_future(chooser.aselect("a query"))
        await asyncio.sleep(0)
        other = copy.deepcopy(chooser)
        return await asyncio.gather(task, other.aselect("a query"))

    one, two = run(main())
    assert one == two


def test_one_selector_serves_the_loops_of_several_threads():
    chooser, found = selector(Batched), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: run(together(chooser, QUERIES[i:]))})) for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = by_hand(chooser, [Query(text=text) for text in QUERIES])
    for i in range(3):
        assert [each.ids for each in found[i]] == [each.ids for each in expected[i:]]


def test_64_calls_at_once_are_one_pass(monkeypatch):
    """What this saves in time is measured in ``benchmarks/test_concurrent_calls.py``."""
    chooser, passes = selector(Batched), []
    select_batch = chooser.select_batch
    monkeypatch.setattr(
        chooser, "select_batch", lambda queries, **more: passes.append(len(queries)) or select_batch(queries, **more)
    )
    selections = run(together(chooser, [f"{'abc'[i % 3]} query {i}" for i in range(64)]))
    assert passes == [64] and [len(selection) for selection in selections] == [4] * 64
