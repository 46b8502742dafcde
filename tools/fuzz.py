"""Fuzzing of every border where text of other people comes in: only documented errors may come out.

    python tools/fuzz.py --inputs 1000000 --minutes 30

Inputs are tried for each target (records, files, queries, templates, settings, tokens, JSON lines, names, TOML, the
command line) until there were so many or the time is over. Hypothesis draws some hundreds, which are tried as they are;
all others are these, those of the corpus and those of ``fuzz_inputs.WRITTEN`` with random changes. With ``--engine
hypothesis`` it draws every one, a hundred a second.

An input that raises anything but a documented error, breaks what the target promises, or takes more than ten seconds is
made small and kept in tests/corpus, where ``tests/test_corpus.py`` tries it again. The exit status is 1 where one was
found.
"""

import argparse
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from fuzz_inputs import WRITTEN
from fuzz_mutate import Mutator, shrink
from fuzz_targets import TARGETS, Target

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "corpus"
CHUNK = 2000
SEEDS = 300  # of one target, drawn by hypothesis
MOST_FAULTS = 5  # of one target in one run
LONGEST = 10.0  # seconds of processor time for one input

Fault = tuple[Any, Exception]


class TooSlowError(BaseException):
    """An input takes too long; no ``Exception``, for some of what is tried catches those."""


def fuzz_mutated(target: Target, inputs: int, seconds: float, first_seed: int = 0) -> tuple[int, list[Fault]]:
    """Tries a target with inputs that are changed at random.

    Args:
        target: What is tried.
        inputs: Most inputs.
        seconds: Most time.
        first_seed: Of the draws and the changes.

    Returns:
        The number of inputs that were tried, and each fault with its smallest input; two at one line of code are one.
    """
    end, tried = time.monotonic() + seconds, 0
    seeds = list_seeds(target, first_seed)
    mutator = Mutator(seeds, random.Random(f"{target.name} {first_seed}"))
    faults: dict[str, Fault] = {}
    while tried < inputs and time.monotonic() < end and len(faults) < MOST_FAULTS:
        value = seeds[tried] if tried < len(seeds) else mutator.draw()
        if not target.fits(value):
            continue
        tried += 1
        error = _try(target, value)
        if error is None or _place(error) in faults:
            continue
        faults[_place(error)] = _shrink(target, value, error)
    return tried, list(faults.values())


def _shrink(target: Target, value: Any, error: Exception) -> Fault:
    place = _place(error)
    smallest = shrink(value, lambda smaller: target.fits(smaller) and _place(_try(target, smaller)) == place)
    return smallest, _try(target, smallest) or error


def list_seeds(target: Target, first_seed: int = 0) -> list[Any]:
    """Inputs to begin with: those written by hand, those of the corpus, and some that hypothesis draws."""
    kept = [json.loads(path.read_text(encoding="ascii")) for path in sorted(CORPUS.glob(f"{target.name}-*.json"))]
    seeds = [*WRITTEN.get(target.name, []), *(item["input"] for item in kept)]
    _draw(target, lambda value: seeds.append(value), SEEDS, first_seed)
    return list(filter(target.fits, seeds))


def _try(target: Target, value: Any) -> Exception | None:
    """What an input raises that it must not."""
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        target.check(value)
    except Exception as error:
        return error
    except TooSlowError:
        return TimeoutError(f"takes more than {LONGEST:.0f} s")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def _stop(*_: object) -> None:
    raise TooSlowError


def fuzz(target: Target, inputs: int, seconds: float, first_seed: int = 0) -> tuple[int, list[Fault]]:
    """Tries a target with inputs that hypothesis draws; as ``fuzz_mutated`` otherwise."""
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

        try:
            _draw(target, check, min(CHUNK, inputs - tried), first_seed + tried)
        except Exception:  # hypothesis raises what the check raised
            if failed is None:
                raise
            faults[_place(failed[1])] = failed
        tried += max(count, 1)
    return tried, list(faults.values())


def _draw(target: Target, check: Callable[[Any], None], inputs: int, first_seed: int) -> None:
    run = settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    seed(first_seed)(run(given(target.inputs)(check)))()


def _place(error: Exception | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__


def keep(target: Target, value: Any, folder: Path = CORPUS) -> Path:
    """Writes an input to the corpus."""
    text = json.dumps({"target": target.name, "input": value}, indent=1) + "\n"
    path = folder / f"{target.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    return path


ENGINES = {"mutate": fuzz_mutated, "hypothesis": fuzz}


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="most inputs, of all targets together")
    parser.add_argument("--minutes", type=float, default=30, help="most time, of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=ENGINES, default="mutate", help="where inputs come from")
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), help="these targets alone")
    options = parser.parse_args()
    chosen = [target for name, target in TARGETS.items() if not options.only or name in options.only]
    status, whole, end = 0, 0, time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen:
            target.prepare(Path(folder))
            began = time.monotonic()
            waiting = chosen[chosen.index(target) :]
            left = (end - began) * target.share / sum(other.share for other in waiting)  # what others left over too
            tried, faults = ENGINES[options.engine](target, options.inputs // len(chosen), left, options.seed)
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
