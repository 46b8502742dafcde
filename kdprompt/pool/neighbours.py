"""The demonstrations nearest to each query, and which of them repeat one another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors, find_allowed_rows
from kdprompt.pool.row_index import RowIndex
from kdprompt.theory.point_pairs import multiply_with_all

__all__ = [
    "Neighbours",
    "compare_rows",
    "find_duplicates",
    "find_nearest",
    "find_neighbours",
    "take_nearest",
    "take_nearest_in_turn",
    "take_rows",
]

CHUNK = 128  # queries whose similarities to the whole pool are held at a time,
CELLS = 1 << 26  # and how many of these numbers at most
MANY = 1 << 24  # similarities that are ranked at once; of more,
TILE = 16_384  # so many rows at a time, whose similarities a processor's cache holds
SPARE = 32  # rows beyond those asked for, among which ties at the edge are settled
FEW = 8  # of the nearest rows, which may be taken out of them
TIE = 8  # times the rounding of a similarity: nearer ones tie


@dataclass(frozen=True)
class Neighbours:
    """The pool around each of ``b`` queries.

    Attributes:
        index: Rows of the pool's tensors ``[b, L]``, in the order of ids.
        valid: Which of them may serve the query ``[b, L]``.
        queries: The queries.
        similarity: Inner products of these rows with the query, in the pool's dtype ``[b, L]``, 0 where they are not
            valid; None: not at hand.
    """

    index: Tensor
    valid: Tensor
    queries: QueryTensors
    similarity: Tensor | None = None

    @property
    def q(self) -> Tensor:
        """The queries' embeddings ``[b, d]``."""
        return self.queries.q

    @property
    def task(self) -> Tensor:
        """Task code of each query ``[b]``, −1 for any; says which prior v̄ holds."""
        return self.queries.task

    def part(self, rows: slice | Tensor) -> "Neighbours":
        """Those of some of the queries."""
        similarity = None if self.similarity is None else self.similarity[rows]
        return Neighbours(self.index[rows], self.valid[rows], self.queries.part(rows), similarity)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Neighbours":
        """The same on another device in another dtype, where similarities are to be computed anew."""
        return Neighbours(self.index.to(device), self.valid.to(device), self.queries.to(device, dtype))

    def __len__(self) -> int:
        return len(self.queries)


def find_neighbours(
    pool: PoolTensors, queries: QueryTensors, size: int, *, exclude: Tensor | None = None
) -> Neighbours:
    """Looks up the nearest rows that may serve each query, some queries at a time.

    Only a task, permitted outputs or an ``exclude`` of many rows need a mask of the whole pool. A query's own text,
    rows where nobody stands and a few that are excluded are dropped from some more rows than are asked for; where those
    do not suffice, as where many rows tie, the query is looked up again with all rows before the eye. A pool's index
    finds what needs no mask, and then some of the nearest rows may be missing.

    Args:
        pool: ``n`` rows.
        queries: ``b`` queries.
        size: Neighbours a query.
        exclude: Rows that may serve no query, boolean ``[n]``.
    """
    most = min(size, len(pool))  # rows where nobody stands are not counted
    many = exclude is not None and int(exclude.sum()) * (size + SPARE) > FEW * len(pool.x)
    restricted = many or queries.permitted is not None or bool((queries.task >= 0).any())
    drops_text = not restricted and bool((queries.excluded_text >= 0).any())
    alive = None if restricted else _join_alive(pool.alive, exclude)
    index = None if restricted or exclude is not None else pool.index
    chunk = max(1, min(CHUNK, CELLS // max(len(pool), 1)))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    step = chunk if restricted else CHUNK  # without masks some rows at a time are looked at
    for start in range(0, len(queries), step):
        part = queries if len(queries) <= step else queries.part(slice(start, start + step))
        allowed = _find_allowed(pool, part, exclude) if restricted else None
        value, row, furthest = _rank(pool.x, part.q, allowed, index, size + SPARE)
        if drops_text:
            value = value.masked_fill(pool.text[row] == part.excluded_text[:, None], -torch.inf)
        if alive is not None:
            value = value.masked_fill(~alive[row], -torch.inf)
        turn = row if pool.rank is None else pool.rank[row]
        edge = _find_edge(value, most, is_sorted=not drops_text and alive is None)
        place, exact = _take_from_ranked(value, turn, edge, furthest, most)
        found.append((row.gather(-1, place), value.gather(-1, place), exact))
    rows, similarity, exact = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
    valid = similarity > -torch.inf
    if (index is not None or size + SPARE < len(pool.x)) and not bool(exact.all()):
        for again in (~exact).nonzero().squeeze(-1).split(chunk):
            part = queries.part(again)
            allowed = _find_allowed(pool, part, exclude)
            rows[again], valid[again] = find_nearest(pool.x, part.q, allowed, most, pool.rank)
            similarity[again] = (pool.take_inputs(rows[again]) @ part.q[..., None]).squeeze(-1)
    return Neighbours(rows, valid, queries, similarity.masked_fill(~valid, 0))


def _rank(
    x: Tensor, q: Tensor, allowed: Tensor | None, index: RowIndex | None, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest inner products of each query with the rows ``[b, size]``, in order, and their rows; −∞ if barred.

    And up to where those that are left out may come ``[b]``; +∞ where clusters hold too few rows.
    """
    size = min(size, len(x))
    if index is not None:
        value, row = index.search(x, q, size)
        furthest = value[:, -1]
        return value, row, furthest.masked_fill(furthest == -torch.inf, torch.inf)
    width = len(x) if len(q) * len(x) <= MANY else max(TILE, size)
    tops = []
    for start in range(0, len(x), width):
        similarity = multiply_with_all(q, x[start : start + width])
        if allowed is not None:
            similarity.masked_fill_(~allowed[:, start : start + width], -torch.inf)
        top = similarity.topk(min(size, similarity.shape[-1]), dim=-1)
        tops.append((top.values, top.indices + start if start else top.indices))
    value, row = tops[0] if len(tops) == 1 else (torch.cat(part, -1) for part in zip(*tops, strict=True))
    if len(tops) > 1:
        value, place = value.topk(size, dim=-1)
        row = row.gather(-1, place)
    return value, row, value[:, -1]


def _join_alive(alive: Tensor | None, exclude: Tensor | None) -> Tensor | None:
    """Where somebody stands who is not excluded ``[n]``; None: everywhere."""
    if exclude is None:
        return alive
    return ~exclude if alive is None else alive & ~exclude


def _find_allowed(pool: PoolTensors, queries: QueryTensors, exclude: Tensor | None) -> Tensor:
    allowed = find_allowed_rows(pool, queries)
    return allowed if exclude is None else allowed & ~exclude


def _find_edge(value: Tensor, size: int, *, is_sorted: bool) -> Tensor:
    """The smallest of the ``size`` largest values of each row ``[b, 1]``; rows may be sorted, the largest first."""
    return value[:, size - 1 : size] if is_sorted else value.topk(size, dim=-1).values[:, -1:]


def _take_from_ranked(value: Tensor, turn: Tensor, edge: Tensor, furthest: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which of the nearest rows ``find_nearest`` takes of all rows.

    Args:
        value: The largest similarities of each query ``[b, N]``; −inf where a row may not serve it.
        turn: Which of their rows comes first where several tie ``[b, N]``.
        edge: The smallest of the ``size`` largest of them ``[b, 1]``.
        furthest: The smallest of the similarities, those that were left out among them ``[b]``.
        size: How many to take, at most N.

    Returns:
        Places among the N in the order of their turns ``[b, size]``; whether rows further off have no part in it
        ``[b]``.
    """
    rounding = TIE * torch.finfo(value.dtype).eps
    inside = value > edge + rounding
    near = value >= edge - rounding
    key = torch.where(inside, -1, torch.where(near, turn, torch.iinfo(turn.dtype).max))
    place = key.topk(size, dim=-1, largest=False).indices
    place = place.gather(-1, turn.gather(-1, place).argsort(-1))
    return place, (furthest < edge[:, 0] - rounding) | (furthest == -torch.inf)


def take_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index: [b, L]`` of ``values: [n, d]``, ``[b, L, d]``; faster than indexing on a CPU."""
    return values.index_select(0, index.flatten()).view(*index.shape, values.shape[-1])


def find_nearest(x: Tensor, q: Tensor, allowed: Tensor, size: int, rank: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The rows nearest to each query by inner product, in the order of ids (so ties go to the lowest id).

    Args:
        x: Unit-norm rows ``[n, d]``.
        q: Unit-norm queries ``[b, d]``.
        allowed: Boolean ``[b, n]``.
        size: Rows a query, at most n are given.
        rank: Place of each row in the order of ids ``[n]``; None: the rows stand in it.

    Returns:
        Row indices ``[b, L]`` and, where fewer than L rows are allowed, which of them are valid ``[b, L]``.
    """
    return take_nearest(multiply_with_all(q, x).masked_fill(~allowed, -torch.inf), size, rank)


def take_nearest(similarity: Tensor, size: int, rank: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As ``find_nearest``, by similarities ``[b, n]`` that are at hand; −inf where a row may not serve a query."""
    size = min(size, similarity.shape[-1])
    edge = similarity.topk(size, dim=-1).values[:, -1:]
    rounding = TIE * torch.finfo(similarity.dtype).eps
    inside = similarity > edge + rounding
    tied = ~inside & (similarity >= edge - rounding)
    if rank is None:
        inside |= tied & (tied.cumsum(-1) <= size - inside.sum(-1, keepdim=True))
        index = inside.nonzero()[:, 1].view(-1, size)
    else:
        turn = torch.where(inside, -1, torch.where(tied, rank, len(rank)))
        index = turn.topk(size, dim=-1, largest=False).indices
        index = index.gather(-1, rank[index].argsort(-1))
    return index, similarity.gather(-1, index) > -torch.inf


def find_duplicates(pool: PoolTensors, index: Tensor, threshold: float, inner: Tensor | None = None) -> Tensor:
    """Which rows are never shown together: those of one text, or with a cosine of at least ``threshold``.

    Args:
        pool: The pool.
        index: Rows ``[b, L]``.
        threshold: Cosine of two inputs.
        inner: The rows' inner products ``[b, L, L]`` where they are at hand.

    Returns:
        Boolean ``[b, L, L]``, true on the diagonal.
    """
    near, same = compare_rows(pool, index, threshold, inner)
    return near.logical_or_(same)


def compare_rows(
    pool: PoolTensors, index: Tensor, threshold: float, inner: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which rows have a cosine of at least ``threshold``, and which are of one text; as ``find_duplicates``."""
    if inner is None:
        x = pool.take_inputs(index)
        inner = x @ x.transpose(-1, -2)
    text = pool.text[index]
    return inner >= threshold, text[:, :, None] == text[:, None, :]


def take_nearest_in_turn(similarity: Tensor, size: int, rank: Tensor | None = None) -> list[int]:
    """The nearest row of each query, then the second nearest of each, and so on, each row once.

    Args:
        similarity: Of ``m`` queries with ``n`` rows ``[m, n]``; −inf bars a row from a query.
        size: Most rows, may be 0; fewer come back where the queries share their ``4·size/m`` nearest.
        rank: Place of each row in the order of ids ``[n]``, the lowest of which comes first of rows as near; None: the
            rows stand in it.
    """
    if size < 1:
        return []
    depth = -(-size // len(similarity))
    index, valid = take_nearest(similarity, 4 * depth, rank)
    order = similarity.gather(-1, index).sort(dim=-1, descending=True, stable=True).indices
    turns = index.gather(-1, order).T[valid.gather(-1, order).T].tolist()
    return list(dict.fromkeys(turns))[:size]
