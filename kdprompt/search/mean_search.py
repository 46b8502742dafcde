r"""One prompt for many queries where J is the MMD alone: greedy and swaps over all rows, without their Gram matrix.

MMD²(S) = Σ_ij κ⊗(z_i, z_j)/k² − 2 Σ_i μ_Q(z_i)/k + ‖μ_Q‖². The mean embedding μ_Q of the queries is evaluated once at
every row; then each member of the set costs one column of the Gram matrix. Sums are kept in double precision, and
equally good rows are told apart by their place in the order of ids.

It is kernel herding with exact line search (Chen, Welling, Smola 2010, arXiv 1203.3472), followed by swaps, the best
first, until none lowers the MMD.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kdprompt.theory.kernels import Kernel, mix_output_kernel
from kdprompt.theory.point_pairs import PointPairs, multiply_with_all, widen

__all__ = ["MeanProblem", "search_by_means"]

ROUNDING = 1e-12  # smaller gains are none
TILE = 512  # rows, and target points, whose kernel is held at a time
WIDENED = 16_384  # rows of half precision that are widened at a time


@dataclass(frozen=True)
class MeanProblem:
    """The MMD of sets of rows to a target.

    Attributes:
        x: Inputs of the rows ``[n, d]``, in the dtype of the values or in half precision.
        v: Their values ``[n, c]``.
        kernel: κ of the inputs.
        output_share: ρ in [0, 1].
        text: Code of the input text of each row ``[n]``; rows of one text are never chosen together.
        near_duplicate: Cosine of two inputs from which they are not either.
        allowed: Rows that may be chosen, boolean ``[n]``.
        place: Place of each row in the order of ids ``[n]``; ties go to the first.
    """

    x: Tensor
    v: Tensor
    kernel: Kernel
    output_share: float
    text: Tensor
    near_duplicate: float
    allowed: Tensor
    place: Tensor

    def evaluate_mean(self, x: Tensor, v: Tensor, weights: Tensor, own: Tensor | None = None) -> Tensor:
        """μ_Q at every row ``[n]``, float64, of target points ``[m, d]`` with values ``[m, c]`` and weights ``[m]``.

        Where the points are the rows themselves, as ``find_points`` says, κ of a pair is computed once for both.
        """
        mean = torch.zeros(len(self.x), dtype=torch.float64, device=self.x.device)
        norms = x.square().sum(-1)
        if own is not None:
            x, v, weights, norms = self.x, v[own], weights[own], self._norms

        def add(rows: slice, points: slice, kappa: Tensor) -> None:
            if self.output_share:
                kappa = mix_output_kernel(self.v[rows] @ v[points].T, self.output_share).mul_(kappa)
            mean[rows] += (kappa @ weights[points]).double()

        for start in range(0, len(self.x), TILE):
            rows = slice(start, start + TILE)
            ours = widen(self.x[rows])
            for begin in range(0 if own is None else start, len(x), TILE):
                points = slice(begin, begin + TILE)
                pairs = PointPairs(ours, widen(x[points]))
                pairs = pairs.with_known(x_norms=self._norms[rows], y_norms=norms[points])
                kappa = self.kernel.of_pairs(pairs)
                add(rows, points, kappa)
                if own is not None and begin > start:
                    add(points, rows, kappa.T)
        return mean

    def find_points(self, x: Tensor) -> Tensor | None:
        """Which of the points ``[m, d]`` is each row ``[n]``, where the points are the rows in any order; else None.

        Rows of half precision are none of them: points are of another norm, by a rounding.
        """
        if x.shape != self.x.shape or x.dtype != self.x.dtype:
            return None
        theirs, ours = _sort_points(x), _sort_points(self.x)
        if not torch.equal(x[theirs], self.x[ours]):
            return None
        return torch.empty_like(ours).scatter(0, ours, theirs)

    def compare(self, row: int) -> tuple[Tensor, Tensor]:
        """Every row with one of them.

        Returns:
            κ⊗ ``[n]``; and rows that are never chosen together with it, itself among them, boolean ``[n]``.
        """
        point = widen(self.x[row : row + 1])
        inner = multiply_with_all(point, self.x)[0]

        def evaluate(rows: slice) -> Tensor:
            pairs = PointPairs(widen(self.x[rows]), point)
            return self.kernel.of_pairs(pairs.with_known(inner=inner[rows, None], x_norms=self._norms[rows]))

        values = mix_output_kernel(self.v @ self.v[row], self.output_share)
        repeats = (self.text == self.text[row]) | (inner >= self.near_duplicate)
        return self._join(evaluate).squeeze(-1) * values, repeats

    def _join(self, evaluate: Callable[[slice], Tensor]) -> Tensor:
        """What a function of rows gives of all rows; of inputs in half precision some are widened at a time."""
        step = len(self.x) if self.x.dtype == self.v.dtype else WIDENED
        return torch.cat([evaluate(slice(start, start + step)) for start in range(0, len(self.x), step)])

    @cached_property
    def _norms(self) -> Tensor:
        """‖x‖² of every row ``[n]``, a tile at a time: squares of all would be a second copy of the pool."""
        return torch.cat([widen(rows).square().sum(-1) for rows in self.x.split(TILE)])

    def diagonal(self) -> Tensor:
        """κ⊗ of every row with itself ``[n]``, float64."""
        values = mix_output_kernel(self.v.square().sum(-1), self.output_share)
        return (self._join(lambda rows: self.kernel.diagonal(widen(self.x[rows]))) * values).double()

    def first_minimum(self, values: Tensor) -> tuple[float, int]:
        """The smallest of ``values: [n]``, and the first row that has it; ∞ and −1 where there is none."""
        least = values.min()
        if not bool(least.isfinite()):
            return float("inf"), -1
        tied = (values == least).nonzero().squeeze(-1)
        return float(least), int(tied[self.place[tied].argmin()])


def _sort_points(x: Tensor) -> Tensor:
    """Points ``[n, d]`` in the order of their first coordinate, those that share it by their last, ``[n]``."""
    order = x[:, -1].argsort(stable=True)
    return order[x[order, 0].argsort(stable=True)]


@dataclass
class _Members:
    """A set as it grows, with what its members add up to."""

    problem: MeanProblem
    mean: Tensor
    diagonal: Tensor
    rows: list[int] = field(default_factory=list)
    columns: list[Tensor] = field(default_factory=list)
    repeats: list[Tensor] = field(default_factory=list)

    def overlap(self) -> Tensor:
        """Σ_j κ⊗(z, z_j) at every row ``[n]``, float64."""
        total = torch.zeros_like(self.mean)
        for column in self.columns:
            total += column
        return total

    def put(self, slot: int, row: int) -> None:
        """Puts a row into a slot, or behind the last one."""
        column, repeats = self.problem.compare(row)
        self.rows[slot : slot + 1] = [row]
        self.columns[slot : slot + 1] = [column]
        self.repeats[slot : slot + 1] = [repeats]

    def squared_mmd(self) -> float:
        """MMD² but for ‖μ_Q‖²."""
        gram, means = self.sum_up()
        return float(gram.sum() / len(self.rows) ** 2 - 2 * means.sum() / len(self.rows))

    def sum_up(self) -> tuple[Tensor, Tensor]:
        """Gram matrix of the members ``[k, k]`` and μ_Q at them ``[k]``, float64."""
        index = torch.tensor(self.rows, device=self.mean.device)
        return torch.stack([column[index] for column in self.columns], -1).double(), self.mean[index]


def search_by_means(problem: MeanProblem, mean: Tensor, k: int) -> list[int]:
    """The set of least MMD that greedy search and swaps find.

    Args:
        problem: The rows.
        mean: μ_Q at each of them ``[n]``, float64.
        k: Most rows.

    Returns:
        At most k rows, in the order of choice; fewer where no more are allowed.
    """
    members = _Members(problem, mean, problem.diagonal())
    overlap, barred = torch.zeros_like(mean), ~problem.allowed
    for size in range(1, k + 1):
        gains = (2 * overlap + members.diagonal) / size**2 - 2 * mean / size  # MMD² but for what all rows share
        _, row = problem.first_minimum(gains.masked_fill(barred, torch.inf))
        if row < 0:
            break
        members.put(len(members.rows), row)
        overlap += members.columns[-1]
        barred = barred | members.repeats[-1]
    while members.rows and _swap_best(members):
        pass
    return members.rows


def _swap_best(members: _Members) -> bool:
    """Makes the swap that lowers the MMD most; False where none does."""
    gram, means = members.sum_up()
    size, problem = len(members.rows), members.problem
    joins = (2 * members.overlap() + members.diagonal) / size**2 - 2 * members.mean / size
    leaves = (gram.sum() - 2 * gram.sum(0) + gram.diagonal()) / size**2 - 2 * (means.sum() - means) / size
    conflicts = torch.zeros_like(problem.place)
    for repeats in members.repeats:
        conflicts += repeats
    barred = joins.masked_fill(~problem.allowed | (conflicts > 0), torch.inf)
    once = (problem.allowed & (conflicts == 1)).nonzero().squeeze(-1)  # free where the one that they repeat leaves

    def swap(slot: int) -> Tensor:
        """MMD² with each row in a slot, but for what the member that leaves changes."""
        column, repeats = members.columns[slot], members.repeats[slot]
        freed = joins[once].sub_(column[once], alpha=2 / size**2).masked_fill_(~repeats[once], torch.inf)
        return torch.sub(barred, column, alpha=2 / size**2).index_copy_(0, once, freed)

    least = torch.stack([swap(slot).amin() for slot in range(size)]) + leaves
    leaves_at = int(least.argmin())
    _, joins_row = problem.first_minimum(swap(leaves_at))  # a row: a member may take its own place
    before, leaver = members.squared_mmd(), members.rows[leaves_at]
    members.put(leaves_at, joins_row)
    # Both sides by the sums of the set alone: what is gained is no rounding, and the search ends.
    if members.squared_mmd() < before - ROUNDING * max(abs(before), 1.0):
        return True
    members.put(leaves_at, leaver)
    return False
