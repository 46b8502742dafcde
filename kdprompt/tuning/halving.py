"""Sequential halving: how a few prompts are compared without wasting calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

__all__ = ["Race", "sequential_halving"]


@dataclass(frozen=True)
class Race:
    """What ``sequential_halving`` found.

    Attributes:
        winner: The candidate left.
        losses: Of each candidate on the first examples, as many as it was tried on.
    """

    winner: int
    losses: tuple[tuple[float, ...], ...]


def sequential_halving(count: int, losses: Callable[[int, range], Sequence[float]], *, first: int, total: int) -> Race:
    """The candidate of least mean loss, for a fraction of the calls that trying all of them on everything would take.

    All candidates are tried on a few examples, the better half on twice as many more, and so on until one is left or
    the examples are used up. All rounds but the last cost the same.

    Args:
        count: Candidates, at least 1.
        losses: Of a candidate on a range of the examples, one number an example.
        first: Examples of the first round, at least 1.
        total: Examples there are, at least 1.

    Returns:
        The winner; of candidates that are equal the first.

    Source: Karnin, Koren, Somekh (2013), Almost Optimal Exploration in Multi-Armed Bandits; Jamieson, Talwalkar
    (2016), arXiv 1502.07943.

    Example:
        >>> sequential_halving(4, lambda candidate, part: [abs(candidate - 2)] * len(part), first=2, total=100).winner
        2
    """
    found: list[list[float]] = [[] for _ in range(count)]
    alive, seen, size = list(range(count)), 0, first
    while len(alive) > 1 and seen < total:
        part = range(seen, min(seen + size, total))
        for candidate in alive:
            found[candidate].extend(losses(candidate, part))
        alive = sorted(alive, key=lambda candidate: (fmean(found[candidate]), candidate))[: -(-len(alive) // 2)]
        seen, size = part.stop, 2 * size
    return Race(alive[0], tuple(tuple(each) for each in found))
