"""How many answers a calibration by a reader takes, before it is asked for any."""

from dataclasses import dataclass

from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.settings import Settings

__all__ = ["HELD_OUT", "AnswerPlan", "plan_answers"]

HELD_OUT = 192  # most examples that every recipe is tried on
FEWEST = 96  # examples with an output that profile and static prompt each need beside those
PROFILE = 120  # most examples that a profile is measured on, with three prompts each
STATIC, ROUND = 1920, 480  # most answers of a static prompt without rounds of changes, and of a round
RECIPES, RECIPES_WITH_PREFIX = 2, 3  # without the measured profile, which adds one and one


@dataclass(frozen=True)
class AnswerPlan:
    """What a reader is asked for.

    Attributes:
        profile: Whether its profile is measured.
        static_rounds: Rounds of changes of its static prompt; None: there is none.
        answers: How many answers this takes at most.
    """

    profile: bool
    static_rounds: int | None
    answers: int

    def __str__(self) -> str:
        """In words."""
        parts = [f"at most {self.answers:,} answers"]
        parts += [] if self.profile else ["its profile is not measured"]
        parts += ["no static prompt in front is tried"] if self.static_rounds is None else []
        return "; ".join(parts)


def plan_answers(pool: PoolTensors, settings: Settings, max_answers: int | None = None) -> AnswerPlan:
    """What a reader is to be asked for: first ways to make prompts, then its profile, then its static prompt.

    Args:
        pool: The pool. Profile and static prompt are for pools of one task, with enough examples beside those that
            the ways are tried on; a profile needs labels too, and that J is free to use it.
        settings: Rounds of the static prompt, k, and what is fixed of J.
        max_answers: Most answers; None is no limit.

    Raises:
        ValueError: ``max_answers`` is no whole number, or does not suffice to try anything.
    """
    labelled = int((pool.label >= 0).sum())
    held = min(HELD_OUT, labelled // 4)
    total = RECIPES * held
    if max_answers is not None and (isinstance(max_answers, bool) or not isinstance(max_answers, int)):
        raise ValueError(f"max_answers must be a whole number or None, got {max_answers!r}")
    left = float("inf") if max_answers is None else max_answers
    if total > left:
        raise ValueError(
            f"max_answers must be at least {total}, to try {RECIPES} ways to make prompts on {held} examples, got "
            f"{max_answers}"
        )
    apart = len(pool.tasks) <= 1 and settings.largest_k > 0 and labelled - held >= FEWEST
    measuring = 3 * min(PROFILE, (labelled - held) // 4) + held
    profile = apart and _may_profile(pool, settings) and total + measuring <= left
    total += measuring if profile else 0
    needed = STATIC + (RECIPES_WITH_PREFIX + profile) * held
    if not apart or total + needed > left:
        return AnswerPlan(profile, None, total)
    rounds = int(min(settings.static.rounds, (left - total - needed) // ROUND))
    return AnswerPlan(profile, rounds, total + needed + ROUND * rounds)


def _may_profile(pool: PoolTensors, settings: Settings) -> bool:
    """Whether J may work with a measured profile: outputs are labels, and the settings fix no other reader, or none."""
    fixed = settings.objective
    models_reader = fixed.weights is None or fixed.weights.reader > 0
    return pool.output_mode == "labels" and len(pool.labels) > 1 and fixed.profile is None and models_reader
