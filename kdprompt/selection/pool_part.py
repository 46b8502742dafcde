"""Some rows of a pool, which travel: a shard of it, or the rows that a prompt may come from.

A part has the codes, priors and sums of the whole pool. So J over the rows of a part is J over the same rows of the
pool.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from kdprompt.pool.distinct_rows import DistinctRows, content_of
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.growing_rows import GrowingRows
from kdprompt.pool.late_value import LateValue
from kdprompt.pool.lexicon import Lexicon
from kdprompt.pool.pool import Pool
from kdprompt.pool.pool_tensors import Label, OutputMode, PoolTensors
from kdprompt.pool.pool_vectors import PoolVectors
from kdprompt.pool.records import Demonstration, Schema, normalise_text
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.theory.regression import RidgeSums

__all__ = ["PoolFrame", "PoolRows"]


@dataclass(frozen=True)
class PoolRows:
    """Some rows of a pool's tensors, ``m`` of them.

    Attributes:
        demonstrations: The demonstrations that stand there.
        vectors: Embeddings of their inputs, without words ``[m, d]``.
        columns: ``x``, ``v``, ``label`` and ``task`` as in ``PoolTensors``.
        token_counts: Tokens of each ``[m]``; None without a budget.
    """

    demonstrations: tuple[Demonstration, ...]
    vectors: Tensor
    columns: dict[str, Tensor]
    token_counts: Tensor | None

    @classmethod
    def take(cls, pool: EmbeddedPool, rows: Sequence[int]) -> "PoolRows":
        """The rows of a pool, at which somebody must stand."""
        index = torch.tensor(rows, dtype=torch.long, device=pool.tensors.x.device)
        shown = tuple(pool.demonstration(row) for row in rows)
        return cls(
            shown,
            pool.embeddings.at([pool.pool.index(one.id) for one in shown]),
            {name: getattr(pool.tensors, name)[index] for name in ("x", "v", "label", "task")},
            None if pool.token_counts is None else pool.token_counts[index],
        )

    @classmethod
    def join(cls, parts: Iterable["PoolRows"]) -> "PoolRows":
        """All rows of several parts, each once, in the order of their ids."""
        parts = list(parts)
        shown = list(chain.from_iterable(part.demonstrations for part in parts))
        place = {one.id: at for at, one in enumerate(shown)}
        order = torch.tensor([place[ident] for ident in sorted(place)], dtype=torch.long)
        counts = [part.token_counts for part in parts if part.token_counts is not None]
        return cls(
            tuple(shown[at] for at in order.tolist()),
            _pick([part.vectors for part in parts], order),
            {name: _pick([part.columns[name] for part in parts], order) for name in parts[0].columns},
            _pick(counts, order) if counts else None,
        )

    def __len__(self) -> int:
        return len(self.demonstrations)


def _pick(columns: Sequence[Tensor], order: Tensor) -> Tensor:
    joined = torch.cat(list(columns))
    return joined[order.to(joined.device)]


@dataclass(frozen=True)
class PoolFrame:
    """What all rows of a pool share.

    Attributes:
        schema: Which keys of an example hold what.
        embedder: Embeds queries.
        outputs: Embeddings of output texts that were needed, by text.
        tasks, labels, output_mode, value_radius, priors, lexicon: As in ``PoolTensors``.
        ridge_sums: What ridge regressions of the values on the inputs share; None where there are no outputs.
        lexical_share: Share of words in the inputs' vectors, in [0, 1].
    """

    schema: Schema
    embedder: Embedder
    outputs: dict[str, Tensor]
    tasks: tuple[str, ...]
    labels: tuple[Label, ...]
    output_mode: OutputMode
    value_radius: float
    priors: Tensor
    lexicon: Lexicon | None
    ridge_sums: RidgeSums | None
    lexical_share: float

    @classmethod
    def of(cls, pool: EmbeddedPool) -> "PoolFrame":
        """That of a pool."""
        tensors = pool.tensors
        return cls(
            schema=pool.pool.schema,
            embedder=pool.embedder,
            outputs=pool.outputs,
            tasks=tensors.tasks,
            labels=tensors.labels,
            output_mode=tensors.output_mode,
            value_radius=tensors.value_radius,
            priors=tensors.priors,
            lexicon=tensors.lexicon,
            ridge_sums=tensors.ridge_sums if tensors.output_mode != "none" else None,
            lexical_share=pool.lexical_share,
        )

    def embed(self, rows: PoolRows) -> EmbeddedPool:
        """A pool of these rows alone; they stand in the order of their ids."""
        ids = [shown.id for shown in rows.demonstrations]
        by_content = {content_of(shown): row for row, shown in enumerate(rows.demonstrations)}
        codes: dict[str, int] = {}
        text = [codes.setdefault(normalise_text(shown.input), len(codes)) for shown in rows.demonstrations]
        tensors = PoolTensors(
            x=rows.columns["x"],
            v=rows.columns["v"],
            label=rows.columns["label"],
            task=rows.columns["task"],
            text=torch.tensor(text, dtype=torch.long, device=rows.vectors.device),
            rows=DistinctRows(ids, by_content, {}, ids),
            tasks=self.tasks,
            labels=self.labels,
            text_codes=codes,
            output_mode=self.output_mode,
            value_radius=self.value_radius,
            priors=self.priors,
            lexicon=self.lexicon,
        )
        if self.ridge_sums is not None:
            vars(tensors)["ridge_sums"] = self.ridge_sums
        return EmbeddedPool(
            pool=Pool(rows.demonstrations, self.schema),
            embeddings=PoolVectors(GrowingRows(rows.vectors)),
            embedder=self.embedder,
            late_tensors=LateValue.of(tensors),
            token_counts=rows.token_counts,
            outputs=dict(self.outputs),
            lexical_share=self.lexical_share,
        )
