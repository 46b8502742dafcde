"""A pool as tensors: what the mathematics sees of it.

Texts end here. Rows are the *distinct* demonstrations in the order of their ids, so that neither the order of
the pool nor duplicates in it can change anything further on, and a tie goes to the lowest row.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from kdprompt.errors import QueryError
from kdprompt.pool.pool import Pool, Query, normalised

__all__ = [
    "Features",
    "OutputMode",
    "Requests",
    "allowed_rows",
    "duplicates",
    "featurise",
    "in_turn",
    "requests",
    "shortlist",
]

OutputMode = Literal["labels", "text", "none"]
MAX_LABELS = 512
T = TypeVar("T")


@dataclass(frozen=True)
class Features:
    """The distinct demonstrations of a pool, ``n`` rows.

    Attributes:
        x: Unit-norm input embeddings ``[n, d]``, float32 or float64.
        v: Values ``[n, c]``: one-hot of (task, output), or embedded outputs, or the constant 1.
        label: Code of (task, output) ``[n]``, −1 where there is no output.
        task: Code of the task tag ``[n]``, −1 where there is none.
        text: Code of the normalised input text ``[n]``.
        members: Position in the pool of each row.
        tasks: Names of the task codes.
        labels: (task, output) of the label codes.
        texts: Normalised input text to its code.
        mode: What the values are.
        radius: max‖v‖ (R3's B ≤ max‖v‖·κ_max^½).
        priors: Mean value of each task and, last, of the whole pool ``[tasks + 1, c]``, float64 on the CPU.
    """

    x: Tensor
    v: Tensor
    label: Tensor
    task: Tensor
    text: Tensor
    members: tuple[int, ...]
    tasks: tuple[str, ...]
    labels: tuple[tuple[str | None, str], ...]
    texts: dict[str, int]
    mode: OutputMode
    radius: float
    priors: Tensor

    def prior(self, task: Tensor, like: Tensor) -> Tensor:
        """v̄ for task codes ``[b]`` (−1: of the whole pool), ``[b, c]``; dtype and device of ``like``."""
        return self.priors[task.cpu()].to(like.device, like.dtype)

    def __len__(self) -> int:
        return len(self.members)


def featurise(
    pool: Pool,
    vectors: Tensor,
    embed_outputs: Callable[[Sequence[str]], Tensor],
    outputs: Literal["auto", "labels", "text", "none"] = "auto",
) -> Features:
    """Turns a pool and the embeddings of its inputs into features.

    Args:
        pool: ``N`` demonstrations.
        vectors: Embeddings of their inputs ``[N, d]``.
        embed_outputs: Embeds output texts to ``[·, d′]``; called only for free-text outputs.
        outputs: How outputs are seen. ``auto``: labels where at most 512 distinct ones repeat (twice or more on
            average), text otherwise, none where no example has one.

    Returns:
        One row a distinct (input, output, task), in the order of ids.
    """
    members = _distinct(pool)
    rows = [pool[i] for i in members]
    texts = _codes(normalised(row.input) for row in rows)
    tasks = _codes(sorted({row.task for row in rows if row.task is not None}))
    labels = _codes(sorted({(row.task, row.output) for row in rows if row.output is not None}, key=_by_text))
    mode = _mode(len(labels), sum(row.output is not None for row in rows), outputs)
    device = vectors.device
    dtype = torch.promote_types(vectors.dtype, torch.float32)

    def column(codes: Iterable[int]) -> Tensor:
        return torch.tensor(list(codes), dtype=torch.long, device=device)

    label = column(-1 if row.output is None else labels[row.task, row.output] for row in rows)
    task = column(-1 if row.task is None else tasks[row.task] for row in rows)
    x = torch.nn.functional.normalize(vectors[column(members)].to(dtype), dim=-1, eps=1e-30)
    if mode == "labels":
        v = _one_hot(label, len(labels), dtype)
    elif mode == "text":
        given = [row.output or "" for row in rows]
        v = _text_values(embed_outputs(given).to(device=device, dtype=dtype), given, _one_hot(task, len(tasks), dtype))
    else:
        v = x.new_ones(len(rows), 1)
    codes = column(texts[normalised(row.input)] for row in rows)
    exact = v.cpu().double()
    inside = [task.cpu() == code for code in range(len(tasks))]
    return Features(
        x=x,
        v=v,
        label=label,
        task=task,
        text=codes,
        members=tuple(members),
        tasks=tuple(tasks),
        labels=tuple(labels),
        texts=texts,
        mode=mode,
        radius=float(exact.square().sum(-1).amax().sqrt()),
        priors=torch.stack([*(exact[rows].mean(0) for rows in inside), exact.mean(0)]),
    )


def _distinct(pool: Pool) -> list[int]:
    order = sorted(range(len(pool)), key=lambda i: pool[i].id)
    first: dict[tuple[str, str | None, str | None], int] = {}
    for i in order:
        first.setdefault((pool[i].input, pool[i].output, pool[i].task), i)
    return list(first.values())


def _codes(values: Iterable[T]) -> dict[T, int]:
    return {value: code for code, value in enumerate(dict.fromkeys(values))}


def _by_text(label: tuple[str | None, str]) -> tuple[str, str]:
    return label[0] or "", label[1]


def _mode(distinct: int, given: int, asked: Literal["auto", "labels", "text", "none"]) -> OutputMode:
    if given == 0:
        return "none"
    if asked != "auto":
        return asked
    return "labels" if distinct <= MAX_LABELS and given >= 2 * distinct else "text"


def _one_hot(codes: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    return (codes[:, None] == torch.arange(width, device=codes.device)).to(dtype)


def _text_values(embedded: Tensor, given: Sequence[str], tasks: Tensor) -> Tensor:
    present = torch.tensor([bool(text) for text in given], device=embedded.device)
    outputs = torch.nn.functional.normalize(embedded, dim=-1) * present[:, None]
    if tasks.shape[-1] < 2:
        return outputs
    return torch.cat([outputs, tasks], dim=-1) / 2**0.5


@dataclass(frozen=True)
class Requests:
    """Queries as tensors, ``b`` of them.

    Attributes:
        q: Unit-norm embeddings ``[b, d]``.
        task: Code of the task that the demonstrations must have ``[b]``, −1 for any.
        own: Code of a text that is left out ``[b]``, −1 for none.
        permitted: Label codes that the demonstrations may have, ``[b, labels]``, or None for all.
    """

    q: Tensor
    task: Tensor
    own: Tensor
    permitted: Tensor | None = None

    def part(self, rows: slice | Tensor) -> "Requests":
        """Some of the queries."""
        permitted = None if self.permitted is None else self.permitted[rows]
        return Requests(self.q[rows], self.task[rows], self.own[rows], permitted)

    def __len__(self) -> int:
        return self.q.shape[0]


def requests(features: Features, queries: Sequence[Query], vectors: Tensor, *, leave_out_own: bool) -> Requests:
    """Translates queries and their embeddings ``[b, d]``.

    Args:
        features: The pool.
        queries: ``b`` queries.
        vectors: Their embeddings.
        leave_out_own: Whether a demonstration with the query's own text is left out.

    Raises:
        QueryError: A query names a task that the tagged pool does not have, or permits no output of it.
    """
    x = features.x
    task = [_task_code(features, query) for query in queries]
    own = [features.texts.get(normalised(query.text), -1) if leave_out_own else -1 for query in queries]
    permitted = None
    if any(query.outputs is not None for query in queries):
        permitted = torch.stack([_permitted(features, query) for query in queries])
    return Requests(
        torch.nn.functional.normalize(vectors.to(x.device, x.dtype), dim=-1, eps=1e-30),
        torch.tensor(task, device=x.device),
        torch.tensor(own, device=x.device),
        permitted,
    )


def _task_code(features: Features, query: Query) -> int:
    if query.task is None or not features.tasks:
        return -1
    try:
        return features.tasks.index(query.task)
    except ValueError:
        raise QueryError(
            f"the pool has no task {query.task!r} (query {query.text!r:.60}); it has {list(features.tasks)}. "
            "Leave the task out to choose from all of them."
        ) from None


def _permitted(features: Features, query: Query) -> Tensor:
    names, outputs = [output for _, output in features.labels], query.outputs
    allowed = [outputs is None or output in outputs for output in names]
    if not any(allowed):
        raise QueryError(
            f"none of the permitted outputs {sorted(outputs or ())} of the query {query.text!r:.60} occurs in the "
            f"pool; it has {sorted(set(names))[:20]}"
        )
    return torch.tensor(allowed, device=features.x.device)


def allowed_rows(features: Features, wanted: Requests) -> Tensor:
    """Which rows may serve which query: of its task and permitted outputs, and not the query itself; ``[b, n]``."""
    task, own = wanted.task[:, None], wanted.own[:, None]
    allowed = ((task < 0) | (features.task == task)) & ((own < 0) | (features.text != own))
    if wanted.permitted is not None:
        allowed &= wanted.permitted[:, features.label.clamp_min(0)] & (features.label >= 0)
    return allowed


def shortlist(x: Tensor, q: Tensor, allowed: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The rows nearest to each query by inner product, in ascending row order (so ties go to the lowest id).

    Args:
        x: Unit-norm rows ``[n, d]``.
        q: Unit-norm queries ``[b, d]``.
        allowed: Boolean ``[b, n]``.
        size: Rows a query, at most n are given.

    Returns:
        Row indices ``[b, L]`` and, where fewer than L rows are allowed, which of them are valid ``[b, L]``.
    """
    similarity = (q @ x.T).masked_fill(~allowed, -torch.inf)
    size = min(size, x.shape[0])
    edge = similarity.topk(size, dim=-1).values[:, -1:]
    rounding = 8 * torch.finfo(similarity.dtype).eps
    inside = similarity > edge + rounding
    tied = ~inside & (similarity >= edge - rounding)
    inside |= tied & (tied.cumsum(-1) <= size - inside.sum(-1, keepdim=True))
    index = inside.nonzero()[:, 1].view(-1, size)
    return index, allowed.gather(-1, index)


def duplicates(features: Features, index: Tensor, threshold: float) -> Tensor:
    """Which of the rows ``index: [b, L]`` are never shown together: same text, or a cosine from ``threshold`` up.

    Returns:
        Boolean ``[b, L, L]``, true on the diagonal.
    """
    x, text = features.x[index], features.text[index]
    return (text[:, :, None] == text[:, None, :]) | (x @ x.transpose(-1, -2) >= threshold)


def in_turn(similarity: Tensor, size: int) -> list[int]:
    """The nearest row of each query, then the second nearest of each, and so on, each row once.

    Args:
        similarity: Of ``m`` queries with ``n`` rows ``[m, n]``; −inf bars a row from a query.
        size: Most rows; fewer come back where the queries share their ``4·size/m`` nearest.
    """
    depth = -(-size // len(similarity))
    near = similarity.topk(min(4 * depth, similarity.shape[-1]), dim=-1)
    turns = near.indices.T[near.values.T.isfinite()].tolist()
    return list(dict.fromkeys(turns))[:size]
