"""All checks of a pool, in the order in which they are cheap; ``kdprompt doctor`` prints what they find."""

from collections import Counter
from collections.abc import Iterator

from pydantic import ConfigDict, Field
from torch import Tensor

from kdprompt.defaults import DEFAULT_K
from kdprompt.diagnose.diagnosis import SEVERITIES, Diagnosis, Finding, Instance
from kdprompt.diagnose.examined_pool import EmbeddedTexts, ExaminedPool
from kdprompt.diagnose.input_checks import (
    TokenLimit,
    find_conflicts,
    find_duplicates,
    find_injections,
    find_leaks,
    find_too_long,
)
from kdprompt.diagnose.output_checks import find_imbalance, find_missing_outputs, find_suspects
from kdprompt.diagnose.pool_coverage import measure_coverage
from kdprompt.diagnose.task_mixture import find_task_mixture
from kdprompt.pool.paused_collection import paused_collection
from kdprompt.pool.pool import Pool
from kdprompt.short_repr import Record

__all__ = ["DoctorSettings", "diagnose_pool"]

WORST = 20  # badly covered queries that are named


class DoctorSettings(Record):
    """What counts as a finding.

    Attributes:
        k: Nearest neighbours that a prompt would show, for the cost of a mixture of tasks.
        cosine: Inputs with at least this cosine are nearly the same.
        imbalance: An output is rare that is this many times rarer than the most frequent one.
        injection: Look for text that reads like an order to the model; off, since examples may well speak of such.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(default=DEFAULT_K, ge=1)
    cosine: float = Field(default=0.95, gt=0, le=1)
    imbalance: float = Field(default=10.0, gt=1)
    injection: bool = False


def diagnose_pool(
    pool: Pool,
    vectors: Tensor,
    *,
    traffic: EmbeddedTexts | None = None,
    evaluation: EmbeddedTexts | None = None,
    tokens: TokenLimit | None = None,
    settings: DoctorSettings | None = None,
) -> Diagnosis:
    """Looks for what is wrong with a pool, without a language model.

    The cost is linear in the pool, but for the logarithm in the search of neighbours.

    Args:
        pool: The pool, ``n`` examples.
        vectors: Embeddings of its inputs ``[n, d]``.
        traffic: A sample of the queries; None leaves out whether the pool covers them.
        evaluation: Inputs of an evaluation set; None leaves out leakage.
        tokens: How much the embedder reads; None leaves out the length of inputs.
        settings: What counts as a finding.

    Returns:
        The findings, and what the other checks say.

    Raises:
        ValueError: The pool is empty, or has not one vector an example.

    Example:
        >>> import torch
        >>> pool = Pool.from_records([{"input": "a", "output": 1}, {"input": "A", "output": 2}])
        >>> [finding.check for finding in diagnose_pool(pool, torch.eye(2)).findings]
        ['conflicts']
    """
    if not len(pool):
        raise ValueError("the pool holds no examples; there is nothing to look at")
    with paused_collection():  # which would look at all examples again and again
        return _examine(pool, vectors, traffic, evaluation, tokens, settings or DoctorSettings())


def _examine(
    pool: Pool,
    vectors: Tensor,
    traffic: EmbeddedTexts | None,
    evaluation: EmbeddedTexts | None,
    tokens: TokenLimit | None,
    settings: DoctorSettings,
) -> Diagnosis:
    """All checks, one after the other; arguments as ``diagnose_pool`` takes them."""
    examined, said = ExaminedPool(pool, vectors), dict[str, str]()
    findings = [
        *find_missing_outputs(examined),
        *find_conflicts(examined, settings.cosine),
        *find_duplicates(examined, settings.cosine),
        *find_suspects(examined),
        *find_imbalance(examined, settings.imbalance),
        *(find_too_long(examined, tokens) if tokens else ()),
        *(find_leaks(examined, evaluation, settings.cosine) if evaluation else ()),
        *(find_injections(examined) if settings.injection else ()),
        *_check_mixture(examined, settings.k, said),
        *(_check_coverage(examined, traffic, said) if traffic else ()),
    ]
    counts = Counter((d.task or "", d.output or "") for d in pool)
    return Diagnosis(
        examples=len(pool),
        outputs=tuple((task, output, count) for (task, output), count in counts.most_common()),
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        said=said,
    )


def _check_mixture(examined: ExaminedPool, k: int, said: dict[str, str]) -> Iterator[Finding]:
    labelled = [d for d in examined.pool if d.output is not None]
    if len(labelled) < 3 or len({(d.task, d.output) for d in labelled}) < 2:
        said["mixed-tasks"] = "Too few outputs to look for a mixture of tasks."
        return
    mixture = find_task_mixture(examined.pool, examined.vectors, k=k)
    if not mixture.mixed:
        said["mixed-tasks"] = str(mixture)
        return
    text, _, remedy = str(mixture).rpartition(": ")
    yield Finding(check="mixed-tasks", severity="warning", summary=f"{text}.", remedy=remedy[:1].upper() + remedy[1:])


def _check_coverage(examined: ExaminedPool, traffic: EmbeddedTexts, said: dict[str, str]) -> Iterator[Finding]:
    if min(len(traffic.texts), len(examined.pool)) < 2:
        said["coverage"] = "Whether the pool covers the traffic takes two examples and two queries to say."
        return
    coverage = measure_coverage(examined.vectors, traffic.vectors)
    if coverage.covered:
        said["coverage"] = str(coverage)
        return
    yield Finding(
        check="coverage",
        severity="warning",
        summary=str(coverage),
        remedy="Add examples like these queries; `kdprompt drift` proposes which to label next.",
        instances=tuple(
            Instance(
                text=traffic.texts[i],
                detail=f"witness {float(coverage.witness[i]):+.3f}, nearest at {float(coverage.similarity[i]):.2f}",
                score=float(coverage.witness[i]),
            )
            for i in coverage.worst(WORST)
        ),
    )
