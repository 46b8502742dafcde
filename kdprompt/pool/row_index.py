"""Approximate look-up of the rows nearest to a query, for pools where a product with every row takes too long.

Inverted lists by FAISS (extra ``faiss``; Sivic & Zisserman 2003, Johnson et al. 2017, arXiv 1702.08734): rows are
clustered, and a query looks into the nearest clusters alone. Rows are held in half precision there, beside the pool's
own, from which similarities are computed again: approximate is which rows are found, not how similar they are.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprompt.theory.point_pairs import multiply_with_all, widen

__all__ = ["IndexReport", "RowIndex"]

SAMPLE = 256  # rows by whose neighbours the recall is measured
CHUNK = 64  # of them whose similarities to all rows are held at a time
ADDED = 1 << 16  # rows that are added at a time
TRAINING = 39  # rows a cluster that the clusters are found by: as few as FAISS asks for
ROUNDS = 10  # of k-means


@dataclass(frozen=True)
class IndexReport:
    """An approximate look-up, and how much of the exact one it finds.

    Attributes:
        rows: Rows of the pool that it holds; later ones are compared with every query.
        lists: Clusters.
        probes: Clusters that a query looks into.
        size: Neighbours a query that the recall is of.
        recall: Share of them that it finds, in [0, 1], the mean over at most 256 rows of the pool.
        seconds: How long it took to build.
    """

    rows: int
    lists: int
    probes: int
    size: int
    recall: float
    seconds: float


class RowIndex:
    """Inverted lists over the first rows of a pool; rows that join later are looked at one by one.

    Attributes:
        report: What it holds, and its recall.
    """

    def __init__(self, lists: Any, report: IndexReport) -> None:
        self._lists = lists
        self.report = report

    @classmethod
    def build(cls, x: Tensor, size: int, recall: float, seed: int) -> "RowIndex":
        """Clusters rows, and looks into as many clusters a query as the recall asks for.

        Args:
            x: Unit-norm rows ``[n, d]``, on the CPU.
            size: Neighbours a query.
            recall: Least share of them that is found on average, in (0, 1]; at 1 every cluster is looked into.
            seed: Of the rows that the clusters are found by, and of those that the recall is measured on.

        Raises:
            ImportError: FAISS is not installed.
            ValueError: The rows are not on the CPU, or the recall is none.
        """
        if not 0 < recall <= 1:
            raise ValueError(f"recall must be in (0, 1], got {recall}")
        if x.device.type != "cpu":
            raise ValueError(f"the index is for pools on the CPU; on {x.device} every row is compared in one product")
        begun = time.perf_counter()
        lists = _cluster(x, seed)
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
        size = min(size, len(x) - 1)
        exact = _find_exactly(x, rows, size)
        index, probes = cls(lists, IndexReport(len(x), lists.nlist, 1, size, 0.0, 0.0)), 1
        while True:
            lists.nprobe = probes if recall < 1 else lists.nlist
            found = _measure_recall(index, x, rows, exact)
            if found >= recall or lists.nprobe == lists.nlist:
                break
            probes = min(2 * probes, lists.nlist)
        seconds = time.perf_counter() - begun
        return cls(lists, IndexReport(len(x), lists.nlist, lists.nprobe, size, found, seconds))

    def search(self, x: Tensor, q: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The nearest rows that are found.

        Args:
            x: The pool's rows ``[n, d]``, those of the index first.
            q: Unit-norm queries ``[b, d]``.
            size: Rows a query, at most n.

        Returns:
            Their inner products ``[b, size]``, the largest first, −∞ where so many are not found; and the rows.
        """
        found = torch.from_numpy(self._lists.search(q.float().numpy(), min(size, self.report.rows))[1])
        index = found.clamp_min(0)
        near = x.index_select(0, index.flatten()).view(*index.shape, x.shape[-1]).to(q.dtype)
        similarity = (near @ q[..., None]).squeeze(-1).masked_fill(found < 0, -torch.inf)
        later = torch.arange(self.report.rows, len(x))
        if len(later):
            similarity = torch.cat([similarity, multiply_with_all(q, x[self.report.rows :])], -1)
            index = torch.cat([index, later.expand(len(q), -1)], -1)
        value, place = similarity.topk(size, dim=-1)
        return value, index.gather(-1, place)


def _cluster(x: Tensor, seed: int) -> Any:
    """FAISS's inverted lists of rows."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError("an approximate look-up needs FAISS: pip install 'kdprompt[faiss]'") from error
    number = max(1, min(int(2 * len(x) ** 0.5), len(x) // TRAINING))
    lists: Any = faiss.index_factory(x.shape[1], f"IVF{number},SQfp16", faiss.METRIC_INNER_PRODUCT)
    lists.cp.seed, lists.cp.niter = seed & 0x7FFFFFFF, ROUNDS
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    lists.train(x[order[: TRAINING * number]].float().numpy())
    for part in x.split(ADDED):
        lists.add(part.float().numpy())
    return lists


def _find_exactly(x: Tensor, rows: Tensor, size: int) -> list[set[int]]:
    """The nearest other rows of some rows."""
    found: list[set[int]] = []
    for part in rows.split(CHUNK):
        similarity = multiply_with_all(widen(x[part]), x)
        similarity[torch.arange(len(part)), part] = -torch.inf
        found += map(set, similarity.topk(size, dim=-1).indices.tolist())
    return found


def _measure_recall(index: RowIndex, x: Tensor, rows: Tensor, exact: list[set[int]]) -> float:
    """The share of the nearest other rows that is found, the mean over some rows; 1 where there are no others."""
    size = index.report.size
    if size == 0:
        return 1.0
    value, found = index.search(x, widen(x[rows]), size + 1)
    there = found.masked_fill(value == -torch.inf, -1).tolist()
    return sum(len(near.intersection(row)) for near, row in zip(exact, there, strict=True)) / (size * len(rows))
