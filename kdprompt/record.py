"""From the audit of a prompt to the record that a selector answers."""

from collections.abc import Iterator, Sequence

from kdprompt.audit import Audit
from kdprompt.data import Demonstration, Query, normalised
from kdprompt.prompt import lengths
from kdprompt.selection import Chosen, Selection
from kdprompt.settings import Settings

__all__ = ["record"]

MEMBER_FIELDS = ("weight", "attention", "gain", "marginal", "interference", "other_task")
UNSUPPORTED = 1e-3


def record(
    query: Query | None,
    shown: Sequence[Demonstration],
    report: Audit,
    settings: Settings,
    *,
    core: int = 0,
    notes: Sequence[str] = (),
) -> Selection:
    """Puts together what is known of a prompt.

    Args:
        query: The query, None for a static prompt.
        shown: The demonstrations in reading order.
        report: Their audit.
        settings: Says how many were asked for and how long each is.
        core: How many of the first demonstrations every prompt shares.
        notes: What the caller should know; more is added here.
    """
    chosen = tuple(
        Chosen(demonstration=demonstration, **{name: getattr(member, name) for name in MEMBER_FIELDS})
        for demonstration, member in zip(shown, report.members, strict=True)
    )
    tokens = lengths(shown, settings.template, settings.count_tokens)
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
        notes=(*notes, *_shortfall(len(shown), settings), *_unsupported(report), *_repeated(query, shown[:core])),
    )


def _shortfall(got: int, settings: Settings) -> Iterator[str]:
    if settings.k != "auto" and got < settings.k:
        yield (
            f"{got} of {settings.k} demonstrations: no more fit the budget, the quotas, the task and the permitted "
            "outputs without showing a duplicate or the query itself"
        )


def _unsupported(report: Audit) -> Iterator[str]:
    if report.support < UNSUPPORTED:
        yield "nothing in the pool supports an estimate of the output: no interference is charged"


def _repeated(query: Query | None, core: Sequence[Demonstration]) -> Iterator[str]:
    if query is not None and any(normalised(query.text) == normalised(shown.input) for shown in core):
        yield "the core shows the query itself with its output: a measurement on such queries would be too good"
