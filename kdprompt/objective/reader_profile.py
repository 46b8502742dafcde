"""What is known of the model that reads the prompts: the constants of R9, few lines of JSON.

They are properties of a model, not of a data set: measured once, they serve every pool. ``CAPABLE_READER`` stands for
a reader of which nothing was measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from kdprompt.short_repr import Record

__all__ = ["CAPABLE_READER", "ReaderProfile", "read_profile"]


class ReaderProfile(Record):
    """How a model weighs what it knows and what it is shown (R9).

    Attributes:
        name: The model, and how it is asked.
        follow: τ ≥ 0 in nats: how much likelier an output becomes when all demonstrations show it instead of none.
        knowledge_weight: γ ≥ 0, the weight of what the model answers without the pool's help.
        recency: ρ in nats: how much likelier the output of the last demonstration becomes.
        label_bias: b in nats, the leaning to an output, by output; outputs not named have none.
        source: Where the numbers come from, in words.

    Example:
        >>> ReaderProfile.model_validate_json('{"name": "mine", "follow": 5.1, "recency": 0.8}').follow
        5.1
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    follow: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    knowledge_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    recency: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    label_bias: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    source: str = "given by the user"

    def bias_of(self, outputs: Sequence[str]) -> list[float]:
        """The leaning b to each output in nats, 0 where none is known."""
        return [self.label_bias.get(output, 0.0) for output in outputs]


CAPABLE_READER = ReaderProfile(
    name="a capable reader",
    follow=3.3,
    recency=1.3,
    source="stands for readers of which nothing was measured",
)
"""A reader that knows something and is moved by demonstrations rather than copying them."""


def read_profile(path: Path) -> ReaderProfile:
    """The profile in a JSON file, as ``kdprompt profile`` writes it.

    Raises:
        ValueError: It is none; the message names the field.
    """
    try:
        return ReaderProfile.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        message = f"{path} is no profile of a reader: {where}: {first['msg']}; kdprompt profile writes one"
        raise ValueError(message) from error
