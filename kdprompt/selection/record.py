"""From the audit of a prompt to the record that a selector answers."""

from collections.abc import Iterator, Sequence
from typing import Literal

from kdprompt.pool.records import Demonstration, Query, normalise_text
from kdprompt.selection.accounting import Audit
from kdprompt.selection.result import ChosenDemonstration, Selection

__all__ = ["record"]

MEMBER_FIELDS = ("weight", "attention", "gain", "marginal", "interference", "other_task")
UNSUPPORTED = 1e-3


def record(
    query: Query | None,
    shown: Sequence[Demonstration],
    report: Audit,
    tokens: Sequence[int],
    wanted: int | Literal["auto"],
    *,
    core: int = 0,
) -> Selection:
    """Puts together what is known of a prompt.

    Args:
        query: The query, None for a static prompt.
        shown: The demonstrations in reading order.
        report: Their audit.
        tokens: Of each of them.
        wanted: How many were asked for.
        core: How many of the first demonstrations every prompt shares.
    """
    chosen = tuple(
        ChosenDemonstration(demonstration=demonstration, **{name: getattr(member, name) for name in MEMBER_FIELDS})
        for demonstration, member in zip(shown, report.members, strict=True)
    )
    return Selection(
        query=query,
        chosen=chosen,
        before=report.before,
        after=report.after,
        penalties=report.penalties,
        cross_task=report.cross_task,
        label_conflict=report.label_conflict,
        support=report.support,
        estimate=report.estimate,
        bounds=report.bounds,
        tokens=sum(tokens),
        core=core,
        core_tokens=sum(tokens[:core]),
        notes=(*_shortfall(len(shown), wanted), *_unsupported(report), *_repeated(query, shown[:core])),
    )


def _shortfall(got: int, wanted: int | Literal["auto"]) -> Iterator[str]:
    if wanted != "auto" and got < wanted:
        yield (
            f"{got} of {wanted} demonstrations: no more fit the budget, the quotas, the task and the permitted "
            "outputs without showing a duplicate or the query itself"
        )


def _unsupported(report: Audit) -> Iterator[str]:
    if report.support < UNSUPPORTED:
        yield "nothing in the pool supports an estimate of the output: no interference is charged"


def _repeated(query: Query | None, core: Sequence[Demonstration]) -> Iterator[str]:
    if query is not None and any(normalise_text(query.text) == normalise_text(shown.input) for shown in core):
        yield "the core shows the query itself with its output: a measurement on such queries would be too good"
