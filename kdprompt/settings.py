"""Everything that can be set, with documented defaults; frozen, validated once.

What a prompt is stands in ``Settings`` itself; what concerns J, the search, and static prompts stands in a group each.
The names that the fields of the groups had before the groups were made still work and warn.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from kdprompt.defaults import DEFAULT_K, DEFAULT_STATIC_ROUNDS
from kdprompt.deprecation import keep_attributes, warn_renamed
from kdprompt.objective.parameters import ObjectiveSettings
from kdprompt.pool.prompt import CountTokens, PromptTemplate, approximate_tokens
from kdprompt.search import order_names
from kdprompt.search.ordering import ByObjective, LikeliestLast, Order
from kdprompt.short_repr import ChangedFields

__all__ = ["FLAT_NAMES", "Quota", "SearchSettings", "Settings", "StaticSettings"]

FLAT_NAMES = {  # former fields of Settings, and the group and field that they are now
    "kernel": ("objective", "kernel"),
    "share": ("objective", "output_share"),
    "neighbourhood": ("objective", "neighbourhood"),
    "penalties": ("objective", "weights"),
    "tolerance": ("objective", "tolerance"),
    "shortlist": ("search", "shortlist"),
    "near_duplicate": ("search", "near_duplicate"),
    "leave_out_own": ("search", "exclude_query_text"),
    "static_shortlist": ("static", "shortlist"),
    "static_queries": ("static", "queries"),
    "static_rounds": ("static", "rounds"),
}
MOST = 2**31 - 1  # of whatever is counted: more cannot be meant


class Quota(ChangedFields):
    """How often an output may and must occur among the demonstrations of a prompt.

    Attributes:
        most: One number for every output, or numbers by output; outputs not named are free.
        least: The same for the minimum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: int | Mapping[str, int] | None = None
    least: int | Mapping[str, int] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("most", "least"):
            value = getattr(self, name)
            numbers = value.values() if isinstance(value, Mapping) else [value]
            if any(number is not None and not 0 <= number <= MOST for number in numbers):
                raise ValueError(f"{name} must be at least 0 and at most {MOST:,}, got {value}")
        return self


def _write_count(count: CountTokens) -> str:
    if count is not approximate_tokens:
        raise ValueError("a token count of your own cannot be stored")
    return count.__name__


def _read_count(value: Any) -> Any:
    return approximate_tokens if value == approximate_tokens.__name__ else value


def _write_template(template: PromptTemplate) -> dict[str, str]:
    if type(template) is not PromptTemplate:  # a template of code would be run by whoever loads it
        raise ValueError("a template of your own, or of jinja2, cannot be stored")
    return asdict(template)


StoredTemplate = Annotated[PromptTemplate, PlainSerializer(_write_template, when_used="json")]
StoredCountTokens = Annotated[CountTokens, BeforeValidator(_read_count), PlainSerializer(_write_count)]


class SearchSettings(ChangedFields):
    """Which demonstrations may stand in a prompt for one query.

    Attributes:
        shortlist: Candidates a query, the nearest ones; J is searched over them, greedily and by swaps.
        near_duplicate: Cosine of two inputs from which they are duplicates and never shown together.
        exclude_query_text: Whether an example with a query's own text is left out of its prompt. It gives the answer
            away, which misleads where selectors are compared; False where a repeated query shall see its answer.
        min_similarity: Similarity to the query, in [−1, 1], below which an example does not fit and is never shown: the
            prompt is shorter then, or empty, and a note says so. None: no floor. It is the number that neighbours are
            found by: the cosine of the embeddings, with words where ``lexical_share`` adds them. How large it is
            between strangers depends on the embedder. A prefix and a static prompt stand whatever it is.
        lexical_share: h in [0, 1]: inputs are compared by (1 − h)·cosine of the embeddings + h·cosine of TF-IDF words.
            None: calibrated where outputs are text, else 0.
        half_precision: Whether the pool's vectors are held in float16, at half the memory, in a file too. Sums are of
            single precision still. A cosine misses by some 10⁻⁵, by 5·10⁻⁴ at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    shortlist: int = Field(default=64, ge=1, le=MOST)
    near_duplicate: float = Field(default=0.95, gt=0)
    exclude_query_text: bool = True
    min_similarity: float | None = Field(default=None, ge=-1, le=1)
    lexical_share: float | None = Field(default=None, ge=0, le=1)
    half_precision: bool = False


class StaticSettings(ChangedFields):
    """How one prompt for the whole query distribution is searched.

    Attributes:
        shortlist: Candidates: the nearest ones of every query in turn.
        queries: Most queries of the traffic that are looked at (a seeded sample).
        rounds: With a reader: how often the best prompt so far is changed, each time some 480 answers; 0 leaves it at
            the best of 64 prompts, some 1,900 answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    shortlist: int = Field(default=4096, ge=1, le=MOST)
    queries: int = Field(default=512, ge=1, le=MOST)
    rounds: int = Field(default=DEFAULT_STATIC_ROUNDS, ge=0, le=MOST)


class Settings(ChangedFields):
    """Settings of a selector. What is None in ``objective`` is calibrated from the pool, without an LLM.

    Attributes:
        k: Demonstrations a prompt, or ``"auto"``: the number that minimises J, which may be 0.
        k_max: Most demonstrations that ``"auto"`` may answer.
        budget: Most tokens that the demonstrations of a prompt may take together; None is no limit.
        quota: Limits by output.
        order: Reading order and position profile, or a name, ``"nearest-last"`` say; None: ``EvidenceLast`` where
            J models the reader (R9), ``AgreementLast`` for text, else ``LikeliestLast``; for a static prompt, which has
            no one query, the order of smallest J under recency (R7).
        outputs: How outputs enter: as labels, as embedded text, not at all; ``auto`` looks at the pool.
        objective: The parameters of J.
        search: Which demonstrations may stand in a prompt for one query.
        static: How one prompt for the whole query distribution is searched.
        delta: Probability of failure δ of the bounds that are reported, in (0, 1).
        seed: Seed of every random draw, in [−2⁶³, 2⁶⁴), as torch takes it.
        calibrate: Whether to calibrate what is None in ``objective``; otherwise it takes its default.
        template: How a demonstration is written, for its length and for a reader that is asked. One of your own, or of
            jinja2, is not saved: give the settings again where a selector is loaded.
        count_tokens: Length of a text in tokens; pass the model's own tokenizer where a budget is tight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    k: Annotated[int, Field(ge=0, le=MOST)] | Literal["auto"] = DEFAULT_K
    k_max: int = Field(default=16, ge=1, le=MOST)
    budget: int | None = Field(default=None, ge=0, le=2**62)
    quota: Quota | None = None
    order: Annotated[Order | None, BeforeValidator(order_names.order_by_name)] = None
    outputs: Literal["auto", "labels", "text", "none"] = "auto"
    objective: ObjectiveSettings = Field(default_factory=ObjectiveSettings)
    search: SearchSettings = Field(default_factory=SearchSettings)
    static: StaticSettings = Field(default_factory=StaticSettings)
    delta: float = Field(default=0.05, gt=0, lt=1)
    seed: int = Field(default=0, ge=-(2**63), lt=2**64)
    calibrate: bool = True
    template: StoredTemplate = Field(default_factory=PromptTemplate)
    count_tokens: StoredCountTokens = approximate_tokens

    @property
    def largest_k(self) -> int:
        """The largest number of demonstrations that a prompt may get."""
        return self.k_max if self.k == "auto" else self.k

    @property
    def query_order(self) -> Order:
        """The order for one query where calibration chose none: it does, by the outputs or by a reader's answers."""
        return self.order or LikeliestLast()

    def for_static_prompt(self, k: int | Literal["auto"] | None = None) -> Self:
        """The settings of a static prompt, with another k where one is given."""
        changed = {"order": self.order or ByObjective(), "k": self.k if k is None else k}
        return self.model_validate({**dict(self), **changed})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, as pydantic makes it; a former name of a field changes its group."""
        if update is not None and not FLAT_NAMES.keys().isdisjoint(update):
            update = _move_to_groups({**dict(self), **update}, stacklevel=4)
        return super().model_copy(update=update, deep=deep)

    @model_validator(mode="before")
    @classmethod
    def _accept_flat_names(cls, values: Any) -> Any:
        return _move_to_groups(values, stacklevel=5) if isinstance(values, Mapping) else values


keep_attributes(
    Settings,
    {old: f"{group}.{field}" for old, (group, field) in FLAT_NAMES.items()}
    | {"most": "largest_k", "reading": "query_order"},
)

GROUPS: dict[str, type[BaseModel]] = {
    "objective": ObjectiveSettings,
    "search": SearchSettings,
    "static": StaticSettings,
}


def _move_to_groups(values: Mapping[str, Any], stacklevel: int) -> dict[str, Any]:
    """The values with former names in their groups; a former name wins over the value that its group has."""
    moved = {name: value for name, value in values.items() if name not in FLAT_NAMES}
    for name in (name for name in values if name in FLAT_NAMES):
        _warn_of_flat_name(name, stacklevel)
        group, field = FLAT_NAMES[name]
        present = moved.get(group, {})
        if isinstance(present, BaseModel | Mapping):  # the validation of the group refuses anything else
            moved[group] = GROUPS[group].model_validate({**dict(present), field: values[name]})
    return moved


def _warn_of_flat_name(name: str, stacklevel: int) -> None:
    group, field = FLAT_NAMES[name]
    new = f"{group}.{field}, as in Settings({group}={GROUPS[group].__name__}({field}=…))"
    warn_renamed(f"Settings.{name}", new, stacklevel + 1)
