"""What is known of the model that reads the prompts: the constants of R9, few lines of JSON.

``CAPABLE_READER`` stands for a reader of which nothing was measured; of a few small models the package ships what was
measured on three pools together (``shipped_profiles``).
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from kdprompt.paths import expand_home
from kdprompt.pool.records import MOST_NATS
from kdprompt.short_repr import Record

__all__ = ["CAPABLE_READER", "ReaderProfile", "find_profile", "read_profile", "shipped_profiles"]

Strength = Annotated[float, Field(ge=0, le=MOST_NATS, allow_inf_nan=False)]
Leaning = Annotated[float, Field(ge=-MOST_NATS, le=MOST_NATS, allow_inf_nan=False)]


class ReaderProfile(Record):
    """How a model weighs what it knows and what it is shown (R9).

    No constant is greater than 10⁴ in size: a model has a few nats, and J must stay a finite number.

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
    follow: Strength
    knowledge_weight: Strength = 1.0
    recency: Leaning = 0.0
    label_bias: dict[str, Leaning] = Field(default_factory=dict)
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
        OSError: It cannot be read.
    """
    try:
        return ReaderProfile.model_validate_json(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}, byte {error.start}); save the file as UTF-8") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(
            f"{path} is no profile of a reader: {where}: {first['msg']}, got {first['input']!r:.60}; kdprompt profile "
            "writes one"
        ) from error


@lru_cache(maxsize=1)
def shipped_profiles() -> dict[str, ReaderProfile]:
    """Profiles that come with the package, by the model's name: one τ, γ and ρ for three pools, and no leaning.

    How much of a model's answers they explain differs from pool to pool; ``source`` says it. A profile measured on the
    pool itself (``kdprompt profile``) is the better one.

    Example:
        >>> sorted(shipped_profiles())
        ['gemma-3-270m', 'qwen2.5-coder-0.5b-instruct', 'smollm2-135m-instruct']
    """
    text = files("kdprompt").joinpath("resources", "reader_profiles.json").read_text(encoding="utf-8")
    profiles = map(ReaderProfile.model_validate, json.loads(text))
    return {profile.name: profile for profile in profiles}


def find_profile(name: str) -> ReaderProfile:
    """A shipped profile by its name, or the one in a file.

    Args:
        name: The model's name, in any case, or the path of a file.

    Raises:
        ValueError: There is neither, or the file holds no profile.
        OSError: The file cannot be read, or the home folder that ``~`` names is not known.
    """
    shipped = shipped_profiles()
    if name.casefold() in shipped:
        return shipped[name.casefold()]
    path = expand_home(name)
    if not path.exists() or path.is_dir():  # a pipe is taken
        raise ValueError(
            f"{name!r} is no file and no shipped profile of a reader; kdprompt profile measures one, and shipped are "
            f"{', '.join(sorted(shipped))}"
        )
    return read_profile(path)
