"""What is said about a pool: findings with the examples they speak of, for terminals, pages, JSON and exit codes."""

from typing import Literal

from pydantic import ConfigDict

from kdprompt.short_repr import Record

__all__ = ["SEVERITIES", "Diagnosis", "Finding", "Instance", "Severity", "say_count"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


def say_count(number: int, one: str, many: str) -> str:
    """A number and what it counts.

    Example:
        >>> say_count(1, "input stands", "inputs stand"), say_count(1200, "input stands", "inputs stand")
        ('1 input stands', '1,200 inputs stand')
    """
    return f"{number:,} {one if number == 1 else many}"


class Instance(Record):
    """One case of a finding.

    Attributes:
        ids: The pool's examples that it concerns.
        text: The input, or the text that was checked against the pool.
        other: A second text: the near-duplicate, or None.
        detail: What is the matter with it.
        score: Cosine, probability or share, by the finding; None where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[str, ...] = ()
    text: str
    other: str | None = None
    detail: str
    score: float | None = None


class Finding(Record):
    """Something that may be wrong with a pool.

    Attributes:
        check: Which check found it.
        severity: ``error``: answers or scores will be wrong; ``warning``: look at it; ``note``: good to know.
        summary: What was found, in a sentence.
        remedy: What to do.
        instances: The cases, the worst first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    severity: Severity
    summary: str
    remedy: str
    instances: tuple[Instance, ...] = ()


class Diagnosis(Record):
    """All that was found in a pool.

    Attributes:
        examples: Number of examples.
        outputs: Examples by task and output, the most frequent first: (task, output, examples).
        findings: Errors first, then warnings, then notes.
        said: Sentences of the checks that found nothing, or could not look, by check.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int
    outputs: tuple[tuple[str, str, int], ...]
    findings: tuple[Finding, ...]
    said: dict[str, str]

    def fails(self, level: str) -> bool:
        """Whether there is a finding of a severity, or of a worse one; ``never`` for no severity.

        Raises:
            ValueError: The level is none of ``error``, ``warning``, ``note`` and ``never``.
        """
        if level == "never":
            return False
        ranks: dict[str, int] = {severity: rank for rank, severity in enumerate(SEVERITIES)}
        if level not in ranks:
            raise ValueError(f"level must be one of {', '.join(SEVERITIES)} and never, got {level!r}")
        return any(ranks[finding.severity] <= ranks[level] for finding in self.findings)
