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

from kdprompt.readers.reader import Reader
from kdprompt.selection.candidates import find_static_candidates
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.problem import SelectionProblem
from kdprompt.selection.static import find_sample_target
from kdprompt.selection.traffic import QuerySample
from kdprompt.tuning.held_out import EvaluationOutcome, HeldOutEvaluation

__all__ = ["StaticPrompt", "choose_by_reader"]

SETS = 16  # of small J: over all candidates, then over random halves of them
DRAWN = 16  # at random
CHANGED = 16  # prompts of one round of changes
FIRST = 6  # held-out examples that every prompt is tried on
HELD_OUT = 186  # 6 + 12 + 24 + 48 + 96
Prompt = tuple[int, ...]  # rows of the pool in reading order


@dataclass(frozen=True)
class StaticPrompt:
    """A static prompt that a reader chose.

    Attributes:
        rows: Rows of the pool in reading order ``[1, K]``.
        notes: How it was chosen, in words.
    """

    rows: Tensor
    notes: tuple[str, ...]


def choose_by_reader(
    context: SelectionContext,
    sample: QuerySample,
    reader: Reader,
    apart: HeldOutEvaluation | None = None,
) -> StaticPrompt:
    """Chooses among prompts of small J, random ones and changes of the best by what a reader answers.

    Args:
        context: The pool, the settings and J's parameters.
        sample: The queries.
        reader: Answers held-out examples of the pool.
        apart: Whose examples are neither shown nor asked here.

    Raises:
        PoolError: The pool is too small, or has no outputs to compare with.
        TypeError: What is given is no reader.
    """
    candidates = find_static_candidates(context.tensors, sample.encoded, context.settings.static.shortlist)
    target = find_sample_target(context, sample.encoded)
    generator = torch.Generator().manual_seed(context.settings.seed)
    rows = candidates.index[candidates.valid]
    if apart is not None:
        rows = apart.without_held_out(rows)
    held_out = HeldOutEvaluation.build(context, reader, rows, HELD_OUT, generator)
    kept = candidates.valid & torch.isin(candidates.index, held_out.without_held_out(rows))
    problem = SelectionProblem.build(context, replace(candidates, valid=kept), target)
    return _Search(problem, held_out, generator, random.Random(context.settings.seed)).run()


@dataclass(frozen=True)
class _Search:
    """Prompts that were tried, and what the reader lost with them."""

    problem: SelectionProblem
    held_out: HeldOutEvaluation
    generator: torch.Generator
    draw: random.Random
    tried: dict[Prompt, EvaluationOutcome] = field(default_factory=dict)

    def run(self) -> StaticPrompt:
        """The best prompt, and how it was found."""
        small, drawn = self._list_sets()
        prompts, name = self._add_orders([*small, *drawn]), self.held_out.reader.name
        if len(prompts) == 1:
            return StaticPrompt(self._to_tensor(prompts[0]), (f"{name} was not asked: there is one prompt",))
        best, changes = self._race(prompts), 0
        source = "of small J" if set(best) in map(set, small) else "drawn at random"
        for _ in range(self.problem.settings.static.rounds):
            changed = self._list_changes(best)
            rival = self._race(changed) if changed else best
            if fmean(self.tried[rival].losses) < fmean(self.tried[best].losses):
                best, changes = rival, changes + 1
        first = self.tried[prompts[0]].losses
        source += f" and changed {changes} times" if changes else ""
        note = (
            f"the best of {len(self.tried)} prompts, of small J, drawn and changed, by what {name} answers to held-out "
            f"examples of the pool, {source}: {self.tried[best]}; that of least J {fmean(first):.3f} on the first "
            f"{len(first)}"
        )
        return StaticPrompt(self._to_tensor(best), (note,))

    def _race(self, prompts: Sequence[Prompt]) -> Prompt:
        held = len(self.held_out.held)
        winner, outcomes = self.held_out.race([[rows] * held for rows in prompts], first=FIRST)
        self.tried.update(zip(prompts, outcomes, strict=True))
        return prompts[winner]

    def _list_sets(self) -> tuple[list[Prompt], list[Prompt]]:
        """Of small J, the least first, and drawn."""
        problem, kept = self.problem, self.problem.candidates.valid
        halves = [self._draw_keys() < 0.5 for _ in range(SETS - 1)]
        keys = [self._draw_keys() for _ in range(DRAWN)]
        small = [problem.solve(valid) for valid in (kept, *(kept & half for half in halves))]
        size = int((small[0] >= 0).sum())
        drawn = [problem.draw(size, keys_of_set) for keys_of_set in keys]
        return [_to_prompt(rows) for rows in small], [_to_prompt(rows) for rows in drawn]

    def _add_orders(self, sets: Sequence[Prompt]) -> list[Prompt]:
        """Each set in its order and, where that is free, in a random one; each prompt once, the first first."""
        settings = self.problem.settings
        any_size = settings.k == "auto" or settings.budget is not None  # else k is what was asked for
        whole = [rows for rows in sets if any_size or len(rows) == len(sets[0])]
        shuffled = [tuple(self.draw.sample(rows, len(rows))) for rows in whole] if self.problem.has_free_order else []
        return list(dict.fromkeys([*whole, *shuffled]))

    def _list_changes(self, best: Prompt) -> list[Prompt]:
        """Prompts with another demonstration in one place or, where the order is free, two places exchanged."""
        changed: dict[Prompt, None] = {}
        for attempt in range(2 * CHANGED if best else 0):
            if attempt % 4 == 0 and self.problem.has_free_order:
                rows = list(best)
                one, other = self.draw.randrange(len(rows)), self.draw.randrange(len(rows))
                rows[one], rows[other] = rows[other], rows[one]
                prompt = tuple(rows)
            else:
                place = self.draw.randrange(len(best))
                prompt = _to_prompt(self.problem.replace_member(self._to_tensor(best), place, self._draw_keys()))
            if prompt not in self.tried:
                changed[prompt] = None
            if len(changed) == CHANGED:
                break
        return list(changed)

    def _draw_keys(self) -> Tensor:
        index = self.problem.candidates.index
        return torch.rand(index.shape, generator=self.generator).to(index.device)

    def _to_tensor(self, prompt: Prompt) -> Tensor:
        return torch.tensor([prompt], dtype=torch.long, device=self.problem.candidates.index.device)


def _to_prompt(rows: Tensor) -> Prompt:
    return tuple(int(row) for row in rows[0].tolist() if row >= 0)
