"""Fuzzing of every border where text of other people comes in: only documented errors may come out.

    python tools/fuzz.py --inputs 1000000 --minutes 10

Hypothesis draws inputs for each target (records, files, queries, templates, settings, tokens, JSON lines, names, TOML,
the command line) until so many were tried or the time is over. An input that raises anything but a documented error, or
breaks what the target promises, is made small and kept in tests/corpus, where ``tests/test_corpus.py`` tries it again.
The exit status is 1 where one was found.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from fuzz_targets import TARGETS, Target

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "corpus"
CHUNK = 2000
MOST_FAULTS = 5  # of one target in one run

Fault = tuple[Any, Exception]


def fuzz(target: Target, inputs: int, seconds: float, first_seed: int = 0) -> tuple[int, list[Fault]]:
    """Tries a target.

    Args:
        target: What is tried.
        inputs: Most inputs.
        seconds: Most time.
        first_seed: Of the draws.

    Returns:
        The number of inputs that were tried, and each fault with its smallest input; two at one line of code are one.
    """
    end, tried = time.monotonic() + seconds, 0
    faults: dict[str, Fault] = {}
    while tried < inputs and time.monotonic() < end and len(faults) < MOST_FAULTS:
        count, failed = 0, None

        def check(value: Any) -> None:
            nonlocal count, failed
            if time.monotonic() > end:
                return
            count += 1
            try:
                target.check(value)
            except Exception as error:
                if _place(error) not in faults:
                    failed = value, error
                    raise

        run = settings(
            max_examples=min(CHUNK, inputs - tried),
            database=None,
            deadline=None,
            verbosity=Verbosity.quiet,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        try:
            seed(first_seed + tried)(run(given(target.inputs)(check)))()
        except Exception:  # hypothesis raises what the check raised
            if failed is None:
                raise
            faults[_place(failed[1])] = failed
        tried += max(count, 1)
    return tried, list(faults.values())


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"


def keep(target: Target, value: Any, folder: Path = CORPUS) -> Path:
    """Writes an input to the corpus."""
    text = json.dumps({"target": target.name, "input": value}, indent=1) + "\n"
    path = folder / f"{target.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    return path


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="most inputs, of all targets together")
    parser.add_argument("--minutes", type=float, default=10, help="most time, of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), help="these targets alone")
    options = parser.parse_args()
    chosen = [target for name, target in TARGETS.items() if not options.only or name in options.only]
    status, whole = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen:
            target.prepare(Path(folder))
            began = time.monotonic()
            left = options.minutes * 60 * target.share / sum(other.share for other in chosen)
            tried, faults = fuzz(target, options.inputs // len(chosen), left, options.seed)
            whole += tried
            say(f"{target.name:10} {tried:9,} inputs in {time.monotonic() - began:6.0f} s, {len(faults)} faults")
            for value, error in faults:
                status = 1
                say(f"  {_place(error)}: {error!s:.200}\n  kept as {keep(target, value)}")
    say(f"{whole:,} inputs")
    return status


def say(text: str) -> None:
    """Prints at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
