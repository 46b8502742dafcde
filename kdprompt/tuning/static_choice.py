"""The way to one prompt for a sample of queries: the least J or, where a reader is given, the best of its answers."""

from dataclasses import dataclass

from kdprompt.readers.reader import Reader
from kdprompt.selection.accounting import Prompts
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.late_accounts import account
from kdprompt.selection.result import Selection
from kdprompt.selection.static import account_for_sample, find_sample_target, solve_target
from kdprompt.selection.traffic import QuerySample
from kdprompt.tuning.static_prompt import choose_by_reader

__all__ = ["StaticChoice", "choose_static"]


@dataclass(frozen=True)
class StaticChoice:
    """A static prompt with what it was chosen from.

    Attributes:
        context: The pool, the settings and J's parameters.
        prompts: The prompt.
    """

    context: SelectionContext
    prompts: Prompts

    def select(self) -> Selection:
        """The prompt with its numbers."""
        return account(self.context, self.prompts)[0]


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
    if reader is None:
        rows = solve_target(context, sample.encoded, find_sample_target(context, sample.encoded))
        prompts = account_for_sample(context, sample, rows)
    else:
        chosen = choose_by_reader(context, sample, reader)
        prompts = account_for_sample(context, sample, chosen.rows, chosen.notes)
    return StaticChoice(context, prompts)
