"""One prompt for the whole query distribution: the least J, or the best of several in a reader's answers.

J knows which demonstrations stand for the queries; how one model takes them it does not know. Where outputs are few,
a small model may lean to one of them because of what stands last, and no order is safe from that before it is tried.
So a reader may be asked: prompts are compared by what it answers to pool examples that are held out, whose outputs
are known. No label of a query is needed. Half of the prompts are of nearly least J, which are good on average and much
alike; the other half is drawn, and the best of many different ones may be better still. Then the best is changed, one
demonstration or two places at a time, and a change that the reader answers better with stays.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.objective.target import sample_target
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.readers.reader import Reader
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.problem import SelectionProblem, static_candidates
from kdprompt.settings import Settings
from kdprompt.tuning.held_out import EvaluationOutcome, HeldOutEvaluation

__all__ = ["static_rows"]

SETS = 16  # of small J: over all candidates, then over random halves of them
DRAWN = 16  # at random
CHANGED = 16  # prompts of one round of changes
FIRST = 6  # held-out examples that every prompt is tried on
HELD_OUT = 186  # 6 + 12 + 24 + 48 + 96
Prompt = tuple[int, ...]  # rows of the features in reading order


def static_rows(
    corpus: EmbeddedPool,
    wanted: QueryTensors,
    calibration: Calibration,
    settings: Settings,
    reader: Reader | None = None,
    apart: HeldOutEvaluation | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """The rows of a static prompt.

    Args:
        corpus: The pool.
        wanted: The queries.
        calibration: The settings in force.
        settings: How many, under which limits, in which order; how many rounds of changes.
        reader: Chooses among prompts of small J, drawn ones and changes of the best; None takes the one of least J.
        apart: Whose examples are neither shown nor asked here.

    Returns:
        Rows of the features in reading order ``[1, K]``, and what to say of them.

    Raises:
        PoolError: A reader is given and the pool is too small, or has no outputs to compare with.
        TypeError: What is given is no reader.
    """
    features = corpus.features
    target = sample_target(features, find_neighbours(features, wanted, settings.shortlist), calibration.regression)
    options = static_candidates(features, wanted, settings.static_shortlist)
    fixed = target, calibration.static, settings, corpus.lengths
    if reader is None:
        return SelectionProblem.of(features, options, *fixed).least(), ()
    generator = torch.Generator().manual_seed(settings.seed)
    rows = options.index[options.valid]
    if apart is not None:
        rows = apart.without(rows)
    examination = HeldOutEvaluation.of(corpus, settings, reader, rows, HELD_OUT, generator)
    kept = options.valid & torch.isin(options.index, examination.without(rows))
    problem = SelectionProblem.of(features, replace(options, valid=kept), *fixed)
    return _Search(problem, examination, generator, random.Random(settings.seed)).best()


@dataclass(frozen=True)
class _Search:
    """Prompts that were tried, and what the reader lost with them."""

    problem: SelectionProblem
    examination: HeldOutEvaluation
    generator: torch.Generator
    draw: random.Random
    tried: dict[Prompt, EvaluationOutcome] = field(default_factory=dict)

    def best(self) -> tuple[Tensor, tuple[str, ...]]:
        """Rows ``[1, K]`` of the best prompt, and what to say of it."""
        small, drawn = self._sets()
        prompts, name = self._orders([*small, *drawn]), self.examination.reader.name
        if len(prompts) == 1:
            return self._tensor(prompts[0]), (f"{name} was not asked: there is one prompt",)
        best, changes = self._race(prompts), 0
        source = "of small J" if set(best) in map(set, small) else "drawn at random"
        for _ in range(self.problem.settings.static_rounds):
            changed = self._changed(best)
            rival = self._race(changed) if changed else best
            if fmean(self.tried[rival].losses) < fmean(self.tried[best].losses):
                best, changes = rival, changes + 1
        first = self.tried[prompts[0]].losses
        source += f" and changed {changes} times" if changes else ""
        return self._tensor(best), (
            f"the best of {len(self.tried)} prompts, of small J, drawn and changed, by what {name} answers to held-out "
            f"examples of the pool, {source}: {self.tried[best]}; that of least J {fmean(first):.3f} on the first "
            f"{len(first)}",
        )

    def _race(self, prompts: Sequence[Prompt]) -> Prompt:
        held = len(self.examination.held)
        winner, outcomes = self.examination.race([[rows] * held for rows in prompts], first=FIRST)
        self.tried.update(zip(prompts, outcomes, strict=True))
        return prompts[winner]

    def _sets(self) -> tuple[list[Prompt], list[Prompt]]:
        """Of small J, the least first, and drawn."""
        problem, kept = self.problem, self.problem.options.valid
        halves = [self._keys() < 0.5 for _ in range(SETS - 1)]
        keys = [self._keys() for _ in range(DRAWN)]
        small = [problem.least(valid) for valid in (kept, *(kept & half for half in halves))]
        size = int((small[0] >= 0).sum())
        drawn = [problem.drawn(size, each) for each in keys]
        return [_prompt(rows) for rows in small], [_prompt(rows) for rows in drawn]

    def _orders(self, sets: Sequence[Prompt]) -> list[Prompt]:
        """Each set in its order and, where that is free, in a random one; each prompt once, the first first."""
        settings = self.problem.settings
        any_size = settings.k == "auto" or settings.budget is not None  # else k is what was asked for
        whole = [rows for rows in sets if any_size or len(rows) == len(sets[0])]
        shuffled = [tuple(self.draw.sample(rows, len(rows))) for rows in whole] if self.problem.free_order else []
        return list(dict.fromkeys([*whole, *shuffled]))

    def _changed(self, best: Prompt) -> list[Prompt]:
        """Prompts with another demonstration in one place or, where the order is free, two places replace_member."""
        found: dict[Prompt, None] = {}
        for attempt in range(2 * CHANGED if best else 0):
            if attempt % 4 == 0 and self.problem.free_order:
                rows = list(best)
                one, other = self.draw.randrange(len(rows)), self.draw.randrange(len(rows))
                rows[one], rows[other] = rows[other], rows[one]
                prompt = tuple(rows)
            else:
                place = self.draw.randrange(len(best))
                prompt = _prompt(self.problem.replace_member(self._tensor(best), place, self._keys()))
            if prompt not in self.tried:
                found[prompt] = None
            if len(found) == CHANGED:
                break
        return list(found)

    def _keys(self) -> Tensor:
        index = self.problem.options.index
        return torch.rand(index.shape, generator=self.generator).to(index.device)

    def _tensor(self, prompt: Prompt) -> Tensor:
        return torch.tensor([prompt], dtype=torch.long, device=self.problem.options.index.device)


def _prompt(rows: Tensor) -> Prompt:
    return tuple(int(row) for row in rows[0].tolist() if row >= 0)
