"""Measures a reader's profile (R9) by its answers to examples of the pool that are held out.

Each example is asked behind one neutral prompt, the same for all, which shows every output alike: the answer is what
the reader knows itself (ℓ₀). Then it is asked behind two prompts of its own: its nearest neighbours in a random order,
and a prompt that shows one output drawn at random more or less often, so that what is shown varies apart from what is
true. The constants are fitted to two thirds of the examples and tried on the rest.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdprompt.errors import PoolError
from kdprompt.objective.own_knowledge import OwnKnowledge
from kdprompt.objective.reader_profile import CAPABLE_READER, ReaderProfile
from kdprompt.pool.content_ids import make_content_id
from kdprompt.pool.records import normalise_text
from kdprompt.readers.reader import Answer, Reader
from kdprompt.selection.context import SelectionContext
from kdprompt.theory.bandwidth import fit_by_leave_one_out
from kdprompt.tuning.held_out import HeldOutEvaluation
from kdprompt.tuning.profile_fit import ProfileFit, ReaderAnswers, fit_constants
from kdprompt.tuning.profile_prompts import ProfilePrompts

__all__ = ["ProfileMeasurement", "UnusableAnswersError", "fit_profile"]

EXAMPLES = 120
RESAMPLES = 100
DIGITS = 4
LEAST = -30.0  # log-probability that stands for impossible ones
CONSTANTS = {"follow": "τ", "knowledge_weight": "γ", "recency": "ρ"}


class UnusableAnswersError(ValueError):
    """Most answers of a reader are none of the labels, so that they say nothing of how it chooses among them."""


@dataclass(frozen=True)
class ProfileMeasurement:
    """A reader's profile, and how well the form of R9 foretells its answers to examples that it was not fitted to.

    Attributes:
        profile: The constants, fitted to all answers.
        own: What the reader answered behind the neutral prompt; None for a reader that gives no probabilities.
        explained: R² of the log-probabilities, at most 1; NaN for a reader that gives none.
        foretold: Share of the answers that were the likeliest by the form, in [0, 1].
        confidence: Mean probability that the form gave to these likeliest answers; near ``foretold`` if calibrated.
        answers: How many the reader was asked for.
        intervals: 95 % intervals of τ, γ and ρ by the bootstrap over examples, under the names that ``profile`` has.
        seen: What it was fitted to, one row an answer to a prompt with examples.
    """

    profile: ReaderProfile
    own: OwnKnowledge | None
    explained: float
    foretold: float
    confidence: float
    answers: int
    intervals: Mapping[str, tuple[float, float]]
    seen: ReaderAnswers = field(repr=False, compare=False)

    def explained_by(self, profile: ReaderProfile) -> float:
        """R² of these answers by the τ, γ and ρ of a profile that was measured elsewhere, its leaning left out.

        Args:
            profile: The other profile, of another pool or another reader.

        Returns:
            The share of the variance of log-probabilities that it explains, at most 1; below 0 it misleads; NaN for a
            reader that gives none.
        """
        constants = {name: getattr(profile, name) for name in CONSTANTS}
        return ProfileFit(**constants, bias=torch.zeros(self.seen.shown.shape[1])).explained(self.seen)

    def __str__(self) -> str:
        """In words."""
        explained = "" if math.isnan(self.explained) else f"R² {self.explained:.2f}, "
        constants = [
            f"{sign} = {getattr(self.profile, name):.2f} [{self.intervals[name][0]:.2f}, {self.intervals[name][1]:.2f}]"
            for name, sign in CONSTANTS.items()
            if name in self.intervals
        ]
        return (
            f"{self.profile.name}: {', '.join(constants)} by {self.answers} answers; on examples that the fit did not "
            f"see {explained}{self.foretold:.0%} of the answers foretold, with a mean probability of "
            f"{self.confidence:.0%}"
        )


def fit_profile(
    context: SelectionContext,
    reader: Reader,
    rows: Tensor,
    k: int,
    generator: torch.Generator,
    labels: tuple[str, ...] | None = None,
) -> ProfileMeasurement:
    """Asks a reader some 360 times and fits its profile.

    Args:
        context: The pool, and how prompts are written.
        reader: Who answers.
        rows: Rows of the pool that may be asked and shown.
        k: Demonstrations a prompt, at least 1.
        generator: Draws examples and prompts.
        labels: What the reader chooses among; None: the outputs of the rows.

    Raises:
        UnusableAnswersError: Most answers of the reader are no label.
        PoolError: There are fewer than 96 examples with an output, outputs are no labels, or the pool has several
            tasks.
        TypeError: What is given is no reader.
    """
    rows = rows[context.tensors.label[rows] >= 0]
    held_out = HeldOutEvaluation.build(context, reader, rows, EXAMPLES, generator, labels)
    if held_out.labels is None or len(held_out.labels) < 2:
        raise PoolError(
            "a reader's profile is fitted to its choice among labels, and the pool has fewer than two; give a pool "
            "with several outputs that repeat, or leave the reader out"
        )
    if len(context.tensors.tasks) > 1:
        raise PoolError(
            f"a reader's profile is measured on one task, and the pool has {list(context.tensors.tasks)[:10]}; measure "
            "it on the examples of one of them"
        )
    prompts = ProfilePrompts(held_out, held_out.without_held_out(rows), k, random.Random(int(generator.initial_seed())))
    neutral = prompts.neutral()
    own_answers = held_out.answer([neutral] * len(held_out.held))
    varied = [[prompts.near(i), prompts.tilted(i)] for i in range(len(held_out.held))]
    answers = [held_out.answer([pair[place] for pair in varied]) for place in (0, 1)]
    seen = _collect(held_out, own_answers, [[pair[place] for pair in varied] for place in (0, 1)], answers)
    return _fit(held_out, own_answers, seen)


def _collect(
    held_out: HeldOutEvaluation,
    own_answers: Sequence[Answer],
    prompts: Sequence[Sequence[Sequence[int]]],
    answers: Sequence[Sequence[Answer]],
) -> ReaderAnswers:
    """What was seen and answered, set of prompts by set: all examples under the first, then under the second."""
    labels, tensors = held_out.labels or (), held_out.context.tensors
    codes = {label: code for code, label in enumerate(labels)}
    identity = torch.eye(len(labels), dtype=torch.float64)

    def values(prompt: Sequence[int]) -> Tensor:
        return identity[[codes[tensors.labels[int(tensors.label[row])][1]] for row in prompt]]

    own = _log_probs(own_answers, codes)
    known = own if _give_probabilities(own_answers) else torch.zeros_like(own)
    flat = [values(prompt) for of_set in prompts for prompt in of_set]
    log_probs = torch.cat([_log_probs(of_set, codes) for of_set in answers])
    unusable = int((log_probs == 0).all(-1).sum())
    if 2 * unusable > len(log_probs):
        raise UnusableAnswersError(
            f"the reader {held_out.reader.name!r} must answer with one of {list(labels)[:10]}, and {unusable} of "
            f"{len(log_probs)} answers to held-out examples are none; say in the template's instruction what to answer"
        )
    return ReaderAnswers(
        log_probs=log_probs,
        own=known.repeat(len(prompts), 1),
        shown=torch.stack([shown.mean(0) for shown in flat]),
        last=torch.stack([shown[-1] for shown in flat]),
    )


def _log_probs(answers: Sequence[Answer], codes: dict[str, int]) -> Tensor:
    """``[n, c]``; of a reader that gives none, 0 for its answer and −∞, or all alike where the answer is no label."""
    rows = torch.full((len(answers), len(codes)), -math.inf, dtype=torch.float64)
    by_text = {normalise_text(label): code for label, code in codes.items()}
    for row, answer in zip(rows, answers, strict=True):
        text = normalise_text(answer.text)
        if answer.log_probs is not None:
            row[:] = torch.tensor(answer.log_probs, dtype=torch.float64).clamp_min(LEAST)
        elif text in by_text:
            row[by_text[text]] = 0.0
        else:
            row[:] = 0.0
    return rows


def _fit(held_out: HeldOutEvaluation, own_answers: Sequence[Answer], seen: ReaderAnswers) -> ProfileMeasurement:
    examples, name = len(held_out.held), held_out.reader.name
    example = torch.arange(len(seen)) % examples
    unseen = seen.take((example >= 2 * examples // 3).nonzero().squeeze(-1))
    fit = fit_constants(seen.take((example < 2 * examples // 3).nonzero().squeeze(-1)))
    answered = unseen.take((unseen.log_probs != 0).any(-1).nonzero().squeeze(-1))
    expected = fit.predict(answered).max(-1)
    explained = fit.explained(unseen)
    profile, intervals = _to_profile(fit_constants(seen), name, held_out.labels or ()), _bootstrap(seen, examples)
    if not _give_probabilities(own_answers):  # then nothing is known of what it knows itself
        profile = profile.model_copy(update={"knowledge_weight": CAPABLE_READER.knowledge_weight})
        del intervals["knowledge_weight"]
    measured = ProfileMeasurement(
        profile=profile,
        own=_keep_own(held_out, own_answers, seen),
        explained=explained,
        foretold=float((answered.log_probs.argmax(-1) == expected.indices).double().mean()),
        confidence=float(expected.values.exp().mean()),
        answers=len(own_answers) + len(seen),
        intervals=intervals,
        seen=seen,
    )
    source = f"measured by {measured.answers} answers" + ("" if math.isnan(explained) else f", R² {explained:.2f}")
    return replace(measured, profile=measured.profile.model_copy(update={"source": source}))


def _give_probabilities(answers: Sequence[Answer]) -> bool:
    return all(answer.log_probs is not None for answer in answers)


def _bootstrap(seen: ReaderAnswers, examples: int) -> dict[str, tuple[float, float]]:
    """Percentile intervals over examples drawn with replacement, each with all its prompts."""
    sets, generator = len(seen) // examples, torch.Generator().manual_seed(0)
    fits = []
    for _ in range(RESAMPLES):
        drawn = torch.randint(examples, (examples,), generator=generator)
        fits.append(fit_constants(seen.take(torch.cat([drawn + i * examples for i in range(sets)]))))
    levels = torch.tensor([0.025, 0.975], dtype=torch.float64)
    ends = {
        name: torch.tensor([getattr(fit, name) for fit in fits], dtype=torch.float64).quantile(levels).tolist()
        for name in CONSTANTS
    }
    return {name: (low, high) for name, (low, high) in ends.items()}


def _to_profile(fit: ProfileFit, name: str, labels: Sequence[str]) -> ReaderProfile:
    bias = dict(zip(labels, (round(value, DIGITS) for value in fit.bias.tolist()), strict=True))
    return ReaderProfile(
        name=name,
        follow=round(fit.follow, DIGITS),
        knowledge_weight=round(fit.knowledge_weight, DIGITS),
        recency=round(fit.recency, DIGITS),
        label_bias=bias,
    )


def _keep_own(held_out: HeldOutEvaluation, own_answers: Sequence[Answer], seen: ReaderAnswers) -> OwnKnowledge | None:
    """The answers behind the neutral prompt with the regression that foretells each of them best from the others."""
    if not _give_probabilities(own_answers):
        return None
    own = seen.own[: len(own_answers)]
    centred = own - own.mean(-1, keepdim=True)
    x = held_out.context.tensors.x[held_out.held].cpu().double()
    text = held_out.context.tensors.text[held_out.held].cpu()
    similarity = (x @ x.T).masked_fill(text[:, None] == text, -math.inf)
    fit = fit_by_leave_one_out(
        similarity, centred.expand(len(x), *centred.shape), centred, centred.mean(0), labels=False
    )
    shown = [held_out.context.pool.demonstration(row) for row in held_out.held.tolist()]
    return OwnKnowledge(
        ids=tuple(example.id for example in shown),
        inputs=tuple(make_content_id(example.input) for example in shown),
        outputs=tuple(held_out.labels or ()),
        log_probs=tuple(tuple(round(value, DIGITS) for value in row) for row in own.tolist()),
        temperature=fit.temperature,
        shrinkage=fit.shrinkage,
    )
