"""``DistillationSelector``: pool, embedder and settings in; selections out. State lives here, mathematics does not."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch

from kdprompt.calibration.calibration import Calibration, calibrate_pool
from kdprompt.concurrent_queries import AskedQuery, answer_together
from kdprompt.deprecation import rename_argument
from kdprompt.errors import QueryError
from kdprompt.explanation import Explanation, explain_query, explain_static
from kdprompt.micro_batching import MicroBatcher
from kdprompt.observation import observe
from kdprompt.pool.embedder_faults import naming
from kdprompt.pool.embedders import AnyEmbedder, as_embedder
from kdprompt.pool.embedding import embed_queries, embed_query_async
from kdprompt.pool.pool import Pool
from kdprompt.pool.query_tensors import check_query
from kdprompt.pool.records import Query, Schema
from kdprompt.pool.vectors import parse_device
from kdprompt.pool.worker_threads import call_in_thread
from kdprompt.readers.reader import Reader
from kdprompt.selection.embedded_pool import AnyQuery, EmbeddedPool, Record
from kdprompt.selection.per_query import select_in_groups
from kdprompt.selection.pool_size import check_size, choose_k
from kdprompt.selection.prefix import Prefix, find_prefix_rows, group_by_prefix, list_ids
from kdprompt.selection.result import Selection
from kdprompt.selection.traffic import Traffic, TrafficRequest, sample_queries
from kdprompt.settings import Settings
from kdprompt.storable_selector import StorableSelector
from kdprompt.tuning.answer_plan import AnswerPlan, plan_answers
from kdprompt.tuning.query_prompts import calibrate_query_prompts
from kdprompt.tuning.static_choice import StaticChoice, choose_static

__all__ = ["DistillationSelector"]

logger = logging.getLogger(__name__)


class DistillationSelector(StorableSelector):
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
        pool: EmbeddedPool,
        settings: Settings,
        traffic: Traffic | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(pool, settings, traffic)
        self._together = MicroBatcher(self._answer)
        self.calibration = calibration or calibrate_pool(pool, traffic, settings)
        self._pool = pool.with_lexical_share(self.calibration.lexical_share, settings)

    @classmethod
    def from_examples(  # noqa: PLR0913 -- what a selector is made of
        cls,
        examples: Iterable[Record] | Pool,
        embeddings: AnyEmbedder | None = None,
        *,
        queries: Iterable[AnyQuery] | None = None,
        schema: Schema | None = None,
        settings: Settings | None = None,
        vectors: Any | None = None,
        device: str | torch.device | None = None,
    ) -> "DistillationSelector":
        """Builds a selector: embeds the pool once and calibrates on it.

        Args:
            examples: The pool, at least one example.
            embeddings: As ``as_embedder`` takes them: an embedder, a function, a model or its name; None: MiniLM.
            queries: A sample of the traffic, without outputs: the query distribution of ``select_static``, and
                where calibration looks for its pseudo-queries.
            schema: Which keys of an example hold what.
            settings: Everything else.
            vectors: Embeddings of the inputs ``[n, d]`` where they are at hand.
            device: Where the pool is kept and searched, ``"cuda"`` say; None: where the vectors are.

        Raises:
            PoolError, MissingKeyError, EmbeddingError: Examples, queries, k or embeddings do not fit together.
            ValueError: This machine does not have the device.
        """
        pool = examples if isinstance(examples, Pool) else Pool.from_records(examples, schema)
        settings = settings or Settings()
        check_size(pool, pool.distinct, settings)
        parsed = pool.queries(() if queries is None else queries)
        embedder = as_embedder(embeddings)
        embedded = EmbeddedPool.embed(pool, embedder, settings, vectors, parse_device(device))
        traffic = Traffic(parsed, embed_queries(embedder, [q.text for q in parsed])) if parsed else None
        return cls(embedded, settings, traffic)

    def __copy__(self) -> "DistillationSelector":
        return type(self)(self._pool, self.settings, self._traffic, self.calibration)

    def calibrate(self, reader: Reader | None = None, *, max_answers: int | None = None) -> Calibration:
        """Calibrates again, on the pool as it now is, and keeps the result.

        Args:
            reader: The model that will read the prompts. Its answers to examples of the pool measure its profile (R9),
                and choose whether J works with it, the reading order and, in pools of one task, a ``prefix`` from its
                static prompt. ``PoolError``: fewer than 96 have an output.
            max_answers: Most answers that it is asked for; ``plan_answers`` says how many and for what. None is no
                limit, some 11,000; some 1,200 suffice without a prefix. ``ValueError``: too few for anything.
        """
        self.plan_answers(max_answers)  # refuses what cannot be
        pool = self._pool.in_order(self.settings)  # changes that come while a reader answers are kept
        found = calibrate_pool(pool, self._traffic, self.settings)
        if reader is not None:
            pool = pool.with_lexical_share(found.lexical_share, self.settings)
            found = calibrate_query_prompts(pool, self._traffic, found, self.settings, reader, max_answers)
        self._change_pool(lambda pool: pool.with_lexical_share(found.lexical_share, self.settings))
        self.calibration = found
        return found

    def plan_answers(self, max_answers: int | None = None) -> AnswerPlan:
        """What ``calibrate`` will ask a reader for, and how often at most; ``ValueError`` as there."""
        return plan_answers(self._pool.tensors, self.settings, max_answers)

    @rename_argument("core", "prefix")
    def select(  # noqa: PLR0913 -- what a query may bring
        self,
        query: AnyQuery,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        k: int | Literal["auto"] | None = None,
        prefix: Prefix | None = None,
        own: Mapping[str, float] | None = None,
        vectors: Any | None = None,
    ) -> Selection:
        """Chooses the demonstrations for one query.

        Args:
            query: Text, or a mapping with the input keys (and the task key), or a ``Query``.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.
            k: Demonstrations, or ``"auto"``; None takes the settings'.
            prefix: A selection (or ids) that stands first, whole and in its order, in every prompt, so that a provider
                can cache what it has read of it: ``select_static(k=4)``, say. The rest of k is chosen given it, and
                stands behind it. Task and outputs do not restrict it. None takes what a reader chose (``calibrate``)
                for queries that permit its outputs and do not stand in it; ``()`` is no prefix.
            own: What the reader answers without the pool's help: a log-probability in nats for each output, zero-shot
                or behind a neutral prompt. J adds to it what the pool knows (R9).
            vectors: The query's embedding ``[1, d]`` where it is at hand; nothing is embedded then.

        Raises:
            QueryError: It is empty, its task, outputs or ``own`` are not the pool's, or the prefix exceeds k or budget.
            MissingKeyError, PoolError: A mapping lacks an input key, or the pool an id of the prefix or k examples.
            EmbeddingError: The query's embedding does not fit.
        """
        pool = self._pool
        parsed = pool.parse_queries([query], task, outputs, own)
        return self._select(pool, parsed, choose_k(self.settings, k, pool.pool, len(pool.tensors)), prefix, vectors)[0]

    async def aselect(  # noqa: PLR0913 -- what select takes
        self,
        query: AnyQuery,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        k: int | Literal["auto"] | None = None,
        prefix: Prefix | None = None,
        own: Mapping[str, float] | None = None,
        vectors: Any | None = None,
    ) -> Selection:
        """As ``select``, in a worker thread; what is asked concurrently is computed in one batched pass.

        Calls are embedded together whatever their k and prefix, and searched together where these are the same.
        """
        pool = self._pool
        parsed = pool.parse_queries([query], task, outputs, own)[0]
        ids = None if prefix is None else list_ids(prefix)
        check_query(pool.tensors, parsed)  # what is wrong with a call is refused here, before it could hold up others
        settings = choose_k(self.settings, k, pool.pool, len(pool.tensors))
        if ids is not None:
            find_prefix_rows(pool, ids, settings)
        with observe(logger, "aselect"), naming(parsed.text):
            if vectors is not None:  # nothing to wait for
                return await call_in_thread(self.select, parsed, k=k, prefix=ids, vectors=vectors)
            return await self._together((parsed, await embed_query_async(self.embedder, parsed.text), (k, ids)))

    def _answer(self, asked: Sequence[AskedQuery]) -> Sequence[Selection]:
        return answer_together(asked, self.embedder, self.select_batch)

    @rename_argument("core", "prefix")
    def select_batch(  # noqa: PLR0913 -- what select takes, and what many queries need
        self,
        queries: Iterable[AnyQuery],
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        k: int | Literal["auto"] | None = None,
        prefix: Prefix | None = None,
        vectors: Any | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[Selection]:
        """Chooses for each of many queries, in batched passes: one selection each, in order, as one by one.

        Args:
            queries: As ``select`` takes them; ``Query(own=…)`` says what the reader knows of each.
            task: For all of them.
            outputs: Likewise.
            k: Likewise.
            prefix: Likewise.
            vectors: Embeddings of the queries ``[m, d]`` where they are at hand.
            progress: Called with the number of queries done since the last call.
        """
        pool = self._pool
        if not (parsed := pool.parse_queries(queries, task, outputs)):
            return []
        return self._select(
            pool, parsed, choose_k(self.settings, k, pool.pool, len(pool.tensors)), prefix, vectors, progress
        )

    def _select(
        self,
        pool: EmbeddedPool,
        queries: Sequence[Query],
        settings: Settings,
        prefix: Prefix | None,
        vectors: Any | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[Selection]:
        with observe(logger, "select", queries=len(queries), examples=len(pool.tensors), k=settings.k):
            encoded = pool.encode(queries, settings, vectors)
            context = self.calibration.query_context(pool, settings)
            groups = group_by_prefix(pool, encoded, settings, prefix, self.calibration.prefix)
            return select_in_groups(context, queries, encoded, groups, progress)

    def select_static(
        self,
        queries: Iterable[AnyQuery] | None = None,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        k: int | None = None,
        reader: Reader | None = None,
        vectors: Any | None = None,
    ) -> Selection:
        """Chooses one prompt for the whole query distribution; its ``query`` is None.

        Args:
            queries: A sample of it; None takes the sample given at construction, else the pool's own inputs.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.
            k: Demonstrations; None takes the settings'.
            reader: The model that will read the prompt, ``LabelReader`` or ``TextReader`` say. In some 9,600
                answers (``settings.static.rounds``) to held-out examples of the pool, no label of a query, it chooses
                among prompts of small J, drawn ones, changes of the best. ``PoolError``: fewer than 96 have an output.
            vectors: Embeddings of ``queries`` ``[m, d]`` where they are at hand.
        """
        return self._choose_static(TrafficRequest(queries, task, outputs, vectors), k, reader).select()

    def _choose_static(
        self, request: TrafficRequest, k: int | Literal["auto"] | None, reader: Reader | None
    ) -> StaticChoice:
        settings = self.settings.for_static_prompt(k)
        pool = self._pool if reader is None else self._pool.in_order(self.settings)
        check_size(pool.pool, len(pool.tensors), settings)
        context = self.calibration.static_context(pool, settings)
        with observe(logger, "select_static", examples=len(pool.tensors), k=settings.k):
            return choose_static(context, sample_queries(pool, self._traffic, settings, request), reader)

    def explain(
        self,
        query: AnyQuery | None = None,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        k: int | Literal["auto"] | None = None,
        prefix: Prefix | None = None,
        reader: Reader | None = None,
    ) -> Explanation:
        """Selects and explains, beside as many nearest neighbours; without a query as ``select_static`` selects.

        A static prompt takes no prefix (``QueryError``).
        """
        if query is None:
            if prefix is not None:
                raise QueryError("a static prompt has no prefix; give the query that the prefix stands in front of")
            return explain_static(self._choose_static(TrafficRequest(None, task, outputs), k, reader), self.calibration)
        pool = self._pool
        parsed = pool.parse_queries([query], task, outputs)[0]
        return explain_query(
            pool, parsed, choose_k(self.settings, k, pool.pool, len(pool.tensors)), self.calibration, prefix
        )
