"""The nearest other inputs of each input of a pool, at a cost that is linear in the pool but for a logarithm.

Small pools are compared pair by pair. Large ones are cut in halves again and again, each time at the median of a
projection onto the difference of two inputs drawn at random, until a cell is small enough to compare its pairs; several
such trees make up for neighbours that a cut parted. How many of the true neighbours are found is measured on a sample
and said. Near-duplicates are seldom parted: the smaller an angle, the fewer cuts fall into it.

Rejected: FAISS, an optional extra whose index takes longer to build than this search takes.

Source: Dasgupta, Freund (2008), "Random projection trees and low dimensional manifolds", STOC; the cuts by two points
are those of Annoy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EXACT_UP_TO", "NearestInputs", "find_nearest_inputs"]

EXACT_UP_TO = 6000  # inputs, all pairs of which are compared
CELL = 256  # inputs of a leaf at most
TREES = 8
SAMPLE = 256  # inputs on which recall is measured
CHUNK = 1024  # inputs whose similarities to the whole pool are held at a time
NOTHING = -2.0  # the similarity of a place that is not filled; cosines are larger


@dataclass(frozen=True)
class NearestInputs:
    """The nearest other inputs of ``n`` inputs.

    Attributes:
        similarity: Cosines ``[n, k]``, the largest first; −2 where there are fewer than k neighbours.
        index: Rows of the neighbours ``[n, k]``; −1 where there are fewer.
        recall: Share of the true k neighbours that was found, in [0, 1]: 1 where all pairs were compared, else measured
            on a sample.
    """

    similarity: Tensor
    index: Tensor
    recall: float


def find_nearest_inputs(x: Tensor, k: int, *, exact_up_to: int = EXACT_UP_TO, seed: int = 0) -> NearestInputs:
    """Finds the ``k`` nearest other rows of each row.

    Args:
        x: Unit-norm rows ``[n, d]``.
        k: Neighbours a row, ≥ 1; at most n − 1 are found.
        exact_up_to: From more rows on the search is approximate.
        seed: Seed of the cuts, and of the sample on which recall is measured.

    Returns:
        Cosines and rows, and the recall.
    """
    k = max(1, min(k, len(x) - 1))
    if len(x) <= max(exact_up_to, k + 1):
        return NearestInputs(*_compare_all(x, torch.arange(len(x)), k), recall=1.0)
    generator = torch.Generator().manual_seed(seed)
    similarity = x.new_full((len(x), k), NOTHING)
    index = torch.full((len(x), k), -1, device=x.device)
    for _ in range(TREES):
        for cells in _grow_tree(x, max(CELL, 2 * k), generator).split(max(1, CHUNK // CELL)):
            _compare_within(x, cells, similarity, index)
    sample = torch.randperm(len(x), generator=generator)[:SAMPLE].to(x.device)
    _, true_index = _compare_all(x, sample, k)
    found = (true_index[:, :, None] == index[sample][:, None, :]).any(-1)
    return NearestInputs(similarity, index, float(found.float().mean()))


def _compare_all(x: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines and indices of the nearest of all other rows, of each of ``rows``, ``[m, k]`` each."""
    values, index = [], []
    for part in rows.to(x.device).split(CHUNK):
        similarity = x[part] @ x.T
        similarity[torch.arange(len(part), device=x.device), part] = NOTHING
        top = similarity.topk(k, dim=-1)
        values.append(top.values)
        index.append(top.indices.masked_fill(top.values == NOTHING, -1))
    return torch.cat(values), torch.cat(index)


def _grow_tree(x: Tensor, cell: int, generator: torch.Generator) -> Tensor:
    """Cuts the rows at medians until cells have at most ``cell`` rows, ``[cells, size]``; a few rows stand in two."""
    depth = math.ceil(math.log2(len(x) / cell))
    cells = 2**depth
    spare = -len(x) % cells
    rows = torch.cat([torch.arange(len(x)), torch.randint(len(x), (spare,), generator=generator)]).to(x.device)
    for level in range(depth):
        groups = rows.view(2**level, -1)
        size = groups.shape[1]
        ends = groups.gather(1, torch.randint(size, (len(groups), 2), generator=generator).to(x.device))
        direction = x[ends[:, 0]] - x[ends[:, 1]]
        projection = (x[groups] @ direction[:, :, None]).squeeze(-1)
        rows = groups.gather(1, projection.argsort(-1)).flatten()
    return rows.view(cells, -1)


def _compare_within(x: Tensor, cells: Tensor, similarity: Tensor, index: Tensor) -> None:
    """Compares the pairs within each cell and keeps the nearest that any tree has found, in place."""
    k = index.shape[1]
    points = x[cells]
    pairs = points @ points.transpose(-1, -2)
    pairs = pairs.masked_fill(cells[:, :, None] == cells[:, None, :], NOTHING)
    top = pairs.topk(k, dim=-1)
    rows = cells.flatten()
    found = cells[:, None, :].expand_as(pairs).gather(-1, top.indices).view(len(rows), k)
    found = found.masked_fill(top.values.view(len(rows), k) == NOTHING, -1)
    both = torch.cat([index[rows], found], -1)
    order = both.argsort(stable=True, dim=-1)
    both = both.gather(-1, order)
    values = torch.cat([similarity[rows], top.values.view(len(rows), k)], -1).gather(-1, order)
    repeated = torch.zeros_like(both, dtype=torch.bool)
    repeated[:, 1:] = both[:, 1:] == both[:, :-1]
    best = values.masked_fill(repeated, NOTHING).topk(k, dim=-1)
    similarity[rows] = best.values
    index[rows] = both.gather(-1, best.indices).masked_fill(best.values == NOTHING, -1)
