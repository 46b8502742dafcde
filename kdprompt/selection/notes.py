"""What a selection has to say beside its numbers."""

from collections.abc import Iterator

from kdprompt.pool.records import Query, normalise_text
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.long_inputs import note_long_inputs

__all__ = ["list_notes"]

UNSUPPORTED = 1e-3  # support below which the estimate of the output says nothing


def list_notes(
    context: SelectionContext, query: Query | None, rows: list[int], prefix_length: int, support: float, shortage: str
) -> Iterator[str]:
    """The notes of one prompt.

    Args:
        context: The pool and the settings.
        query: The query; None in a static prompt.
        rows: Rows of the pool in reading order.
        prefix_length: How many of the first every prompt shares.
        support: Of the estimate of the output.
        shortage: Why there are fewer than k, where that is known.
    """
    settings, shown = context.settings, [context.pool.demonstration(row) for row in rows]
    if shortage:
        yield shortage
    elif settings.k != "auto" and len(shown) < settings.k:
        yield (
            f"{len(shown)} of {settings.k} demonstrations: no more fit the budget, the quotas, the task and the "
            "permitted outputs without showing a duplicate or the query itself"
        )
    elif settings.k == "auto" and not shown:
        yield "no demonstrations: by J no prompt is better than the empty one; give k for a prompt all the same"
    without = sum(member.output is None for member in shown)
    if without and context.pool.pool.schema.outputs != ():
        yield (
            f"no output in {without} of the demonstrations shown: the model sees their inputs alone; name the key of "
            "the output (Schema(outputs=…), --output-key), or Schema(outputs=()) where there are none"
        )
    if support < UNSUPPORTED:
        yield "nothing in the pool supports an estimate of the output: no interference is charged"
    prefix = shown[:prefix_length]
    if query is not None and any(normalise_text(query.text) == normalise_text(member.input) for member in prefix):
        yield "the prefix shows the query itself with its output: do not measure accuracy on such queries"
    yield from note_long_inputs(context, query, rows)
