"""The bounds that a selection reports, each with what it holds for."""

from dataclasses import dataclass

from kdprompt.selection.result import TermValues
from kdprompt.theory.bounds import Bound, query_sample_error

__all__ = ["PromptNumbers", "report_bounds"]


@dataclass(frozen=True)
class PromptNumbers:
    """What the bounds of one prompt are made of.

    Attributes:
        terms: The terms of J.
        gap: R4's gap.
        kernel_max: Largest κ(q, q).
        value_radius: max‖v‖ over the pool.
        sampled: Number of queries drawn from the query distribution; 0 where the target is no sample.
    """

    terms: TermValues
    gap: float
    kernel_max: float
    value_radius: float
    sampled: int


def report_bounds(numbers: PromptNumbers, output_share: float, delta: float) -> tuple[Bound, ...]:
    """Bounds with the theory's own constants: R2, R6, R4 and, for a sample of queries, R5.

    Args:
        numbers: Of the prompt.
        output_share: Share ρ of the output kernel.
        delta: Probability of failure δ.
    """
    bounds = [
        Bound(
            "read-out shift, the most that the prompt's read-out can differ from the target's at a query",
            "R2",
            numbers.kernel_max**0.5 * numbers.terms.bias,
            "certificate",
            "for the target as stated, with its outputs estimated; deterministic, so it survives selection",
        ),
        Bound(
            "interference, the most that the normalised read-out can miss the estimated output",
            "R6",
            numbers.terms.interference,
            "certificate",
            "for the estimated outputs and scaled by their support; deterministic, so it survives selection",
        ),
        Bound(
            "generalisation gap, how far the risk can exceed the demonstrations' own (L = b = 1)",
            "R4",
            numbers.gap,
            "regulariser",
            f"a certificate (probability {1 - delta:g}) only for demonstrations drawn independently of "
            "their values; these were selected",
        ),
    ]
    if numbers.sampled:
        # Estimated values are averages of the pool's, so no κ⊗(z, z) exceeds this, seen or unseen.
        largest = numbers.kernel_max * ((1 - output_share) + output_share * numbers.value_radius**2)
        bounds.append(
            Bound(
                "query sample error, how far the bias to all traffic can be from the bias to this sample",
                "R5",
                query_sample_error(largest, numbers.sampled, delta=delta),
                "certificate",
                f"for {numbers.sampled} queries drawn i.i.d. from the traffic; probability {1 - delta:g}",
            )
        )
    return tuple(bounds)
