"""A pool with everything that is derived from it: embeddings, pool_tensors, lengths. Frozen: a change makes a new one.

A selector swaps its embedded_pool whole, so whoever is selecting meanwhile goes on with the one that he began with.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from kdprompt.errors import EmbeddingError, QueryError
from kdprompt.objective.own_knowledge import OwnEstimate, OwnKnowledge
from kdprompt.pool.changed_tensors import change_tensors
from kdprompt.pool.content_ids import make_content_id
from kdprompt.pool.distinct_rows import content_of
from kdprompt.pool.embedding import Embedder, embed_documents, embed_outputs, embed_queries
from kdprompt.pool.growing_rows import GrowingRows
from kdprompt.pool.late_value import LateValue
from kdprompt.pool.pool import Pool
from kdprompt.pool.pool_tensors import PoolTensors, build_pool_tensors
from kdprompt.pool.pool_vectors import PoolChange, PoolVectors
from kdprompt.pool.prompt import count_demonstration_tokens
from kdprompt.pool.query_tensors import QueryTensors, build_query_tensors
from kdprompt.pool.records import Demonstration, Query
from kdprompt.pool.vectors import cast_vectors, check_vectors, halve_rows
from kdprompt.selection.pool_size import check_size
from kdprompt.selection.quota import check_quota
from kdprompt.settings import Settings

__all__ = ["AnyQuery", "EmbeddedPool", "Record"]

AnyQuery = str | Mapping[str, Any] | Query
Record = Mapping[str, Any] | Demonstration


@dataclass(frozen=True)
class EmbeddedPool:
    """A pool, embedded.

    Attributes:
        pool: The demonstrations.
        embeddings: Embeddings of their inputs, without words.
        embedder: The embedder.
        late_tensors: ``tensors``, which those of a stored pool become when they are first looked at.
        token_counts: Tokens of each row of the pool_tensors, or None without a budget.
        outputs: Embeddings of output texts that were needed, by text.
        counted: Tokens by row, of rows that were shown where there is no budget.
        lexical_share: Share of words in the vectors of ``tensors``, in [0, 1].
    """

    pool: Pool
    embeddings: PoolVectors
    embedder: Embedder
    late_tensors: LateValue[PoolTensors]
    token_counts: Tensor | None
    outputs: dict[str, Tensor] = field(repr=False)
    counted: dict[int, int] = field(default_factory=dict, repr=False)
    lexical_share: float = 0.0
    unread: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def embed(
        cls,
        pool: Pool,
        embedder: Embedder,
        settings: Settings,
        vectors: Any | None = None,
        device: torch.device | None = None,
    ) -> "EmbeddedPool":
        """As ``build``; embeds the inputs where their ``vectors: [n, d]`` are not at hand, else copies these.

        ``device`` is where the pool is kept and searched; None: where the vectors are.

        Raises:
            EmbeddingError: They do not fit; names the text.
        """
        texts = pool.members.list_inputs()
        if vectors is None:
            return cls.build(pool, embed_documents(embedder, texts).to(device), embedder, settings)
        given = check_vectors(vectors, texts, "vectors", copy=False)
        embedded = cls.build(pool, given.to(device), embedder, settings)
        if embedded.embeddings.stored.rows is not given:  # copied already
            return embedded
        with torch.inference_mode(False):  # a caller's inference mode must not bind what is kept
            return replace(embedded, embeddings=PoolVectors(GrowingRows(given.clone())))

    @classmethod
    def build(
        cls,
        pool: Pool,
        vectors: Tensor,
        embedder: Embedder,
        settings: Settings,
        outputs: Mapping[str, Tensor] | None = None,
        lexical_share: float = 0.0,
    ) -> "EmbeddedPool":
        """Derives everything.

        Args:
            pool: ``n`` demonstrations.
            vectors: Embeddings of their inputs ``[n, d]``.
            embedder: Embeds output texts, where they are no labels.
            settings: How outputs are seen; budget and quota.
            outputs: Embeddings of output texts that are known.
            lexical_share: Share of words in the vectors that inputs are compared by.

        Raises:
            PoolError: The pool is empty or has fewer distinct examples than k.
            ValueError: The quota contradicts the pool.
            EmbeddingError: The outputs' embeddings do not fit.
        """
        check_size(pool, len(pool), settings)
        known, half = dict(outputs or {}), settings.search.half_precision
        embed = partial(embed_outputs, known, embedder)
        tensors = build_pool_tensors(pool, vectors, embed, settings.outputs, lexical_share, half=half)
        embeddings = PoolVectors.of(pool, vectors, tensors)
        embedded = cls(pool, embeddings, embedder, LateValue.of(tensors), None, known, lexical_share=lexical_share)
        return embedded._check(settings)._with_counts(tensors.rows.ids, settings)

    @property
    def tensors(self) -> PoolTensors:
        """The distinct demonstrations as tensors."""
        return self.late_tensors.value

    @property
    def vectors(self) -> Tensor:
        """Embeddings of the inputs ``[n, d]``, in the order of the pool."""
        return self.embeddings.rows

    def _check(self, settings: Settings) -> "EmbeddedPool":
        """Itself, if size and quota fit."""
        check_size(self.pool, len(self.tensors), settings)
        check_quota(self.tensors, settings)
        return self

    def _with_counts(self, ids: Sequence[str], settings: Settings) -> "EmbeddedPool":
        """With the tokens of the last rows, at which these ids stand, where there is a budget."""
        if settings.budget is None:
            return self
        shown = [self.pool[self.pool.index(ident)] for ident in ids]
        counts = count_demonstration_tokens(shown, settings.template, settings.count_tokens)
        more = torch.tensor(counts, dtype=torch.long, device=self.tensors.x.device)
        return replace(self, token_counts=more if self.token_counts is None else torch.cat([self.token_counts, more]))

    def with_lexical_share(self, share: float, settings: Settings) -> "EmbeddedPool":
        """With another share of words; itself where the share is the same."""
        return self if share == self.lexical_share else self._rebuild(settings, share)

    def in_order(self, settings: Settings) -> "EmbeddedPool":
        """With its rows in the order of ids and without gaps: itself, or built anew."""
        return self if self.tensors.rank is None else self._rebuild(settings, self.lexical_share)

    def _rebuild(self, settings: Settings, lexical_share: float) -> "EmbeddedPool":
        return EmbeddedPool.build(self.pool, self.vectors, self.embedder, settings, self.outputs, lexical_share)

    def with_records(self, records: Iterable[Record], settings: Settings) -> "EmbeddedPool":
        """With more examples behind these; errors as ``build``, and those of their embeddings."""
        pool = self.pool.with_records(records)
        added = pool.members[len(self.pool) :]
        return self._change(pool, PoolChange((), added, self._embed_inputs(added)), settings) if added else self

    def with_changed(self, ident: str, record: Record, settings: Settings) -> "EmbeddedPool":
        """With another example under an id; errors as ``with_records``, and where the id is not in the pool."""
        pool = self.pool.with_changed(ident, record)
        at = pool.index(ident)
        return self._change(pool, PoolChange([at], [pool[at]], self._embed_inputs([pool[at]]), at), settings)

    def without(self, ids: Iterable[str], settings: Settings) -> "EmbeddedPool":
        """Without these ids; errors as ``build``, and a ``PoolError`` where an id is not in the pool."""
        ids = set(ids)
        pool = self.pool.without(ids)
        gone = [self.pool.index(ident) for ident in ids]
        return self._change(pool, PoolChange(gone, (), self.embeddings.at([])), settings)

    def _change(self, pool: Pool, change: PoolChange, settings: Settings) -> "EmbeddedPool":
        """The pool after a change, with the tensors changed by who has gone and who was added."""
        check_size(pool, len(pool), settings)
        before, embeddings = self.tensors, self.embeddings.held_by(self.pool, self.tensors)
        rows, moved = before.rows.change([self.pool[at] for at in change.gone], change.added)
        known, tensors = dict(self.outputs), None
        keeps_vectors = change.keeps_vectors(self.pool, embeddings, before.rows, rows, moved)
        if keeps_vectors and not embeddings.has_many_gaps:
            embed = partial(embed_outputs, known, self.embedder)
            joined = change.take_vectors(moved.joined)
            tensors = change_tensors(before, rows, moved, joined, embed, settings.outputs)
        if tensors is None:
            vectors = change.list_vectors(embeddings)
            return EmbeddedPool.build(pool, vectors, self.embedder, settings, self.outputs, self.lexical_share)
        embeddings, late = change.keep(embeddings, before, tensors), LateValue.of(tensors)
        counted = self.counted.copy()
        after = replace(self, pool=pool, embeddings=embeddings, late_tensors=late, outputs=known, counted=counted)
        return after._check(settings)._with_counts([shown.id for shown in moved.joined], settings)

    def _embed_inputs(self, added: Sequence[Demonstration]) -> Tensor:
        """Inputs' vectors ``[m, d]`` as the pool keeps them."""
        texts = [demonstration.input for demonstration in added]
        fresh = self.check_width(embed_documents(self.embedder, texts))
        if self.tensors.is_half:
            return halve_rows(fresh).to(self.tensors.x.device)
        return cast_vectors(fresh, self.embeddings.stored.rows, texts, "embed_documents of the embedder")

    def check_width(self, vectors: Tensor) -> Tensor:
        """The vectors ``[m, d]``, if they are as wide as the pool's.

        Raises:
            EmbeddingError: They are not.
        """
        if vectors.shape[-1] != (expected := self.embeddings.width):
            raise EmbeddingError(
                f"the embedder must return {expected} dimensions as for the pool, got {vectors.shape[-1]}; use the "
                "embedder that embedded the pool, or build the selector again"
            )
        return vectors

    def parse_queries(
        self,
        queries: Iterable[AnyQuery],
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        own: Mapping[str, float] | None = None,
    ) -> tuple[Query, ...]:
        """Queries as records, with the task, the permitted outputs or the reader's own answer where these are given.

        Raises:
            QueryError, MissingKeyError: A query cannot be used.
        """
        if isinstance(outputs, str):
            raise QueryError(f"outputs must be several permitted outputs, got the text {outputs!r}; wrap it in a list")
        given = {"task": task, "outputs": None if outputs is None else frozenset(outputs), "own": own}
        update = {name: value for name, value in given.items() if value is not None}
        parsed = self.pool.queries(queries)
        try:
            return tuple(Query.model_validate({**dict(query), **update}) for query in parsed) if update else parsed
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise QueryError(
                f"{where} of a query cannot be used: {first['msg']}, got {first['input']!r:.60}"
            ) from error

    def encode(self, queries: Sequence[Query], settings: Settings, vectors: Any | None = None) -> QueryTensors:
        """Queries as tensors, embedded where ``vectors: [m, d]`` are not at hand.

        Raises:
            QueryError: A query names a task or outputs that the pool does not have.
            EmbeddingError: The embeddings do not fit.
        """
        texts = [query.text for query in queries]
        name = "embed_queries of the embedder" if vectors is None else "vectors"
        embedded = embed_queries(self.embedder, texts) if vectors is None else check_vectors(vectors, texts, name)
        fitting = cast_vectors(self.check_width(embedded), self.tensors.v, texts, name)
        excluded = settings.search.exclude_query_text
        return build_query_tensors(self.tensors, queries, fitting, exclude_query_text=excluded)

    def find_row(self, ident: str) -> int:
        """The row of a demonstration, or of the one that it repeats.

        Raises:
            PoolError: The pool has no such id.
        """
        return self.tensors.rows.by_content[content_of(self.pool[self.pool.index(ident)])]

    def estimate_own(self, known: OwnKnowledge | None) -> OwnEstimate | None:
        """A reader's answers to examples as tensors; examples that have left the pool, or changed, no longer speak.

        Of labels that the reader did not choose among nothing is known: they get the mean. None without answers.
        """
        if known is None or self.tensors.output_mode != "labels":
            return None
        kept = [
            place
            for place, (ident, content) in enumerate(zip(known.ids, known.inputs, strict=True))
            if ident in self.pool and make_content_id(self.pool[self.pool.index(ident)].input) == content
        ]
        if not kept:
            return None
        rows = torch.tensor([self.find_row(known.ids[place]) for place in kept], device=self.tensors.x.device)
        answers = torch.tensor([known.log_probs[place] for place in kept], dtype=torch.float64)
        centred = answers - answers.mean(-1, keepdim=True)
        with_mean = torch.cat([centred, torch.zeros_like(centred[:, :1])], -1)
        columns = {output: column for column, output in enumerate(known.outputs)}
        order = [columns.get(output, len(columns)) for _, output in self.tensors.labels]
        return OwnEstimate(self.tensors.take_inputs(rows), with_mean[:, order], known.temperature, known.shrinkage)

    def demonstration(self, row: int) -> Demonstration:
        """The demonstration at a row of the tensors."""
        return self.pool[self.pool.index(self.tensors.rows.ids[row])]

    def count_tokens(self, row: int, settings: Settings) -> int:
        """Tokens of the demonstration at a row of the tensors, counted once."""
        if self.token_counts is not None:
            return int(self.token_counts[row])
        if row not in self.counted:
            shown = [self.demonstration(row)]
            self.counted[row] = count_demonstration_tokens(shown, settings.template, settings.count_tokens)[0]
        return self.counted[row]
