"""Queries of concurrent calls: embedded together, and searched together where they ask for the same."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from kdprompt.pool.embedding import Embedder, embed_together
from kdprompt.pool.records import Query
from kdprompt.selection.result import Selection

__all__ = ["AskedQuery", "answer_together"]

AskedQuery = tuple[Query, Tensor | None, tuple[int | str | None, tuple[str, ...] | None]]
"""A query, its embedding where it is at hand, and its k and prefix."""


def answer_together(
    asked: Sequence[AskedQuery], embedder: Embedder, select_batch: Callable[..., list[Selection]]
) -> Sequence[Selection]:
    """A selection for each query; those that could not be embedded are reported as ``embed_together`` says.

    Args:
        asked: The queries.
        embedder: Embeds those that have no vector.
        select_batch: As that of ``DistillationSelector``.
    """
    embedded = embed_together(embedder, [(query.text, vector) for query, vector, _ in asked])
    alike: dict[tuple[Any, Any], list[int]] = {}
    for i, place in enumerate(embedded.places):
        alike.setdefault(asked[place][2], []).append(i)
    selections: dict[int, Selection] = {}
    for (k, prefix), members in alike.items():
        vectors = None if embedded.vectors is None else embedded.vectors[members]
        queries = [asked[embedded.places[i]][0] for i in members]
        batch = select_batch(queries, k=k, prefix=prefix, vectors=vectors)
        selections |= zip(members, batch, strict=True)
    return embedded.report([selections[i] for i in range(len(embedded.places))])
