"""What a ridge regression on the whole pool says of queries, and how it joins what their neighbours say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdprompt.objective.regression import KernelRegression
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.theory.regression import RidgeSums

__all__ = ["join_ridge", "predict_by_ridge"]

CHUNK = 128  # queries at a time,
FEW = 8  # of which each has so many rows of its own at most
MANY = 256  # rows of one text; without more than that the regression is solved anew


def join_ridge(
    pool: PoolTensors, queries: QueryTensors, regression: KernelRegression, value: Tensor, prior: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Joins the neighbours' estimates of the queries' values with those of the ridge regression.

    What a query rules out, no regression on the whole pool brings back: labels that are not permitted have no share;
    of embedded outputs the task keeps its place in v̂, and where outputs are restricted the neighbours stand alone.

    Args:
        pool: The pool.
        queries: ``b`` queries.
        regression: Says how to join; nothing is joined where it was fitted to a pool whose outputs entered otherwise.
        value: By the neighbours ``[b, c]``.
        prior: v̄ ``[b, c]``.

    Returns:
        v̂ ``[b, c]``, and r alone where outputs are embedded, in float64 on the CPU ``[b, c]``; else None.
    """
    ridge = regression.ridge_for(pool.output_mode)
    if ridge is None:
        return value, None
    by_ridge = predict_by_ridge(pool, queries, ridge.penalty)
    if ridge.fitted_to == "labels":
        possible = prior > 0 if queries.permitted is None else (prior > 0) & queries.permitted
        return ridge.combine(value, by_ridge.to(value), possible), None
    settled = _mark_settled(pool, queries, value)
    expected = torch.where(settled.cpu(), value.cpu().double(), by_ridge)
    return torch.where(settled, value, ridge.add(value, by_ridge.to(value))), expected


def _mark_settled(pool: PoolTensors, queries: QueryTensors, value: Tensor) -> Tensor:
    """Which entries of embedded outputs ``[b, c]`` the query settles: its task, and with restricted outputs all."""
    settled = torch.zeros_like(value, dtype=torch.bool)
    if len(pool.tasks) > 1:
        settled[:, -len(pool.tasks) :] = (queries.task >= 0).to(value.device)[:, None]
    return settled if queries.permitted is None else settled | ~queries.permitted.all(-1, keepdim=True)


def predict_by_ridge(pool: PoolTensors, queries: QueryTensors, penalty: float) -> Tensor:
    """The ridge regression of the pool's values at each query, rows with its own text left out.

    Args:
        pool: The pool, with outputs.
        queries: ``b`` queries.
        penalty: α of the regression.

    Returns:
        In float64 on the CPU ``[b, c]``; 0 where no row is left.
    """
    q, text = queries.q.cpu().double(), queries.excluded_text.to(pool.text.device)
    found = pool.ridge(penalty).predict(q)
    if not bool((text >= 0).any()):
        return found
    codes = 2 + int(torch.maximum(pool.text.amax(), text.amax()))  # the last: of gaps
    left_out = torch.zeros(codes, dtype=torch.bool, device=pool.text.device)
    left_out[text[text >= 0]] = True
    rows = (left_out[pool.text] & (pool.label >= 0)).nonzero().squeeze(-1)
    texts = dict[int, list[int]]()
    for row, code in zip(rows.tolist(), pool.text[rows].tolist(), strict=True):
        texts.setdefault(code, []).append(row)
    own = {b: texts[code] for b, code in enumerate(text.tolist()) if code in texts}
    few = [b for b, mine in own.items() if len(mine) <= FEW]
    parts = [few[start : start + CHUNK] for start in range(0, len(few), CHUNK)]
    for part in [*parts, *([b] for b in sorted(own.keys() - few))]:
        found[part] = _predict_without(pool, penalty, q[part], [own[b] for b in part])
    return found


def _predict_without(pool: PoolTensors, penalty: float, q: Tensor, own: Sequence[Sequence[int]]) -> Tensor:
    """The ridge regression at queries ``[b, d]`` without those rows that are each one's own, ``[b, c]``."""
    most = max(map(len, own))
    rows = torch.tensor([[*mine, *[mine[0]] * (most - len(mine))] for mine in own], device=pool.x.device)
    x, v = pool.take_inputs(rows).cpu().double(), pool.v[rows].cpu().double()
    if most > MANY:  # one query alone
        others = pool.ridge_sums - RidgeSums.of(x[0], v[0])
        return others.fit(penalty).predict(q) if others.count else torch.zeros_like(v[:, 0])
    there = torch.arange(most) < torch.tensor([[len(mine)] for mine in own])
    return pool.ridge(penalty).predict_without(q, x, v, there)
