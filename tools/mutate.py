#!/usr/bin/env python
"""Mutation testing of the mathematics and the search: are changes of the code noticed by its tests?

    pip install cosmic-ray
    python tools/mutate.py --mutants 200 --minutes 15

cosmic-ray says which changes of functions there are (an operator, a comparison, a number, a condition, a loop's break);
a sample of them, drawn by a seed, is made one at a time, and the tests of the changed module run. Left out are changes
that do nothing (annotations, texts of messages, what compiles to the same steps), changes that are no Python, and what
stands outside functions: constants and defaults, where another number is another choice.

A process loads the tests once; for each mutant it forks, the fork gives the loaded functions their changed code and
runs the tests: quick ones first, one of each function's variants before the next, those that noticed other mutants
before others. A test that fails, or takes too long, kills the mutant. No file is changed.

Ends with each survivor as a difference, the share that was killed by module with its 95 % interval (Wilson), and exit
status 1 below ``--least``.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mutants import ROOT, Mutant, apply, differ, list_codes, list_mutants, patch, show

WHOLE = ["tests/selection/test_accounting.py", "tests/selection/test_golden.py"]  # of whole selections
TESTS = {  # of each module or folder; the first that fits counts. Those of the module itself: what they miss is missed
    "kdprompt/theory/kernels.py": ["tests/theory/test_kernels.py"],
    "kdprompt/theory/mmd.py": ["tests/theory/test_mmd.py"],
    "kdprompt/theory/bounds.py": ["tests/theory/test_bounds.py"],
    "kdprompt/objective/own_knowledge.py": ["tests/objective/test_own_knowledge.py"],
    "kdprompt/objective/regression.py": ["tests/objective/test_regression.py"],
    "kdprompt/objective/target.py": ["tests/objective", *WHOLE],
    "kdprompt/objective": ["tests/objective"],
    "kdprompt/search/ordering.py": ["tests/search/test_ordering.py"],
    "kdprompt/search/position_profiles.py": ["tests/search/test_ordering.py"],
    "kdprompt/search/mean_search.py": ["tests/search/test_mean_search.py"],
    "kdprompt/search/constraints.py": ["tests/search/test_constraints.py"],
    "kdprompt/search/exchange.py": ["tests/search/test_constraints.py"],
    "kdprompt/search": ["tests/search/test_search.py", "tests/search/test_properties.py", *WHOLE],
}
QUICK = 0.3  # seconds of a test that comes before the others
MEMORY = 16 << 30  # bytes that a fork may hold
KILLED, SURVIVED, LATE = "killed", "survived", "too late"

Ends = Counter[tuple[str, str]]


def list_modules() -> list[str]:
    """The modules that are changed."""
    files = [path for name in TESTS for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).glob("*.py"))]
    return sorted({str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"})


def find_tests(module: str) -> list[str]:
    """The tests that are to notice a change of a module."""
    return next(tests for name, tests in TESTS.items() if module.startswith(name))


def draw(mutants: list[Mutant], number: int, chance: random.Random) -> Iterator[tuple[Mutant, str, str]]:
    """A sample of mutants that do something, each with its module's text before and after."""
    found = 0
    for mutant in chance.sample(mutants, len(mutants)):
        if found >= number:
            return
        before = (ROOT / mutant.module).read_text(encoding="utf-8")
        after = apply(mutant, before)
        codes, changed = list_codes(mutant.module, before), list_codes(mutant.module, after)
        if codes is not None and changed is not None and differ(codes, changed):
            found += 1
            yield mutant, before, after


class ForkedSession:
    """A pytest plugin that runs the tests that were collected once for each mutant, in a fork.

    Args:
        sample: Mutants with the text before and after.
        until: When to stop, as ``time.monotonic`` has it.
        variants: Most variants of each test function that run.
        folder: For what forks report.
    """

    def __init__(
        self, sample: Iterable[tuple[Mutant, str, str]], until: float, variants: int | None, folder: Path
    ) -> None:
        self.sample, self.until, self.variants = sample, until, variants
        self.report = folder / "report.json"
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self.ends: Ends = Counter()
        self.survivors: list[str] = []
        self.is_fork = False

    def pytest_collection_finish(self, session: Any) -> None:
        """Runs everything in forks; nothing is left to be run here."""
        tests, kills = list(session.items), Counter[str]()
        if self._fork():
            return
        end, reported = self._wait(600)
        if end != SURVIVED:
            raise SystemExit(f"the tests fail without a change: {reported['failed']}")
        self.seconds = reported["seconds"]
        limit = 20 + 3 * sum(self.seconds.values())
        for mutant, before, after in self.sample:
            if time.monotonic() > self.until:
                break
            session.items[:] = sort_tests(tests, self.seconds, kills, self.variants)
            if self._fork(limit):
                patch(mutant.module, after)
                return
            end, reported = self._wait(10 * limit)
            kills.update(map(_function, reported["failed"]))
            self.ends[mutant.module, end] += 1
            if end == SURVIVED:
                self.survivors.append(show(mutant, before, after))
                sys.stderr.write(self.survivors[-1] + "\n")
        session.items.clear()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Notes how long a test took, and whether it failed."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_unconfigure(self) -> None:
        """Ends a fork."""
        if self.is_fork:
            self.report.write_text(json.dumps({"seconds": self.seconds, "failed": self.failed}))
            os._exit(1 if self.failed else 0)

    def _fork(self, processor_seconds: float | None = None) -> bool:
        """Whether this is the fork."""
        self.report.unlink(missing_ok=True)
        self.child = os.fork()
        self.is_fork = not self.child
        if self.is_fork:
            self.seconds, self.failed = {}, []
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            if processor_seconds is not None:
                whole = int(processor_seconds)
                resource.setrlimit(resource.RLIMIT_CPU, (whole, whole))
        return self.is_fork

    def _wait(self, seconds: float) -> tuple[str, dict[str, Any]]:
        """How the fork ended, and what it reported."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done, status = os.waitpid(self.child, os.WNOHANG)
            if done:
                if not self.report.exists():  # it was ended by the limit of its time, or crashed
                    return LATE, {"seconds": {}, "failed": []}
                return SURVIVED if status == 0 else KILLED, json.loads(self.report.read_text())
            time.sleep(0.01)
        os.kill(self.child, 9)
        os.waitpid(self.child, 0)
        return LATE, {"seconds": {}, "failed": []}


def sort_tests(tests: list[Any], seconds: dict[str, float], kills: Counter[str], variants: int | None) -> list[Any]:
    """Tests in the order in which they are likely to notice a mutant soon."""
    ranks, seen = {}, Counter[str]()
    for test in sorted(tests, key=lambda test: seconds.get(test.nodeid, 0.0)):
        ranks[test.nodeid] = seen[_function(test.nodeid)]
        seen[_function(test.nodeid)] += 1

    def place(test: Any) -> tuple[bool, int, int, float]:
        name, took = test.nodeid, seconds.get(test.nodeid, 0.0)
        return took > QUICK, ranks[name], -kills[_function(name)], took

    return sorted((test for test in tests if variants is None or ranks[test.nodeid] < variants), key=place)


def _function(nodeid: str) -> str:
    return nodeid.split("[", 1)[0]


def measure(chosen: argparse.Namespace) -> tuple[Ends, list[str]]:
    """How many of each module's mutants had which end, and those that survived."""
    sys.path[:0] = [str(ROOT), str(ROOT / "integrations")]  # this checkout, whichever is installed
    import pytest
    import torch

    import kdprompt

    if ROOT not in Path(kdprompt.__file__).parents:
        raise SystemExit(f"kdprompt is loaded from {kdprompt.__file__}, so no change of {ROOT} would be noticed")
    torch.set_num_threads(1)  # a fork does not keep threads
    os.chdir(ROOT)
    groups: dict[str, list[Mutant]] = {}
    for module in list_modules():
        if chosen.only in module:
            groups.setdefault(json.dumps(find_tests(module)), []).extend(list_mutants(module))
    whole = sum(map(len, groups.values()))
    ends, survivors = Ends(), list[str]()
    until = time.monotonic() + 60 * chosen.minutes
    for tests, mutants in groups.items():
        sample = draw(mutants, round(chosen.mutants * len(mutants) / whole), random.Random(chosen.seed))
        with tempfile.TemporaryDirectory() as folder:
            session = ForkedSession(sample, until, chosen.variants, Path(folder))
            marks = ["-m", "not slow and not model and not data", *"-p no:cacheprovider -p no:randomly".split()]
            pytest.main(
                ["-x", "-o", "addopts=--import-mode=importlib", "-p", "no:terminal", *marks, *json.loads(tests)],
                plugins=[session],
            )
        ends += session.ends
        survivors += session.survivors
    return ends, survivors


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=0.85, help="share that must be killed")
    parser.add_argument("--only", default="", help="modules whose path holds this")
    parser.add_argument("--variants", type=int, help="most variants of each test function; default: all")
    chosen = parser.parse_args()
    ends, survivors = measure(chosen)
    lines = [*survivors, *(describe(module, ends) for module in sorted({module for module, _ in ends}))]
    sys.stdout.write("\n".join([*lines, describe("", ends)]) + "\n")
    tried = sum(ends.values())
    return 0 if tried and len(survivors) <= (1 - chosen.least) * tried else 1


def describe(prefix: str, ends: Ends) -> str:
    """The ends of the mutants of the modules whose path begins so, as a line."""
    from scipy.stats import binomtest

    counts = Counter[str]()
    for (module, end), count in ends.items():
        counts[end] += count if module.startswith(prefix) else 0
    tried, killed = sum(counts.values()), counts[KILLED] + counts[LATE]
    interval = binomtest(killed, max(tried, 1)).proportion_ci(method="wilson")
    late = f", {counts[LATE]} of them too late" if counts[LATE] else ""
    share = f"{killed / max(tried, 1):.0%} ({interval.low:.0%} to {interval.high:.0%})"
    return f"{prefix or 'all'}: {killed} of {tried} killed{late}, {share}"


if __name__ == "__main__":
    sys.exit(main())
