"""``DistillationSelector``: pool, embedder and settings in; selections out. State lives here, mathematics does not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdprompt.calibration.calibration import Calibration, calibrate
from kdprompt.explanation import Explanation, explained
from kdprompt.micro_batching import MicroBatcher
from kdprompt.objective.target import sample_target
from kdprompt.pool.embedding import Embedder, check_vectors, embed_documents, embed_queries, embed_query_async
from kdprompt.pool.neighbours import Neighbours, find_neighbours
from kdprompt.pool.pool import Pool
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.pool.records import Query, Schema
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder
from kdprompt.readers.reader import Reader
from kdprompt.selection.accounting import CPU, Audit, Geometry, audit
from kdprompt.selection.embedded_pool import (
    FROM_POOL,
    AnyQuery,
    EmbeddedPool,
    Record,
    Traffic,
    check_size,
    query_distribution,
)
from kdprompt.selection.problem import query_rows, query_target
from kdprompt.selection.record import record
from kdprompt.selection.result import Selection
from kdprompt.settings import Settings
from kdprompt.storage import Stored, described, from_dict, read, restored_embedder, restored_settings, to_dict, write
from kdprompt.tuning.query_prompts import Core, by_core, calibrate_query_prompts
from kdprompt.tuning.static_prompt import static_rows

__all__ = ["DistillationSelector"]

Recode = Callable[[Any], Any]
CHUNK = 128
EXACT = (CPU, torch.float64)  # where and in what the reported numbers are computed


class DistillationSelector:
    """Chooses which demonstrations go into a prompt, how many, and in which order, and says why.

    Make one with ``from_examples``. Then ``select`` serves one query, ``select_batch`` many in one pass, and
    ``select_static`` one prompt for the query distribution.

    Example:
        >>> from kdprompt import CallableEmbedder, DistillationSelector, Settings
        >>> examples = [{"input": f"{a} + {b}", "output": a + b} for a in range(4) for b in range(4)]
        >>> embedder = CallableEmbedder(lambda texts: [[float(t[0]), float(t[-1]), 1.0] for t in texts])
        >>> selector = DistillationSelector.from_examples(examples, embedder, settings=Settings(k=2))
        >>> len(selector.select("1 + 3"))
        2
    """

    def __init__(
        self,
        corpus: EmbeddedPool,
        settings: Settings,
        traffic: Traffic | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.settings = settings
        self._corpus = corpus
        self._traffic = traffic
        self._together = MicroBatcher(self._answer)
        self.calibration = calibration or self._calibrated()

    @classmethod
    def from_examples(
        cls,
        examples: Iterable[Record] | Pool,
        embeddings: Embedder | None = None,
        *,
        queries: Sequence[AnyQuery] | None = None,
        schema: Schema | None = None,
        settings: Settings | None = None,
        vectors: Tensor | None = None,
    ) -> "DistillationSelector":
        """Builds a selector: embeds the pool once and calibrates on it.

        Args:
            examples: The pool, at least one example.
            embeddings: The embedder; None takes all-MiniLM-L6-v2.
            queries: A sample of the traffic, without outputs: the query distribution of ``select_static``, and
                where calibration looks for its pseudo-queries.
            schema: Which keys of an example hold what.
            settings: Everything else.
            vectors: Embeddings of the inputs ``[n, d]`` where they are at hand.

        Raises:
            PoolError: The pool is empty, smaller than k, or an example cannot be used.
            MissingKeyError: An example or a query lacks a key.
            EmbeddingError: The embeddings do not fit.
        """
        pool = examples if isinstance(examples, Pool) else Pool.from_records(examples, schema)
        settings = settings or Settings()
        check_size(pool, pool.distinct, settings)
        parsed = pool.queries(queries or ())
        embedder = embeddings or SentenceTransformerEmbedder()
        texts = [demonstration.input for demonstration in pool]
        known = embed_documents(embedder, texts) if vectors is None else check_vectors(vectors, texts, "vectors")
        traffic = Traffic(parsed, embed_queries(embedder, [q.text for q in parsed])) if parsed else None
        return cls(EmbeddedPool.of(pool, known, embedder, settings), settings, traffic)

    def __copy__(self) -> "DistillationSelector":
        return type(self)(self._corpus, self.settings, self._traffic, self.calibration)

    # -- the pool -----------------------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        """The demonstrations to choose from."""
        return self._corpus.pool

    @property
    def embedder(self) -> Embedder:
        """Embeds examples and queries; another one must embed alike."""
        return self._corpus.embedder

    @embedder.setter
    def embedder(self, embedder: Embedder) -> None:
        self._corpus = replace(self._corpus, embedder=embedder)

    def add_example(self, example: Record) -> str:
        """Adds one example and returns its id; see ``add_examples``."""
        return self.add_examples([example])[0]

    def add_examples(self, examples: Iterable[Record]) -> list[str]:
        """Adds examples. All or none: on an error the pool stays as it was. The calibration is kept.

        Returns:
            Their ids, in order.

        Raises:
            MissingKeyError, PoolError, EmbeddingError: As ``from_examples``.
        """
        before = self._corpus
        self._corpus = before.with_records(examples, self.settings)
        return [demonstration.id for demonstration in self.pool.demonstrations[len(before.pool) :]]

    def update(self, ident: str, example: Record) -> None:
        """Puts another example in the place of one, under the same id. On an error nothing has changed.

        Raises:
            PoolError: The id is not in the pool.
            MissingKeyError, PoolError, EmbeddingError: As ``from_examples``.
        """
        self._corpus = self._corpus.with_changed(ident, example, self.settings)

    def remove(self, ids: str | Iterable[str]) -> None:
        """Removes examples by id. All or none. The calibration is kept.

        Raises:
            PoolError: An id is not in the pool, or fewer than k examples would be left.
        """
        self._corpus = self._corpus.without({ids} if isinstance(ids, str) else ids, self.settings)

    def calibrate(self, reader: Reader | None = None) -> Calibration:
        """Calibrates again, on the pool as it now is, and keeps the result.

        Args:
            reader: The model that will read the prompts, as ``select_static`` takes it. By some 10,600 answers to
                examples of the pool it chooses the reading order for one query and, in pools of one task, whether
                demonstrations of its static prompt stand first (``core``).
        """
        self.calibration = self._calibrated(reader)
        return self.calibration

    def _calibrated(self, reader: Reader | None = None) -> Calibration:
        traffic = self._traffic
        seen = None if traffic is None else self._corpus.requests(traffic.queries, self.settings, traffic.vectors).q
        found = calibrate(self._corpus.features, self.settings, seen)
        return found if reader is None else calibrate_query_prompts(self._corpus, traffic, found, self.settings, reader)

    # -- storage ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, default: Recode | None = None) -> None:
        """Writes pool, embeddings, settings and calibration to one file, for ``load``; see ``kdprompt.storage``.

        Args:
            path: The file; one that is there is replaced at once or not at all.
            default: Called for a value of an example that JSON has no form for, as ``json.dumps`` does.

        Raises:
            PoolError: JSON cannot keep an example as it is; nothing is written.
        """
        write(self.stored(), path, default)

    @classmethod
    def load(
        cls,
        path: str | Path,
        embeddings: Embedder | None = None,
        *,
        settings: Settings | None = None,
        decode: Recode | None = None,
    ) -> "DistillationSelector":
        """Reads what ``save`` wrote; nothing is embedded or calibrated again.

        Args:
            path: The file.
            embeddings: The embedder, for queries; None makes one of kdprompt's own as it was.
            settings: In place of the stored ones, which cannot hold objects of yours; new pins calibrate again.
            decode: Makes a value again of what ``default`` made of it.

        Raises:
            FileNotFoundError: There is no such file.
            PoolError: It is no stored selector, or its settings could not be stored and none are given.
            EmbeddingError: The embedder was none of kdprompt's and none is given.
        """
        return cls.restored(read(path, decode), embeddings, settings)

    def to_dict(self, default: Recode | None = None) -> dict[str, Any]:
        """All that ``save`` writes, as a dictionary that JSON has."""
        return to_dict(self.stored(), default)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        embeddings: Embedder | None = None,
        *,
        settings: Settings | None = None,
        decode: Recode | None = None,
    ) -> "DistillationSelector":
        """A selector from what ``to_dict`` made; see ``load``."""
        return cls.restored(from_dict(data, decode), embeddings, settings)

    def stored(self) -> Stored:
        """What ``save`` and ``to_dict`` write."""
        own, embedder = self._corpus, described(self.embedder)
        return Stored(own.pool, own.vectors, own.outputs, self._traffic, self.settings, self.calibration, embedder)

    @classmethod
    def restored(
        cls, stored: Stored, embeddings: Embedder | None = None, settings: Settings | None = None
    ) -> "DistillationSelector":
        """A selector from what ``stored`` gave; errors as ``load``."""
        embedder, settings = restored_embedder(stored, embeddings), settings or restored_settings(stored)
        corpus = EmbeddedPool.of(stored.pool, stored.vectors, embedder, settings, stored.outputs)
        return cls(corpus, settings, stored.traffic, stored.calibration_under(settings))

    # -- selection ----------------------------------------------------------------------------------------------

    def select(
        self,
        query: AnyQuery,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        core: Core | None = None,
    ) -> Selection:
        """Chooses the demonstrations for one query.

        Args:
            query: Text, or a mapping with the input keys (and the task key), or a ``Query``.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.
            core: A selection (or ids) that stands first, whole and in its order, in every prompt, so that a provider
                can cache what it has read of it: ``select_static(k=4)``, say. The rest of k is chosen given it, and
                stands behind it. Task and outputs do not restrict it. None takes what a reader chose (``calibrate``)
                for queries that permit its outputs and do not stand in it; ``()`` is no core.

        Raises:
            QueryError: The query is empty, its task or outputs are not the pool's, or the core exceeds k or the budget.
            MissingKeyError: A mapping lacks an input key.
            PoolError: An id of the core is not in the pool.
            EmbeddingError: The query's embedding does not fit.
        """
        return self.select_batch([query], task=task, outputs=outputs, core=core)[0]

    async def aselect(
        self, query: AnyQuery, *, task: str | None = None, outputs: Iterable[str] | None = None
    ) -> Selection:
        """As ``select``, in a worker thread; what is asked concurrently is computed in one batched pass."""
        parsed = self._corpus.parsed([query], task, outputs)[0]
        return await self._together((parsed, await embed_query_async(self.embedder, parsed.text)))

    def _answer(self, asked: Sequence[tuple[Query, Tensor | None]]) -> list[Selection]:
        vectors = [vector for _, vector in asked if vector is not None]
        return self.select_batch([query for query, _ in asked], vectors=torch.stack(vectors) if vectors else None)

    def select_batch(
        self,
        queries: Sequence[AnyQuery],
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        core: Core | None = None,
        vectors: Tensor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[Selection]:
        """Chooses the demonstrations for each of many queries, in batched passes.

        Args:
            queries: As ``select`` takes them.
            task: For all of them.
            outputs: For all of them.
            core: For all of them.
            vectors: Embeddings of the queries ``[m, d]`` where they are at hand.
            progress: Called with the number of queries done since the last call.

        Returns:
            One selection a query, in order; the same as one by one.
        """
        corpus = self._corpus
        parsed = corpus.parsed(queries, task, outputs)
        if not parsed:
            return []
        wanted = corpus.requests(parsed, self.settings, vectors)
        found: dict[int, Selection] = {}
        for rows, shared in by_core(corpus, wanted, self.calibration, self.settings, core):
            for part in rows.split(CHUNK):
                selections = self._select(corpus, [parsed[i] for i in part.tolist()], wanted.part(part), shared)
                found |= zip(part.tolist(), selections, strict=True)
                if progress is not None:
                    progress(len(part))
        return [found[i] for i in range(len(parsed))]

    def select_static(
        self,
        queries: Sequence[AnyQuery] | None = None,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        k: int | None = None,
        reader: Reader | None = None,
    ) -> Selection:
        """Chooses one prompt for the whole query distribution.

        Args:
            queries: A sample of it; None takes the sample given at construction, else the pool's own inputs.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.
            k: Demonstrations; None takes the settings'.
            reader: The model that will read the prompt, ``kdprompt.evaluate.LabelReader`` or ``TextReader`` say. In
                some 9,600 answers (``static_rounds``) to held-out examples of the pool, no label of a query, it chooses
                among prompts of small J, drawn ones, changes of the best. ``PoolError``: fewer than 96 have an output.

        Returns:
            The selection; its ``query`` is None.
        """
        corpus, settings = self._corpus, self.settings.static(k)
        if k is not None:
            check_size(corpus.pool, len(corpus.features), settings)
        wanted, notes = query_distribution(corpus, self._traffic, settings, queries, task=task, outputs=outputs)
        rows, why = static_rows(corpus, wanted, self.calibration, settings, reader)
        exact = sample_target(corpus.features, self._near(corpus, wanted).to(*EXACT), self.calibration.regression)
        sampled = 0 if notes and notes[0] == FROM_POOL else len(wanted)
        geometry = Geometry.of(self.calibration.static, settings, sampled)
        report = audit(corpus.features, exact, rows, geometry, wanted.task[None])
        found = self._record(corpus, None, report[0], settings)
        return found.model_copy(update={"notes": (*notes, *why, *found.notes)})

    def explain(
        self,
        query: AnyQuery | None = None,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        reader: Reader | None = None,
    ) -> Explanation:
        """Selects and explains; without a query, the prompt of ``select_static``, which takes the ``reader``.

        Returns:
            The selection, the settings in force, and for comparison the terms of as many nearest neighbours.
        """
        corpus = self._corpus
        if query is None:
            settings, selection = self.settings.static(), self.select_static(task=task, outputs=outputs, reader=reader)
            wanted, _ = query_distribution(corpus, self._traffic, self.settings, task=task, outputs=outputs)
            exact = sample_target(corpus.features, self._near(corpus, wanted).to(*EXACT), self.calibration.regression)
        else:
            settings, selection = self.calibration.under(self.settings), self.select(query, task=task, outputs=outputs)
            wanted = corpus.requests(corpus.parsed([query], task, outputs), settings)
            exact = query_target(corpus.features, self._near(corpus, wanted).to(*EXACT), self.calibration)
        return explained(selection, corpus, wanted, exact, self.calibration, settings)

    def _near(self, corpus: EmbeddedPool, wanted: QueryTensors) -> Neighbours:
        return find_neighbours(corpus.features, wanted, self.settings.shortlist)

    def _select(
        self, corpus: EmbeddedPool, queries: Sequence[Query], wanted: QueryTensors, core: Tensor
    ) -> list[Selection]:
        features, near, settings = corpus.features, self._near(corpus, wanted), self.calibration.under(self.settings)
        rows = query_rows(features, wanted, near, self.calibration, settings, corpus.lengths, core)
        exact = query_target(features, near.to(*EXACT), self.calibration)
        audits = audit(features, exact, rows, Geometry.of(self.calibration.chosen, settings), wanted.task[:, None])
        return [
            self._record(corpus, query, report, self.settings, core=len(core))
            for query, report in zip(queries, audits, strict=True)
        ]

    def _record(
        self, corpus: EmbeddedPool, query: Query | None, report: Audit, settings: Settings, *, core: int = 0
    ) -> Selection:
        shown = [corpus.at(member.row) for member in report.members]
        tokens = [corpus.tokens(member.row, settings) for member in report.members]
        return record(query, shown, report, tokens, settings.k, core=core)
