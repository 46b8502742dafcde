"""The way to one prompt for a sample of queries: the least J or, where a reader is given, the best of its answers."""

from dataclasses import dataclass

from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.readers.reader import Reader
from kdprompt.selection.accounting import Prompts
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.late_accounts import account
from kdprompt.selection.result import Selection
from kdprompt.selection.static import account_for_sample, find_sample_neighbours, solve_sample
from kdprompt.selection.traffic import QuerySample
from kdprompt.tuning.static_prompt import choose_by_reader

__all__ = ["StaticChoice", "choose_static"]


@dataclass(frozen=True)
class StaticChoice:
    """A static prompt with what it was chosen from.

    Attributes:
        context: The pool, the settings and J's parameters.
        prompts: The prompt.
        encoded: The queries that it is to serve.
        notes: What the caller should know of the queries and of the choice.
    """

    context: SelectionContext
    prompts: Prompts
    encoded: QueryTensors
    notes: tuple[str, ...]

    def select(self) -> Selection:
        """The prompt with its numbers."""
        return self.add_notes(account(self.context, self.prompts)[0])

    def add_notes(self, selection: Selection) -> Selection:
        """The selection with the notes of the choice before its own."""
        return selection.model_copy(update={"notes": (*self.notes, *selection.notes)})


def choose_static(context: SelectionContext, sample: QuerySample, reader: Reader | None) -> StaticChoice:
    """Chooses one prompt for a sample of queries.

    Args:
        context: The pool, the settings of static prompts and J's parameters for them.
        sample: The queries.
        reader: Answers held-out examples of the pool; None takes the prompt of least J.

    Raises:
        PoolError: A reader is given and the pool is too small, or has no outputs to compare with.
        TypeError: What is given is no reader.
    """
    neighbours = find_sample_neighbours(context, sample)
    if reader is None:
        rows, notes = solve_sample(context, sample, neighbours), sample.notes
    else:
        prompt = choose_by_reader(context, sample, neighbours, reader)
        rows, notes = prompt.rows, (*sample.notes, *prompt.notes)
    return StaticChoice(context, account_for_sample(context, sample, neighbours, rows), sample.encoded, notes)
