"""What a selector answers: records, nothing but numbers and texts."""

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from kdprompt.deprecation import keep_attributes
from kdprompt.errors import QueryError
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.pages import HasPage
from kdprompt.pool.prompt import PromptTemplate, to_messages
from kdprompt.pool.records import Demonstration, Query
from kdprompt.selection.late_fields import FieldSource, LateFields
from kdprompt.selection.origin import SelectionOrigin
from kdprompt.short_repr import OneLine, Record, shorten
from kdprompt.theory.bounds import Bound

__all__ = ["ChosenDemonstration", "OutputEvidence", "Selection", "SelectionSource", "TermValues"]

FROZEN = ConfigDict(frozen=True, extra="forbid")
MOST_OUTPUTS = 5  # that are named where a selection is printed


FORMER_NAMES = {
    "before": "empty_terms",
    "after": "terms",
    "penalties": "weights",
    "core": "prefix_length",
    "core_tokens": "prefix_tokens",
    "reusable": "cacheable_share",
}


class TermValues(Record):
    """The terms of J, unweighted, and J.

    Attributes:
        bias: MMD between prompt and target under κ⊗ (R2), ≥ 0.
        complexity: Rademacher complexity (R3), ≥ 0.
        interference: R6, scaled by the support of the estimated outputs, ≥ 0; the empty prompt misses them whole.
        reader: L, what the reader is expected to lose with the prompt, in nats (R9); 0 where outputs are no labels.
        total: J (R8), their weighted sum.
    """

    model_config = FROZEN

    bias: float
    complexity: float
    interference: float
    reader: float = 0.0
    total: float


class OutputEvidence(Record):
    """What speaks for one output, in nats, and what the reader is expected to answer (R9).

    For a static prompt the numbers are means over the queries, ``pool`` and ``own`` over those that permit the output.

    Attributes:
        output: The output.
        shown: Its share of the position weights, in [0, 1].
        pool: λ, what the pool knows: the logarithm of its estimated share over its share of the pool.
        prompt: b + τ·ḡ + ρ·[last], what the prompt carries. Evidence counts in differences between outputs alone.
        own: γ·ℓ₀, what the reader knows itself; 0 for every output where it is not known.
        target: π, the probability by what reader and pool know together.
        expected: The probability that the reader is expected to give it.
    """

    model_config = FROZEN

    output: str
    shown: float
    pool: float
    prompt: float
    own: float
    target: float
    expected: float


class ChosenDemonstration(OneLine):
    """One demonstration of a prompt and its part in J.

    Attributes:
        demonstration: The demonstration.
        weight: Position weight w_i; they sum to 1.
        attention: a_i(q) of R6, its share of the prompt's attention (mean over the queries); they sum to 1.
        gain: J of the prompt up to here less J of the prompt before it, both with their own position weights, negated:
            positive helps. The gains sum to J(∅) − J(D).
        marginal: J without it, the others closing up, less J with it: positive helps.
        interference: Its part of R6; the parts sum to the term.
        other_task: Its task differs from the query's (given, else estimated; for a sample: most of the queries').
    """

    model_config = FROZEN

    demonstration: Demonstration
    weight: float
    attention: float
    gain: float
    marginal: float
    interference: float
    other_task: bool

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        shown = self.demonstration
        yield from (("id", shown.id), ("input", shorten(shown.input)), ("marginal", round(self.marginal, 4)))
        yield "output", None if shown.output is None else shorten(shown.output, 30)


class SelectionSource(FieldSource, Protocol):
    """What a selection gets from where it was chosen."""

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """The demonstrations in reading order."""

    @property
    def origin(self) -> SelectionOrigin:
        """What they were chosen from."""


class Selection(LateFields, HasPage, OneLine):
    """A prompt's demonstrations in reading order, and why.

    The demonstrations and their order are there at once; its numbers and notes are computed, for all that were chosen
    in one pass, when the first of them is looked at. A selection holds the version of the pool that it was chosen from,
    for its page (``origin``); one that was pickled or stored has its numbers and holds no pool.

    Attributes:
        query: The query, or None for a static prompt.
        chosen: The demonstrations in reading order.
        empty_terms: The terms of the empty prompt.
        terms: The terms of this prompt, under its position weights.
        weights: The weights of J's terms.
        cross_task: The part of the interference that comes from other tasks.
        label_conflict: The rest of it: same task, conflicting output.
        support: How much the pool knows of the query (mean over the queries), in [0, 1); near 0 the outputs could
            not be estimated and no interference is charged.
        estimate: The three likeliest outputs of the query with their estimated shares; labels only.
        evidence: The likeliest outputs and those that are shown: what speaks for each (R9); labels only.
        bounds: Bounds with the theory's own constants, each saying whether it is a certificate or a regulariser.
        tokens: Tokens of the demonstrations.
        prefix_length: How many of the first demonstrations every prompt shares.
        prefix_tokens: Their tokens.
        notes: What the caller should know, such as fewer demonstrations than asked for.
    """

    model_config = FROZEN

    query: Query | None
    chosen: tuple[ChosenDemonstration, ...]
    empty_terms: TermValues
    terms: TermValues
    weights: ObjectiveWeights
    cross_task: float
    label_conflict: float
    support: float
    estimate: dict[str, float] = Field(default_factory=dict)
    evidence: tuple[OutputEvidence, ...] = ()
    bounds: tuple[Bound, ...] = ()
    tokens: int = 0
    prefix_length: int = 0
    prefix_tokens: int = 0
    notes: tuple[str, ...] = ()
    _source: SelectionSource | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, values: Any) -> Any:
        """Selections that were stored before their fields were renamed are read as they are."""
        return (
            {FORMER_NAMES.get(name, name): value for name, value in values.items()}
            if isinstance(values, dict)
            else values
        )

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """The demonstrations in reading order."""
        if self._source is not None and not self.holds("chosen"):
            return self._source.demonstrations
        return tuple(chosen.demonstration for chosen in self.chosen)

    @property
    def ids(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(shown.id for shown in self.demonstrations)

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Deep copies of the original examples, in reading order."""
        return [copy.deepcopy(dict(shown.fields)) for shown in self.demonstrations]

    @property
    def cacheable_share(self) -> float:
        """Share of the demonstrations' tokens, in [0, 1], that stand in the prefix, which a provider can cache."""
        return self.prefix_tokens / self.tokens if self.tokens else 0.0

    def to_text(self, template: PromptTemplate | None = None, query: str | None = None) -> str:
        """The finished prompt.

        Args:
            template: How it is written; None is ``PromptTemplate()``.
            query: The input that the model is to answer; None takes the selection's own.

        Raises:
            QueryError: A static selection is given no query.
        """
        return (template or PromptTemplate()).text(self.demonstrations, self._asked(query))

    def to_messages(self, query: str | None = None, *, system: str = "") -> list[dict[str, str]]:
        """The finished prompt as an OpenAI-style chat, see ``kdprompt.to_messages``; arguments as ``to_text``."""
        return to_messages(self.demonstrations, self._asked(query), system=system)

    @property
    def origin(self) -> SelectionOrigin | None:
        """What it was chosen from; None where the selection was read from JSON or unpickled."""
        return None if self._source is None else self._source.origin

    def _asked(self, query: str | None) -> str:
        if query is not None:
            return query
        if self.query is None:
            raise QueryError("a static selection holds no query; give the input that the model is to answer: query=…")
        return self.query.text

    def __len__(self) -> int:
        return len(self.demonstrations)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """For whom it is, how many demonstrations of which outputs, and J of the empty prompt and of this one."""
        yield "query", None if self.query is None else shorten(self.query.text)
        yield "demonstrations", len(self)
        shown = Counter(shown.output for shown in self.demonstrations).most_common()
        if any(count > 1 for _, count in shown):
            yield "outputs", {shorten(str(output), 30): count for output, count in shown[:MOST_OUTPUTS]}
        yield from (("tokens", self.tokens), ("J", f"{self.empty_terms.total:.3f} → {self.terms.total:.3f}"))
        if self.notes:
            yield "notes", len(self.notes)


keep_attributes(Selection, FORMER_NAMES)
