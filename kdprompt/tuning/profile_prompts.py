"""The prompts behind which a reader answers so that its profile can be fitted: one neutral, others varied."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kdprompt.tuning.held_out import HeldOutEvaluation

__all__ = ["ProfilePrompts"]

NEIGHBOURS = 64  # that a prompt of an example is drawn from


@dataclass(frozen=True)
class ProfilePrompts:
    """Prompts for held-out examples.

    Attributes:
        held_out: The examples.
        rows: Rows that may be shown ``[n]``.
        k: Demonstrations a prompt.
        draw: Draws them.
    """

    held_out: HeldOutEvaluation
    rows: Tensor
    k: int
    draw: random.Random

    def neutral(self) -> list[int]:
        """Examples, k or fewer, in which every output stands as often as the others; of more than k outputs k."""
        outputs = self.outputs(self.rows.tolist())
        by_output = {label: [row for row, o in outputs.items() if o == label] for label in self.held_out.labels or ()}
        groups = [self.draw.sample(group, len(group)) for group in by_output.values() if group]
        self.draw.shuffle(groups)
        turns = max(min(self.k // len(groups), *map(len, groups)), 1)
        return [group[turn] for turn in range(turns) for group in groups][: self.k]

    def near(self, i: int) -> list[int]:
        """The k nearest neighbours of an example in a random order."""
        return self.shuffled(self.neighbours(i)[: self.k])

    def tilted(self, i: int) -> list[int]:
        """Neighbours of an example, and others, with an output drawn at random more or less often."""
        anywhere = self.draw.sample(self.rows.tolist(), min(NEIGHBOURS, len(self.rows)))
        outputs = self.outputs([*self.neighbours(i), *anywhere])
        chosen = self.draw.choice(sorted(set(outputs.values())))
        with_it = [row for row, output in outputs.items() if output == chosen]
        others = self.shuffled([row for row, output in outputs.items() if output != chosen])
        count = self.draw.randint(0, self.k)
        return self.shuffled([*with_it[:count], *others, *with_it[count:]][: self.k])

    def neighbours(self, i: int) -> list[int]:
        """Rows nearest to an example, the nearest first."""
        tensors = self.held_out.context.tensors
        similarity = tensors.take_inputs(self.rows) @ tensors.take_inputs(self.held_out.held[i])
        nearest: list[int] = self.rows[similarity.topk(min(NEIGHBOURS, len(self.rows))).indices].tolist()
        return nearest

    def outputs(self, rows: Sequence[int]) -> dict[int, str]:
        """The outputs of rows, where they have one."""
        tensors = self.held_out.context.tensors
        return {row: tensors.labels[int(tensors.label[row])][1] for row in rows if int(tensors.label[row]) >= 0}

    def shuffled(self, rows: Sequence[int]) -> list[int]:
        """Rows in a random order."""
        return self.draw.sample(list(rows), len(rows))
