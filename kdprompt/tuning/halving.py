"""Sequential halving: finds the best of several candidates with a fraction of the evaluations.

Takes a number of candidates and a function that gives their losses on examples; gives the best candidate.

Rejected: trying every candidate on every example, which takes several times as many evaluations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

__all__ = ["HalvingResult", "sequential_halving"]


@dataclass(frozen=True)
class HalvingResult:
    """The outcome of ``sequential_halving``.

    Attributes:
        winner: The last candidate left.
        losses: Losses of each candidate on the first examples, as many as it was tried on.
    """

    winner: int
    losses: tuple[tuple[float, ...], ...]


def sequential_halving(
    candidate_count: int, compute_losses: Callable[[int, range], Sequence[float]], *, first: int, total: int
) -> HalvingResult:
    """Finds the candidate of least mean loss without trying every candidate on every example.

    All candidates are tried on a few examples, the better half on twice as many more, and so on until one is left or
    the examples are used up. All rounds but the last cost about the same.

    Args:
        candidate_count: Number of candidates, at least 1.
        compute_losses: Returns a candidate's losses on a range of the examples, one number per example.
        first: Number of examples in the first round, at least 1.
        total: Number of examples, at least 1.

    Returns:
        The winner; of equal candidates the first.

    Source: Karnin, Koren, Somekh (2013), Almost Optimal Exploration in Multi-Armed Bandits; Jamieson, Talwalkar
    (2016), arXiv 1502.07943.

    Example:
        >>> def distance(candidate, examples):
        ...     return [abs(candidate - 2)] * len(examples)
        >>> sequential_halving(4, distance, first=2, total=100).winner
        2
    """
    losses: list[list[float]] = [[] for _ in range(candidate_count)]
    remaining, tried, round_size = list(range(candidate_count)), 0, first
    while len(remaining) > 1 and tried < total:
        examples = range(tried, min(tried + round_size, total))
        for candidate in remaining:
            losses[candidate].extend(compute_losses(candidate, examples))
        ranked = sorted(remaining, key=lambda candidate: (fmean(losses[candidate]), candidate))
        remaining = ranked[: (len(ranked) + 1) // 2]
        tried, round_size = examples.stop, 2 * round_size
    return HalvingResult(remaining[0], tuple(tuple(values) for values in losses))
