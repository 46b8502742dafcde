"""Whether a pool mixes tasks that its inputs do not tell apart, and what that costs.

Each example is a query once, with its output hidden. The attention of its nearest neighbours (R6, with the pool's own
outputs in place of estimates) falls on its own output, on another output of its task, or on one of another task. Where
the pool has no tags, the outputs are split into two groups that neighbours hardly tell apart while they do tell the
outputs within each group apart. Such a split is a hint and no proof: a single task whose outputs the embedding does not
separate looks the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from kdprompt.pool.pool import Pool
from kdprompt.pool.vectors import normalise_rows
from kdprompt.theory.attention import normalise_attention
from kdprompt.theory.bandwidth import fit_by_leave_one_out

__all__ = ["TaskMixture", "find_task_mixture"]

SAMPLE = 1000  # most examples that are queries
NEIGHBOURS = 64  # neighbours of ``confusion``, ``within`` and the votes
MAX_OUTPUTS = 12  # up to so many outputs, every split into two groups is examined
MIN_EXAMPLES_UNTAGGED = 1000  # with fewer examples neighbours are far, and a single task looks mixed too
MIN_CONFUSION = 0.8  # from this confusion on, inputs do not tell the groups apart
MIN_CONTRAST = 0.15  # and outputs within the groups must be told apart better by at least this much


@dataclass(frozen=True)
class TaskMixture:
    """The tasks of a pool, and how far inputs tell them apart.

    Attributes:
        groups: Outputs of each task: by tags, or of the two groups of the best split; one group where nothing is mixed.
        tagged: Whether the groups are the pool's own tags.
        confusion: Attention of neighbours on other groups, relative to the groups' shares of the pool: 0 where inputs
            tell the groups apart, 1 where they say nothing about them.
        within: The same for outputs within a group, the group being known.
        cross: Share of the attention of the ``k`` nearest neighbours on other groups, in [0, 1]: the cross-task
            interference.
        conflict: Its share on other outputs of the same group, in [0, 1]: the label conflict.
        accuracy: Accuracy of the outputs that neighbours vote for, in [0, 1].
        accuracy_within: Accuracy of their votes when the group is known, in [0, 1].
        k: Number of neighbours of ``cross`` and ``conflict``.
    """

    groups: tuple[tuple[str, ...], ...]
    tagged: bool
    confusion: float
    within: float
    cross: float
    conflict: float
    accuracy: float
    accuracy_within: float
    k: int

    @property
    def mixed(self) -> bool:
        """Whether several tasks share inputs that hardly tell them apart."""
        return len(self.groups) > 1 and self.confusion >= MIN_CONFUSION

    def __str__(self) -> str:
        """The result in sentences, with what to do."""
        return self._mixed_text() if self.mixed else self._plain_text()

    def _plain_text(self) -> str:
        verdict = (
            "The inputs tell its tasks apart" if self.tagged else "Nothing speaks for a mixture of conflicting tasks"
        )
        return (
            f"{verdict} (confusion {self.confusion:.2f}, where 1 is chance). Of the attention of {self.k} nearest "
            f"neighbours {self.cross:.0%} falls on outputs of another task, {self.conflict:.0%} on conflicting "
            "outputs of the same."
        )

    def _mixed_text(self) -> str:
        names = " and ".join(
            "{" + ", ".join(group[:6]) + (", …" if len(group) > 6 else "") + "}" for group in self.groups
        )
        source = "Its tags name" if self.tagged else "By its outputs it may mix"
        return (
            f"{source} tasks that inputs hardly tell apart: {names} (confusion {self.confusion:.2f} where 1 is chance, "
            f"within a task {self.within:.2f}). Of the attention of {self.k} nearest neighbours {self.cross:.0%} falls "
            f"on outputs of another task, {self.conflict:.0%} on conflicting outputs of the same. Their vote is right "
            f"for {self.accuracy:.0%} of the examples, for {self.accuracy_within:.0%} when the task is known: say the "
            "task of a query (task=…), or its permitted outputs (outputs=…)."
        )


@dataclass(frozen=True)
class _LabelledPool:
    """The examples with outputs: unit-norm ``x: [n, d]``, index of the output ``y: [n]``, and (task, output) names."""

    x: Tensor
    y: Tensor
    names: list[tuple[str, str]]

    @property
    def values(self) -> Tensor:
        """One-hot outputs ``[n, c]``."""
        return torch.nn.functional.one_hot(self.y, len(self.names)).float()


@dataclass(frozen=True)
class _Attention:
    """Where the attention of m examples falls.

    ``mass: [m, c]`` on each output by many neighbours, ``nearest: [m, c]`` by the k nearest, ``output: [m]`` index of
    the true output, ``prior: [c]`` share of each output in the pool.
    """

    mass: Tensor
    nearest: Tensor
    output: Tensor
    prior: Tensor
    k: int


def find_task_mixture(pool: Pool, vectors: Tensor, *, k: int = 8, seed: int = 0) -> TaskMixture:
    """Looks for tasks in a pool that conflict.

    Args:
        pool: Examples with outputs from a label set.
        vectors: Unit-norm embeddings of their inputs ``[n, d]``.
        k: Nearest neighbours that a plain selector would show.
        seed: Seed of the sample of at most 2,000 examples that are queries.

    Returns:
        The tasks; ``str`` describes them in words.

    Raises:
        ValueError: The pool has fewer than 3 examples with outputs, or fewer than 2 outputs.
    """
    labelled = _labelled_pool(pool, vectors)
    attention = _attend(labelled, k, seed)
    tasks = sorted({task for task, _ in labelled.names})
    if len(tasks) > 1:
        group = torch.tensor([tasks.index(task) for task, _ in labelled.names])
        return _measure_groups(group, labelled.names, attention, tagged=True)
    outputs = len(labelled.names)
    whole = _measure_groups(torch.zeros(outputs, dtype=torch.long), labelled.names, attention, tagged=False)
    if len(labelled.y) < MIN_EXAMPLES_UNTAGGED:
        return whole
    splits = [_measure_groups(group, labelled.names, attention, tagged=False) for group in _splits(outputs)]
    best = max(splits, key=lambda split: split.confusion - split.within, default=whole)
    clear = best.confusion >= MIN_CONFUSION and best.confusion - best.within >= MIN_CONTRAST
    return best if clear else whole


def _labelled_pool(pool: Pool, vectors: Tensor) -> _LabelledPool:
    given = {i: (d.task or "", str(d.output)) for i, d in enumerate(pool) if d.output is not None}
    rows, names = list(given), sorted(set(given.values()))
    if len(rows) < 3 or len(names) < 2:
        raise ValueError(
            f"a mixture can be looked for among at least 3 examples with 2 outputs, got {len(rows)} with {len(names)}"
        )
    code = {name: i for i, name in enumerate(names)}
    y = torch.tensor([code[name] for name in given.values()])
    return _LabelledPool(normalise_rows(vectors.cpu().index_select(0, torch.tensor(rows)).float()), y, names)


def _attend(labelled: _LabelledPool, k: int, seed: int) -> _Attention:
    """The attention of a sample of the examples on all others; its temperature is fitted by leave-one-out."""
    x, values = labelled.x, labelled.values
    sample = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    similarity = x[sample] @ x.T
    similarity[torch.arange(len(sample)), sample] = -torch.inf
    top = similarity.topk(min(NEIGHBOURS, len(x) - 1), dim=-1)
    prior, shown = values.mean(0), values[top.indices]
    fitted = fit_by_leave_one_out(top.values, shown, values[sample], prior, labels=True)
    weights = ((top.values - 1) / fitted.temperature).exp()

    def share_of_nearest(count: int) -> Tensor:
        """Attention of the ``count`` nearest neighbours by output ``[m, c]``."""
        attention = normalise_attention(weights[:, :count], dim=-1)
        return (attention[..., None] * shown[:, :count]).sum(1)

    return _Attention(
        mass=share_of_nearest(top.values.shape[-1]),
        nearest=share_of_nearest(k),
        output=labelled.y[sample],
        prior=prior,
        k=k,
    )


def _splits(outputs: int) -> Iterator[Tensor]:
    """Every split of the outputs into two groups of at least two; none where there are more than ``MAX_OUTPUTS``."""
    if outputs > MAX_OUTPUTS:
        return
    for size in range(2, outputs // 2 + 1):
        for members in combinations(range(outputs), size):
            if 2 * size < outputs or 0 in members:
                group = torch.zeros(outputs, dtype=torch.long)
                group[list(members)] = 1
                yield group


def _measure_groups(
    group: Tensor, names: Sequence[tuple[str, str]], attention: _Attention, *, tagged: bool
) -> TaskMixture:
    """How far the attention tells groups of outputs apart; ``group: [c]`` is the index of each output's group."""
    mass, output = attention.mass, attention.output
    same = group[output][:, None] == group  # whether an output is of the example's group [m, c]
    chance = attention.prior.expand_as(mass)
    between = (mass * ~same).sum(-1).mean() / (chance * ~same).sum(-1).mean().clamp_min(1e-12)
    missed = 1 - normalise_attention(mass * same, dim=-1).gather(1, output[:, None]).mean()
    missed_by_chance = 1 - normalise_attention(chance * same, dim=-1).gather(1, output[:, None]).mean()
    hit = attention.nearest.gather(1, output[:, None]).squeeze(-1)
    cross = float((attention.nearest * ~same).sum(-1).mean())
    groups = [tuple(names[i][1] for i in range(len(names)) if group[i] == g) for g in group.unique().tolist()]
    return TaskMixture(
        groups=tuple(groups),
        tagged=tagged,
        confusion=float(between) if len(groups) > 1 else 0.0,
        within=float(missed / missed_by_chance.clamp_min(1e-12)),
        cross=cross,
        conflict=float((1 - hit).mean()) - cross,
        accuracy=float((mass.argmax(-1) == output).float().mean()),
        accuracy_within=float(((mass * same).argmax(-1) == output).float().mean()),
        k=attention.k,
    )
