"""How many answers a calibration by a reader takes, before it is asked for any."""

from dataclasses import dataclass

from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.settings import Settings

__all__ = ["HELD_OUT", "AnswerPlan", "plan_answers"]

HELD_OUT = 192  # examples that every recipe is tried on
PROFILE = 360
STATIC, ROUND = 1900, 480  # a static prompt without rounds of changes, and a round
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
        pool: The pool. Profile and static prompt are for pools of one task alone; a profile needs labels.
        settings: Rounds of the static prompt, and k.
        max_answers: Most answers; None is no limit.

    Raises:
        ValueError: ``max_answers`` does not suffice to try anything.
    """
    held = min(HELD_OUT, len(pool) // 4)
    left = float("inf") if max_answers is None else max_answers
    total = RECIPES * held
    if total > left:
        raise ValueError(
            f"max_answers must be at least {total}, to try {RECIPES} ways to make prompts on {held} examples, got "
            f"{max_answers}"
        )
    one_task = len(pool.tasks) <= 1 and settings.largest_k > 0
    profile = one_task and pool.output_mode == "labels" and total + PROFILE + held <= left
    total += PROFILE + held if profile else 0
    needed = STATIC + (RECIPES_WITH_PREFIX + profile) * held
    if not one_task or total + needed > left:
        return AnswerPlan(profile, None, total)
    rounds = int(min(settings.static.rounds, (left - total - needed) // ROUND))
    return AnswerPlan(profile, rounds, total + needed + ROUND * rounds)
