#!/usr/bin/env python
"""Mutation testing of the mathematics and the search: are changes of the code noticed by its tests?

    pip install cosmic-ray
    python tools/mutate.py --mutants 200 --minutes 15

cosmic-ray says which changes there are (an operator, a comparison, a number, a condition, a loop's break); a sample of
them, drawn by a seed, is made one at a time in a copy of the checkout, and the tests of the changed module run there.
Annotations are left out, for nothing reads them. A test that fails, or takes too long, kills the mutant.

Ends with each survivor as a difference, the share that was killed by module, and exit status 1 below ``--least``.
"""

import argparse
import ast
import difflib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("kdprompt", "integrations", "tests", "tools", "pyproject.toml")
OBJECTIVE = ["tests/objective", "tests/selection/test_accounting.py", "tests/selection/test_golden.py"]
TESTS = {  # of each module or folder; the first that fits counts
    "kdprompt/theory/kernels.py": ["tests/theory/test_kernels.py"],
    "kdprompt/theory/mmd.py": ["tests/theory/test_mmd.py"],
    "kdprompt/theory/bounds.py": ["tests/theory/test_bounds.py"],
    "kdprompt/objective/own_knowledge.py": ["tests/calibration", *OBJECTIVE],
    "kdprompt/objective": OBJECTIVE,
    "kdprompt/search": ["tests/search", "tests/selection/test_golden.py"],
}
SKIPPED = ("RemoveDecorator", "ExceptionReplacer")  # what is left is no module, or no other behaviour
KILLED, SURVIVED, LATE = "killed", "survived", "too late"


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: The module, from the root of the checkout.
        operator: cosmic-ray's name of the kind of change.
        occurrence: Which of the places in the module where it can be made.
        line: The line of that place, from 1.
    """

    module: str
    operator: str
    occurrence: int
    line: int


def list_modules() -> list[str]:
    """The modules that are changed."""
    files = [path for name in TESTS for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).glob("*.py"))]
    return sorted({str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"})


def find_tests(module: str) -> list[str]:
    """The tests that are to notice a change of a module."""
    return next(tests for name, tests in TESTS.items() if module.startswith(name))


def list_mutants(module: str) -> Iterator[Mutant]:
    """Every change of a module that cosmic-ray knows, without those in annotations."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / module).read_text(encoding="utf-8")
    annotations = list(find_annotations(source))
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or name.endswith(SKIPPED):
            continue
        places = [start for node in nodes for start, _ in operator().mutation_positions(node)]
        for occurrence, start in enumerate(places):
            if not any(begin <= start < end for begin, end in annotations):
                yield Mutant(module, name, occurrence, start[0])


def find_annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end, as (line, column).

    Example:
        >>> list(find_annotations("def f(x: int | None) -> str: ..."))
        [((1, 9), (1, 19)), ((1, 24), (1, 27))]
    """
    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def apply(mutant: Mutant, source: str) -> str:
    """The module with the change."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    changed = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    assert changed is not None
    return str(changed)


def run_tests(folder: Path, tests: list[str], seconds: float) -> str:
    """What the tests in a copy say, run in a fork of this process, which has loaded torch and pytest already."""
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(folder)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.path[:0] = [str(folder), str(folder / "integrations")]
        import pytest

        marks = ["-m", "not slow and not model and not data", "-p", "no:cacheprovider", "-p", "no:randomly"]
        os._exit(int(pytest.main(["-x", "-q", *marks, *tests])))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return SURVIVED if status == 0 else KILLED
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return LATE


def load_libraries() -> None:
    """What every fork needs, loaded once; nothing of kdprompt, which each loads from the copy, and no pytest plugin."""
    import numpy
    import pydantic
    import pytest
    import scipy.stats
    import torch

    torch.set_num_threads(1)  # a fork does not keep threads
    assert all((numpy, pydantic, pytest, scipy)) and "kdprompt" not in sys.modules


def show(mutant: Mutant, before: str, after: str) -> str:
    """A mutant as a difference of lines."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join([f"{mutant.module}:{mutant.line} {mutant.operator}", *changed])


def measure(mutants: list[Mutant], minutes: float) -> tuple[Counter[tuple[str, str]], list[str]]:
    """How many of each module's mutants had which end, and those that survived; stops when time is up."""
    sys.dont_write_bytecode = True  # two mutants of one size within a second would share it
    load_libraries()
    until = time.monotonic() + 60 * minutes
    ends: Counter[tuple[str, str]] = Counter()
    survivors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            ignored = {"ignore": shutil.ignore_patterns("__pycache__")} if (ROOT / part).is_dir() else {}
            copy(ROOT / part, folder / part, **ignored)
        limits: dict[str, float] = {}
        for mutant in mutants:
            if time.monotonic() > until:
                break
            tests = find_tests(mutant.module)
            if str(tests) not in limits:
                began = time.monotonic()
                if run_tests(folder, tests, 600) != SURVIVED:
                    raise SystemExit(f"the tests fail without a change: {' '.join(tests)}")
                limits[str(tests)] = 30 + 3 * (time.monotonic() - began)
            source = (folder / mutant.module).read_text(encoding="utf-8")
            changed = apply(mutant, source)
            (folder / mutant.module).write_text(changed, encoding="utf-8")
            end = run_tests(folder, tests, limits[str(tests)])
            (folder / mutant.module).write_text(source, encoding="utf-8")
            ends[mutant.module, end] += 1
            if end == SURVIVED:
                survivors.append(show(mutant, source, changed))
                sys.stderr.write(survivors[-1] + "\n")
    return ends, survivors


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=0.85, help="share that must be killed")
    parser.add_argument("--only", default="", help="modules whose path holds this")
    chosen = parser.parse_args()
    everything = [mutant for name in list_modules() if chosen.only in name for mutant in list_mutants(name)]
    sample = random.Random(chosen.seed).sample(everything, min(chosen.mutants, len(everything)))
    ends, survivors = measure(sample, chosen.minutes)
    for module in sorted({module for module, _ in ends}):
        counts = {end: ends[module, end] for end in (KILLED, LATE, SURVIVED)}
        sys.stdout.write(f"{module}: " + ", ".join(f"{count} {end}" for end, count in counts.items()) + "\n")
    tried = sum(ends.values())
    killed = tried - len(survivors)
    share = killed / max(tried, 1)
    said = f"{killed} of {tried} mutants killed ({share:.0%}), of {len(everything)} that there are\n"
    sys.stdout.write("\n".join([*survivors, said]))
    return 0 if tried and share >= chosen.least else 1


if __name__ == "__main__":
    sys.exit(main())
