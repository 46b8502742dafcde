"""Checks of a pool's outputs: missing ones, rare ones, and those that the rest of the pool contradicts."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from kdprompt.diagnose.diagnosis import Finding, Instance, say_count
from kdprompt.diagnose.examined_pool import ExaminedPool
from kdprompt.diagnose.wrong_outputs import EXAMPLES_PER_LABEL, MAX_LABELS, find_wrong_outputs

__all__ = ["find_imbalance", "find_missing_outputs", "find_suspects"]


def find_missing_outputs(examined: ExaminedPool) -> Iterator[Finding]:
    """Examples without an output in a pool whose other examples have one."""
    missing = [d for d in examined.pool if d.output is None or not d.output.strip()]
    if missing and len(missing) < len(examined.pool):
        yield Finding(
            check="missing-outputs",
            severity="error",
            summary=f"{len(missing):,} of {len(examined.pool):,} examples have no output.",
            remedy="Give them one or take them out: as demonstrations they show the model an empty answer.",
            instances=tuple(Instance(ids=(d.id,), text=d.input, detail="no output") for d in missing),
        )


def find_imbalance(examined: ExaminedPool, ratio: float) -> Iterator[Finding]:
    """Labels that are rarer than the most frequent one of their task by a ratio."""
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for demonstration in examined.pool:
        if demonstration.output is not None:
            counts[demonstration.task][demonstration.output] += 1
    instances = []
    for by_output in counts.values():
        if len(by_output) > min(MAX_LABELS, by_output.total() // EXAMPLES_PER_LABEL):
            continue  # texts, and no labels
        (frequent, most), *others = by_output.most_common()
        for output, count in reversed(others):
            if count * ratio <= most:
                detail = f"{count:,} examples, where {frequent!r} has {most:,}"
                instances.append(Instance(text=output, detail=detail, score=count / most))
    if instances:
        yield Finding(
            check="imbalance",
            severity="note",
            summary=say_count(len(instances), "output is", "outputs are")
            + f" at least {ratio:g} times rarer than the most frequent one.",
            remedy="Add examples of them, or ask for them in every prompt (quotas).",
            instances=tuple(instances),
        )


def find_suspects(examined: ExaminedPool) -> Iterator[Finding]:
    """Labels that are probably wrong."""
    pool = examined.pool
    found = find_wrong_outputs(pool, examined.vectors, nearest=examined.nearest)
    if found.suspects:
        yield Finding(
            check="wrong-outputs",
            severity="warning",
            summary=say_count(len(found.suspects), "output is", "outputs are")
            + f" suspected to be wrong; at random about {found.noise:.1%} of "
            f"{found.judged:,} are.",
            remedy="Look at them, the likeliest first, and set right what is wrong.",
            instances=tuple(
                Instance(
                    ids=(pool[suspect.example].id,),
                    text=pool[suspect.example].input,
                    detail=f"has {suspect.output!r}, the pool says {suspect.suggested!r}",
                    score=suspect.probability,
                )
                for suspect in found.suspects
            ),
        )
