#!/usr/bin/env python
"""Many threads and tasks at one selector: nothing acknowledged is lost, nothing removed comes back, nothing fails.

    python tools/stress.py --seconds 60 --threads 16 --tasks 200 --pool 2000

Each worker adds, updates, removes and selects in turn; what it updates and removes is its own. Checked is that

- no selection shows an example whose removal had returned before the selection began;
- no step fails;
- at the end the pool holds what was acknowledged, word for word, and nothing else;
- a pool of the same examples, built in one go, selects the same.

Ends with the counts and exit status 0, or with the first faults and 1.
"""

import argparse
import asyncio
import itertools
import random
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdprompt import CallableEmbedder, DistillationSelector, Pool, Settings
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.result import Selection

WIDTH = 32
OUTPUTS = ("red", "green", "blue", "white")


def embed(texts: list[str]) -> Tensor:
    """A direction of its own for each text, near to those of its topic, its second word."""
    rows = []
    for text in texts:
        topic, own = (torch.Generator().manual_seed(zlib.crc32(part.encode())) for part in (text.split()[1], text))
        rows.append(torch.randn(WIDTH, generator=topic) + 0.5 * torch.randn(WIDTH, generator=own))
    return torch.stack(rows)


@dataclass
class Ledger:
    """What was acknowledged: the examples that must be there, and when others were gone.

    Attributes:
        outputs: Output of each id that must be there.
        inputs: Likewise the input.
        removed: Time at which the removal of an id had returned.
        faults: What must not be.
        done: How often each kind of step was made.
    """

    outputs: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    removed: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def check(self, selection: Selection, began: float) -> None:
        """Notes a selection that shows what was gone before it began."""
        for shown in selection.demonstrations:
            if self.removed.get(shown.id, began) < began:
                self.faults.append(f"{shown.id} was shown {began - self.removed[shown.id]:.3f} s after its removal")


class Worker:
    """One thread or task with examples of its own."""

    def __init__(self, name: str, selector: DistillationSelector, ledger: Ledger) -> None:
        self.name, self.selector, self.ledger = name, selector, ledger
        self.draw = random.Random(name)
        self.own: list[str] = []
        self.serial = itertools.count()

    def steps(self) -> Iterator[str]:
        """Kinds of steps, without end."""
        while True:
            kind = self.draw.choices(("add", "update", "remove", "select"), (3, 2, 2, 3))[0]
            yield kind if self.own or kind in ("add", "select") else "add"

    def new_example(self) -> dict[str, str]:
        """An example that nobody else makes."""
        topic = self.draw.randrange(50)
        text = f"topic {topic} example {next(self.serial)} of {self.name}"
        return {"input": text, "output": self.draw.choice(OUTPUTS)}

    def query(self) -> str:
        """A query near to some topic."""
        return f"query {self.draw.randrange(50)} of {self.name}"

    def note_added(self, ids: list[str], examples: list[dict[str, str]]) -> None:
        """Notes examples whose addition has returned."""
        for ident, example in zip(ids, examples, strict=True):
            self.ledger.inputs[ident], self.ledger.outputs[ident] = example["input"], example["output"]
        self.own += ids

    def take_own(self) -> str:
        """One of the worker's own ids, which nobody else changes."""
        return self.own.pop(self.draw.randrange(len(self.own)))

    def note_removed(self, ident: str) -> None:
        """Notes a removal that has returned."""
        self.ledger.removed[ident] = time.monotonic()
        del self.ledger.inputs[ident], self.ledger.outputs[ident]

    def run(self, until: float) -> None:
        """Works in this thread."""
        for kind in self.steps():
            if time.monotonic() > until or self.ledger.faults:
                return
            self.ledger.done[f"thread {kind}"] += 1
            if kind == "add":
                examples = [self.new_example() for _ in range(self.draw.choice((1, 1, 5)))]
                self.note_added(self.selector.add_examples(examples), examples)
            elif kind == "select":
                began = time.monotonic()
                self.ledger.check(self.selector.select(self.query()), began)
            else:
                ident = self.take_own()
                if kind == "update":
                    example = self.new_example()
                    self.selector.update(ident, example)
                    self.note_added([ident], [example])
                else:
                    self.selector.remove(ident)
                    self.note_removed(ident)

    async def run_async(self, until: float) -> None:
        """Works as a task; changes go to threads, as they wait for one another."""
        for kind in self.steps():
            if time.monotonic() > until or self.ledger.faults:
                return
            self.ledger.done[f"task {kind}"] += 1
            if kind == "add":
                examples = [self.new_example()]
                self.note_added(await asyncio.to_thread(self.selector.add_examples, examples), examples)
            elif kind == "select":
                began = time.monotonic()
                self.ledger.check(await self.selector.aselect(self.query()), began)
            else:
                ident = self.take_own()
                if kind == "update":
                    example = self.new_example()
                    await asyncio.to_thread(self.selector.update, ident, example)
                    self.note_added([ident], [example])
                else:
                    await asyncio.to_thread(self.selector.remove, ident)
                    self.note_removed(ident)


def build_selector(size: int) -> DistillationSelector:
    """A selector of some examples that nobody removes."""
    examples = [{"input": f"topic {i % 50} example {i} of all", "output": OUTPUTS[i % 4]} for i in range(size)]
    return DistillationSelector.from_examples(examples, CallableEmbedder(embed), settings=Settings(k=4))


def compare_pool(selector: DistillationSelector, ledger: Ledger) -> None:
    """Notes what differs between the pool and what was acknowledged, and from a pool of the same built in one go."""
    there = {shown.id: (shown.input, shown.output) for shown in selector.pool}
    expected = {ident: (ledger.inputs[ident], ledger.outputs[ident]) for ident in ledger.inputs}
    lost, back = expected.keys() - there.keys(), there.keys() - expected.keys()
    other = [ident for ident in expected.keys() & there.keys() if expected[ident] != there[ident]]
    for name, ids in (("lost", lost), ("there though removed", back), ("not as last updated", other)):
        if ids:
            ledger.faults.append(f"{len(ids)} examples are {name}: {sorted(ids)[:3]}")
    changed, settings = selector._pool, selector.settings
    embedded = EmbeddedPool.build(
        Pool(changed.pool), changed.vectors, selector.embedder, settings, changed.outputs, changed.lexical_share
    )
    fresh = DistillationSelector(embedded, settings, None, selector.calibration)
    for i in range(50):
        ours, theirs = (each.select(f"query {i} at the end").ids for each in (selector, fresh))
        if ours != theirs:
            ledger.faults.append(f"query {i}: {ours} of the changed pool, {theirs} of one built in one go")


def run_stress(seconds: float, threads: int, tasks: int, size: int) -> Ledger:
    """Lets the workers at a selector and checks what comes of it."""
    selector, ledger = build_selector(size), Ledger()
    for shown in selector.pool:
        ledger.inputs[shown.id], ledger.outputs[shown.id] = shown.input, str(shown.output)
    until = time.monotonic() + seconds
    pool = [Worker(f"thread{i}", selector, ledger) for i in range(threads)]
    running = [threading.Thread(target=_work, args=(worker, until)) for worker in pool]
    for thread in running:
        thread.start()
    asyncio.run(_work_together([Worker(f"task{i}", selector, ledger) for i in range(tasks)], until))
    for thread in running:
        thread.join()
    compare_pool(selector, ledger)
    return ledger


def _work(worker: Worker, until: float) -> None:
    try:
        worker.run(until)
    except Exception:
        worker.ledger.faults.append(traceback.format_exc())


async def _work_together(workers: list[Worker], until: float) -> None:
    outcomes = await asyncio.gather(*(worker.run_async(until) for worker in workers), return_exceptions=True)
    for worker, outcome in zip(workers, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            worker.ledger.faults.append("".join(traceback.format_exception(outcome)))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--pool", type=int, default=2000, help="examples at the start")
    chosen = parser.parse_args()
    ledger = run_stress(chosen.seconds, chosen.threads, chosen.tasks, chosen.pool)
    done = ", ".join(f"{count} × {kind}" for kind, count in sorted(ledger.done.items()))
    found = f"{len(ledger.inputs)} examples acknowledged, {len(ledger.removed)} removed, {len(ledger.faults)} faults"
    sys.stdout.write("\n".join([done, found, *ledger.faults[:5]]) + "\n")
    return 1 if ledger.faults else 0


if __name__ == "__main__":
    sys.exit(main())
