"""Everything that can be set, with documented defaults; frozen, validated once."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.pool.prompt import CountTokens, PromptTemplate, approximate_tokens
from kdprompt.search.ordering import ByObjective, LikeliestLast, Order
from kdprompt.theory.kernels import Kernel

__all__ = ["Quota", "Settings"]


class Quota(BaseModel):
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
            if any(number is not None and number < 0 for number in numbers):
                raise ValueError(f"{name} must be at least 0, got {value}")
        return self


class Settings(BaseModel):
    """Settings of a selector. What is None here is calibrated from the pool, without an LLM.

    Attributes:
        k: Demonstrations a prompt, or ``"auto"``: the number that minimises J, which may be 0.
        k_max: Most demonstrations that ``"auto"`` may answer.
        budget: Most tokens that the demonstrations of a prompt may take together; None is no limit.
        quota: Limits by output.
        order: Reading order and position profile; None: the output last that the query likeliest has, equal ones
            spread evenly; for a static prompt, which has no one query, the order of smallest J under recency (R7).
        outputs: How outputs enter: as labels, as embedded text, not at all; ``auto`` looks at the pool.
        kernel: The kernel κ of the inputs; None is the Gaussian with a calibrated temperature, for a static prompt with
            a sixteenth of the median heuristic's.
        share: Share ρ of the output kernel in [0, 1].
        neighbourhood: Share η in [0, 1] of a query's neighbourhood in its target.
        penalties: Weights of J's terms; None: calibrated, for a static prompt 1 for the MMD and, for R6, the share of
            the outputs that k demonstrations can show.
        tolerance: Where k is ``"auto"``: the share of J's fall that may be given up for a shorter prompt, in [0, 1].
        shortlist: Candidates a query, the nearest ones; J is searched exactly over them.
        static_shortlist: Candidates of a static prompt: the nearest ones of every query in turn.
        static_queries: Most queries of the traffic that a static prompt looks at (a seeded sample).
        static_rounds: With a reader: how often the best static prompt so far is changed, each time some 480 answers;
            0 leaves it at the best of 64 prompts, some 1,900 answers.
        near_duplicate: Cosine of two inputs from which they are duplicates and never shown together.
        leave_out_own: Whether an example with a query's own text is left out of its prompt: it gives the answer away,
            which misleads where selectors are compared; False where a repeated query shall see its answer.
        delta: Probability of failure δ of the bounds that are reported.
        seed: Of everything that samples.
        calibrate: Whether to calibrate what is None; otherwise it takes its default.
        template: How a demonstration is written, for its length and for a reader that is asked.
        count_tokens: Length of a text in tokens; pass the model's own tokenizer where a budget is tight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    k: Annotated[int, Field(ge=0)] | Literal["auto"] = 8
    k_max: int = Field(default=16, ge=1)
    budget: int | None = Field(default=None, ge=0)
    quota: Quota | None = None
    order: Order | None = None
    outputs: Literal["auto", "labels", "text", "none"] = "auto"
    kernel: Kernel | None = None
    share: float | None = Field(default=None, ge=0, le=1)
    neighbourhood: float | None = Field(default=None, ge=0, le=1)
    penalties: ObjectiveWeights | None = None
    tolerance: float | None = Field(default=None, ge=0, le=1)
    shortlist: int = Field(default=64, ge=1)
    static_shortlist: int = Field(default=4096, ge=1)
    static_queries: int = Field(default=512, ge=1)
    static_rounds: int = Field(default=16, ge=0)
    near_duplicate: float = Field(default=0.95, gt=0)
    leave_out_own: bool = True
    delta: float = Field(default=0.05, gt=0, lt=1)
    seed: int = 0
    calibrate: bool = True
    template: PromptTemplate = Field(default_factory=PromptTemplate)
    count_tokens: CountTokens = approximate_tokens

    @property
    def most(self) -> int:
        """The largest number of demonstrations that a prompt may get."""
        return self.k_max if self.k == "auto" else self.k

    @property
    def reading(self) -> Order:
        """The order in force for one query."""
        return self.order or LikeliestLast()

    def static(self, k: int | None = None) -> Self:
        """The settings of a static prompt, with another k where one is given."""
        changed = {"order": self.order or ByObjective(), "k": self.k if k is None else k}
        return self.model_validate({**dict(self), **changed})
