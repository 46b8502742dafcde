"""A stored pool whose tensors are made when a selection or a change first asks for them."""

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from kdprompt.pool.embedding import Embedder, embed_outputs
from kdprompt.pool.growing_rows import GrowingRows
from kdprompt.pool.late_value import LateValue
from kdprompt.pool.pool import Pool
from kdprompt.pool.pool_tensors import build_pool_tensors
from kdprompt.pool.pool_vectors import PoolVectors
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.settings import Settings

__all__ = ["build_late"]


def build_late(
    pool: Pool,
    vectors: Tensor,
    embedder: Embedder,
    settings: Settings,
    outputs: Mapping[str, Tensor],
    lexical_share: float = 0.0,
) -> EmbeddedPool:
    """As ``EmbeddedPool.build``, of a pool that fitted these settings when it was stored.

    Where budget, quota or k have to be compared with the whole pool it is built at once, so that what contradicts it
    is an error here and not in the middle of a selection.
    """
    at_least = 1 if settings.k == "auto" else max(1, settings.k)
    if settings.budget is not None or settings.quota is not None or not pool.members.has_distinct(at_least):
        return EmbeddedPool.build(pool, vectors, embedder, settings, outputs, lexical_share)
    known = dict(outputs)
    embed = partial(embed_outputs, known, embedder)
    half = settings.search.half_precision
    tensors = LateValue(partial(build_pool_tensors, pool, vectors, embed, settings.outputs, lexical_share, half=half))
    embeddings = PoolVectors(GrowingRows(vectors))
    return EmbeddedPool(pool, embeddings, embedder, tensors, None, known, lexical_share=lexical_share)
