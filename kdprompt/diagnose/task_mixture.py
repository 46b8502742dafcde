"""Does a pool mix tasks whose inputs do not tell them apart, and what does that cost?

Each example is asked for in turn, with its output hidden: the attention of its nearest neighbours (R6, with the
pool's own outputs in place of estimates) falls on its own output, on another output of its task, or on another
task's. Where the pool has no tags, two groups of outputs are looked for that the same inputs get: groups that
neighbours hardly tell apart, while within each group they do tell the outputs apart. That is a hint, no proof: a
single task whose outputs the embedding does not see looks the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from kdprompt.pool.pool import Pool
from kdprompt.theory.bandwidth import fit_by_leave_one_out

__all__ = ["Mixture", "mixture"]

SAMPLE = 2000
NEIGHBOURS = 64
MOST_OUTPUTS = 12  # up to here every split of the outputs into two groups is looked at
FEWEST = 1000  # with fewer examples neighbours are far, and a single task looks mixed too
INDISTINCT = 0.8  # from here on, a split counts as one that inputs do not tell apart
CLEARER = 0.15  # and the outputs within its groups must be told apart better by at least this much


@dataclass(frozen=True)
class Mixture:
    """What the neighbourhoods of a pool say about its tasks.

    Attributes:
        groups: Outputs of each task: by tags, or two groups that were found; one group where nothing is mixed.
        tagged: Whether the groups are the pool's own tags.
        confusion: Attention of neighbours on other groups, relative to the groups' shares of the pool: 0 where inputs
            tell the groups apart, 1 where they say nothing about them.
        within: The same for outputs within a group, the group being known.
        cross: Share of the attention of the ``k`` nearest neighbours on other groups: the cross-task interference.
        conflict: Its share on other outputs of the same group: the label conflict.
        accuracy: Of the outputs that neighbours vote for.
        accuracy_within: Of their votes when the group is known.
        k: Neighbours of ``cross`` and ``conflict``.
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
        return len(self.groups) > 1 and self.confusion >= INDISTINCT

    def __str__(self) -> str:
        """The finding in sentences, with what to do."""
        if not self.mixed:
            told = (
                "The inputs tell its tasks apart"
                if self.tagged
                else "Nothing speaks for a mixture of conflicting tasks"
            )
            return (
                f"{told} (confusion {self.confusion:.2f}, where 1 is chance). Of the attention of {self.k} nearest "
                f"neighbours {self.cross:.0%} falls on outputs of another task, {self.conflict:.0%} on conflicting "
                "outputs of the same."
            )
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


def mixture(pool: Pool, vectors: Tensor, *, k: int = 8, seed: int = 0) -> Mixture:
    """Looks for tasks in a pool that conflict.

    Args:
        pool: Examples with outputs from a label set.
        vectors: Unit-norm embeddings of their inputs ``[n, d]``.
        k: Nearest neighbours that a plain selector would show.
        seed: Of the sample of at most 2,000 examples that are asked for.

    Returns:
        The finding; ``str`` says it in words.

    Raises:
        ValueError: The pool has fewer than 3 examples with outputs, or fewer than 2 outputs.
    """
    kept = [i for i, d in enumerate(pool) if d.output is not None]
    names = sorted({(pool[i].task or "", str(pool[i].output)) for i in kept})
    if len(kept) < 3 or len(names) < 2:
        raise ValueError(
            f"a mixture can be looked for among at least 3 examples with 2 outputs, got {len(kept)} with {len(names)}"
        )
    code = {name: i for i, name in enumerate(names)}
    y = torch.tensor([code[pool[i].task or "", str(pool[i].output)] for i in kept])
    x = torch.nn.functional.normalize(vectors[torch.tensor(kept)].float().cpu(), dim=-1)
    mass, near, own = _attention(x, y, len(names), k, seed)
    prior = torch.nn.functional.one_hot(y, len(names)).float().mean(0)
    tags = sorted({task for task, _ in names})
    if len(tags) > 1:
        group = torch.tensor([tags.index(task) for task, _ in names])
        return _finding(group, names, (mass, near, own, prior), tagged=True, k=k)
    whole = _finding(torch.zeros(len(names), dtype=torch.long), names, (mass, near, own, prior), tagged=False, k=k)
    if len(kept) < FEWEST:
        return whole
    found = [_finding(split, names, (mass, near, own, prior), tagged=False, k=k) for split in _splits(len(names))]
    best = max(found, key=lambda item: item.confusion - item.within, default=whole)
    clear = best.confusion >= INDISTINCT and best.confusion - best.within >= CLEARER
    return best if clear else whole


def _attention(x: Tensor, y: Tensor, outputs: int, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Attention on each output, of many neighbours and of the k nearest ``[m, c]`` each, and true outputs ``[m]``."""
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    similarity = x[rows] @ x.T
    similarity[torch.arange(len(rows)), rows] = -torch.inf
    top = similarity.topk(min(NEIGHBOURS, len(x) - 1), dim=-1)
    values = torch.nn.functional.one_hot(y, outputs).float()
    fitted = fit_by_leave_one_out(top.values, values[top.indices], values[rows], values.mean(0), labels=True)
    pull = ((top.values - 1) / fitted.temperature).exp()
    shown = values[top.indices]

    def share(count: int) -> Tensor:
        part = pull[:, :count, None]
        return (part * shown[:, :count]).sum(1) / part.sum(1).clamp_min(torch.finfo(part.dtype).tiny)

    return share(len(top.values[0])), share(k), y[rows]


def _splits(outputs: int) -> Iterator[Tensor]:
    """Every split of the outputs into two groups of at least two; none where there are too many to look at."""
    if outputs > MOST_OUTPUTS:
        return
    for size in range(2, outputs // 2 + 1):
        for members in combinations(range(outputs), size):
            if 2 * size < outputs or 0 in members:
                group = torch.zeros(outputs, dtype=torch.long)
                group[list(members)] = 1
                yield group


def _finding(
    group: Tensor,
    names: Sequence[tuple[str, str]],
    seen: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    tagged: bool,
    k: int,
) -> Mixture:
    mass, near, own, prior = seen
    same = group[own][:, None] == group  # outputs of the example's own group [m, c]

    def inside(shares: Tensor) -> Tensor:
        kept = shares * same
        return kept / kept.sum(-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)

    chance = prior.expand_as(mass)
    apart = (mass * ~same).sum(-1).mean() / (chance * ~same).sum(-1).mean().clamp_min(1e-12)
    missed = 1 - inside(mass).gather(1, own[:, None]).mean()
    blind = 1 - inside(chance).gather(1, own[:, None]).mean()
    hit = near.gather(1, own[:, None]).squeeze(-1)
    cross = float((near * ~same).sum(-1).mean())
    groups = [tuple(names[i][1] for i in range(len(names)) if group[i] == g) for g in group.unique().tolist()]
    return Mixture(
        groups=tuple(groups),
        tagged=tagged,
        confusion=float(apart) if len(groups) > 1 else 0.0,
        within=float(missed / blind.clamp_min(1e-12)),
        cross=cross,
        conflict=float((1 - hit).mean()) - cross,
        accuracy=float((mass.argmax(-1) == own).float().mean()),
        accuracy_within=float(((mass * same).argmax(-1) == own).float().mean()),
        k=k,
    )
