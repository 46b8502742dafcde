"""Inputs that are longer than the embedder reads: no duplicates where they differ in what it did not read."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kdprompt.pool.neighbours import compare_rows
from kdprompt.pool.records import Query, normalise_text
from kdprompt.pool.unread import find_unread
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.embedded_pool import EmbeddedPool

__all__ = ["find_repeats", "note_long_inputs"]


def find_repeats(context: SelectionContext, index: Tensor, inner: Tensor | None = None) -> Tensor:
    """Which rows are never shown together, as ``find_duplicates``, with an eye on long inputs.

    Two inputs that both go on where the embedder stopped reading, each in its own way, are different inputs, however
    alike their vectors. Long texts among near duplicates are tokenised once for that; no others.

    Args:
        context: The pool and the settings.
        index: Rows ``[b, L]``.
        inner: Their inner products ``[b, L, L]`` where they are at hand.

    Returns:
        Boolean ``[b, L, L]``, true on the diagonal.
    """
    pool = context.tensors
    near, same = compare_rows(pool, index, context.settings.search.near_duplicate, inner)
    alike, repeats = near > same, near | same
    if not bool(alike.any()):
        return repeats
    rows = index[alike.any(-1)].unique()
    if pool.alive is not None:  # gaps fill shortlists that are short
        rows = rows[pool.alive[rows]]
    ends = [normalise_text(end) for end in _find_ends(context.pool, rows.tolist())]
    numbers = {end: number for number, end in enumerate(dict.fromkeys(end for end in ends if end))}
    if len(numbers) < 2:
        return repeats
    code = torch.full((len(pool.x),), -1, device=index.device)
    code[rows] = torch.tensor([numbers.get(end, -1) for end in ends], device=index.device)
    end = code[index]
    is_cut = end >= 0
    differs = is_cut[:, :, None] & is_cut[:, None, :] & (end[:, :, None] != end[:, None, :])
    return repeats & ~(differs & alike)


def note_long_inputs(context: SelectionContext, query: Query | None, rows: Sequence[int]) -> Iterator[str]:
    """Says which of a prompt's inputs the embedder did not read to their end.

    Args:
        context: The pool.
        query: The query; None in a static prompt.
        rows: The demonstrations' rows of the pool.
    """
    cut = sum(bool(end) for end in _find_ends(context.pool, rows))
    query_is_cut = query is not None and bool(find_unread(context.pool.embedder, [query.text])[0])
    if cut or query_is_cut:
        of = " and ".join([*(["the query"] if query_is_cut else []), *([f"{cut} of the inputs shown"] if cut else [])])
        yield (
            f"longer than the embedding model reads, so compared by their beginnings alone: {of}. Put what tells "
            "inputs apart first, name only the keys that do (Schema(inputs=…)), or take a model that reads more"
        )


def _find_ends(pool: EmbeddedPool, rows: Sequence[int]) -> list[str]:
    """The end of each row's input that the embedder does not read, looked for once; empty where it reads all."""
    new = [row for row in dict.fromkeys(rows) if row not in pool.unread]
    with torch.inference_mode(False):  # a model that is loaded now is kept
        ends = find_unread(pool.embedder, [pool.demonstration(row).input for row in new])
    pool.unread.update(zip(new, ends, strict=True))
    return [pool.unread[row] for row in rows]
