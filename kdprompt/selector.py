"""``DistillationSelector``: pool, embedder and settings in; selections out. State lives here, mathematics does not."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprompt.audit import CPU, Audit, Geometry, audit
from kdprompt.calibration import Calibration, calibrate
from kdprompt.choice import candidates, check_quota, choose, nearest_rows, static_candidates
from kdprompt.data import Demonstration, Pool, Query, Schema
from kdprompt.embedding import Embedder, SentenceTransformerEmbedder, checked_vectors, embed_documents, embed_queries
from kdprompt.errors import EmbeddingError, PoolError, QueryError
from kdprompt.explanation import Explanation
from kdprompt.features import Requests, featurise, requests
from kdprompt.prompt import lengths
from kdprompt.selection import Chosen, Selection
from kdprompt.settings import Settings
from kdprompt.target import Neighbours, Target, neighbourhood_target, neighbours, query_target, sample_target

__all__ = ["DistillationSelector"]

AnyQuery = str | Mapping[str, Any] | Query
Record = Mapping[str, Any] | Demonstration
CHUNK = 128
EXACT = (CPU, torch.float64)  # where and in what the reported numbers are computed


@dataclass(frozen=True)
class _Traffic:
    """A sample of the queries that the product gets, with their embeddings ``[m, d]``."""

    queries: tuple[Query, ...]
    vectors: Tensor


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
        pool: Pool,
        vectors: Tensor,
        embedder: Embedder,
        settings: Settings,
        traffic: _Traffic | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.settings = settings
        self.embedder = embedder
        self._traffic = traffic
        self._output_vectors: dict[str, Tensor] = {}
        self._adopt(pool, vectors)
        if traffic is not None:
            self._check_width(traffic.vectors)
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
        _check_size(pool, len({(d.input, d.output, d.task) for d in pool}), settings)
        parsed = pool.queries(queries or ())
        embedder = embeddings or SentenceTransformerEmbedder()
        texts = [demonstration.input for demonstration in pool]
        known = embed_documents(embedder, texts) if vectors is None else checked_vectors(vectors, texts, "vectors")
        traffic = _Traffic(parsed, embed_queries(embedder, [q.text for q in parsed])) if parsed else None
        return cls(pool, known, embedder, settings, traffic)

    # -- the pool -----------------------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        """The demonstrations to choose from."""
        return self._pool

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
        pool = self._pool.with_records(examples)
        added = pool.demonstrations[len(self._pool) :]
        if added:
            fresh = embed_documents(self.embedder, [demonstration.input for demonstration in added])
            self._check_width(fresh)
            self._adopt(pool, torch.cat([self._vectors, fresh.to(self._vectors)]))
        return [demonstration.id for demonstration in added]

    def remove(self, ids: str | Iterable[str]) -> None:
        """Removes examples by id. All or none. The calibration is kept.

        Raises:
            PoolError: An id is not in the pool, or fewer than k examples would be left.
        """
        gone = {ids} if isinstance(ids, str) else set(ids)
        pool = self._pool.without(gone)
        keep = torch.tensor([d.id not in gone for d in self._pool], device=self._vectors.device)
        self._adopt(pool, self._vectors[keep])

    def calibrate(self) -> Calibration:
        """Calibrates again, on the pool as it now is, and keeps the result."""
        self.calibration = self._calibrated()
        return self.calibration

    def _calibrated(self) -> Calibration:
        traffic = None
        if self._traffic is not None:
            traffic = requests(self._features, self._traffic.queries, self._traffic.vectors).q
        return calibrate(self._features, self.settings, traffic)

    def _adopt(self, pool: Pool, vectors: Tensor) -> None:
        """Takes a pool with its embeddings; nothing has changed if it raises."""
        _check_size(pool, len(pool), self.settings)
        features = featurise(pool, vectors, self._embed_outputs, self.settings.outputs)
        _check_size(pool, len(features), self.settings)
        check_quota(features, self.settings)
        tokens: Tensor | None = None
        if self.settings.budget is not None:
            counts = lengths([pool[i] for i in features.members], self.settings.template, self.settings.count_tokens)
            tokens = torch.tensor(counts, device=features.x.device)
        self._pool, self._vectors, self._features, self._lengths = pool, vectors, features, tokens

    def _embed_outputs(self, texts: Sequence[str]) -> Tensor:
        known = self._output_vectors
        new = sorted({text for text in texts if text and text not in known})
        if new:
            known.update(zip(new, embed_documents(self.embedder, new), strict=True))
        blank = torch.zeros_like(next(iter(known.values()))) if known else torch.zeros(1)
        return torch.stack([known[text] if text else blank for text in texts])

    def _check_width(self, vectors: Tensor) -> None:
        expected = self._vectors.shape[-1]
        if vectors.shape[-1] != expected:
            raise EmbeddingError(
                f"the embedder must return {expected} dimensions as for the pool, got {vectors.shape[-1]}; use the "
                "embedder that embedded the pool, or build the selector again"
            )

    # -- selection ----------------------------------------------------------------------------------------------

    def select(self, query: AnyQuery, *, task: str | None = None, outputs: Iterable[str] | None = None) -> Selection:
        """Chooses the demonstrations for one query.

        Args:
            query: Text, or a mapping with the input keys (and the task key), or a ``Query``.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.

        Raises:
            QueryError: The query is empty, or its task or outputs are not the pool's.
            MissingKeyError: A mapping lacks an input key.
            EmbeddingError: The query's embedding does not fit.
        """
        return self.select_batch([query], task=task, outputs=outputs)[0]

    def select_batch(
        self,
        queries: Sequence[AnyQuery],
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        vectors: Tensor | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[Selection]:
        """Chooses the demonstrations for each of many queries, in batched passes.

        Args:
            queries: As ``select`` takes them.
            task: For all of them.
            outputs: For all of them.
            vectors: Embeddings of the queries ``[m, d]`` where they are at hand.
            progress: Called with the number of queries done since the last call.

        Returns:
            One selection a query, in order; the same as one by one.
        """
        parsed = self._parsed(queries, task, outputs)
        if not parsed:
            return []
        wanted = requests(self._features, parsed, self._query_vectors(parsed, vectors))
        selections: list[Selection] = []
        for start in range(0, len(parsed), CHUNK):
            part = slice(start, start + CHUNK)
            selections += self._select(parsed[part], wanted.part(part))
            if progress is not None:
                progress(len(parsed[part]))
        return selections

    def select_static(
        self,
        queries: Sequence[AnyQuery] | None = None,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
    ) -> Selection:
        """Chooses one prompt for the whole query distribution.

        Args:
            queries: A sample of it; None takes the sample given at construction, else the pool's own inputs.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.

        Returns:
            The selection; its ``query`` is None.
        """
        wanted, notes = self._distribution(queries, task, outputs)
        own = Requests(wanted.q, wanted.task, torch.full_like(wanted.own, -1), wanted.permitted)
        options = static_candidates(self._features, own, self.settings.static_shortlist)
        near, regression = self._near(wanted), self.calibration.regression
        target = sample_target(self._features, near, regression)
        rows = choose(self._features, options, target, self.calibration, self.settings, self._lengths)
        exact = sample_target(self._features, near.to(*EXACT), regression)
        sampled = 0 if notes and notes[0] == FROM_POOL else len(wanted)
        report = audit(self._features, exact, rows, self._geometry(sampled), wanted.task[None])
        return self._record(None, report[0], notes)

    def explain(
        self, query: AnyQuery | None = None, *, task: str | None = None, outputs: Iterable[str] | None = None
    ) -> Explanation:
        """Selects and explains; without a query, the static prompt.

        Returns:
            The selection, the settings in force, and for comparison the terms of as many nearest neighbours.
        """
        if query is None:
            selection = self.select_static(task=task, outputs=outputs)
            wanted, _ = self._distribution(None, task, outputs)
            exact = sample_target(self._features, self._near(wanted).to(*EXACT), self.calibration.regression)
        else:
            selection = self.select(query, task=task, outputs=outputs)
            parsed = self._parsed([query], task, outputs)
            wanted = requests(self._features, parsed, self._query_vectors(parsed, None))
            exact = self._target(self._near(wanted).to(*EXACT))
        rows = nearest_rows(self._features, wanted, max(len(selection), 1))
        rows = rows if len(selection) else torch.full_like(rows, -1)
        nearest = audit(self._features, exact, rows, self._geometry(), wanted.task[None])[0]
        ids = tuple(self._pool[self._features.members[member.row]].id for member in nearest.members)
        return Explanation(selection, nearest.after, ids, self.calibration)

    def _parsed(
        self, queries: Sequence[AnyQuery], task: str | None, outputs: Iterable[str] | None
    ) -> tuple[Query, ...]:
        _check_size(self._pool, len(self._features), self.settings)
        if isinstance(outputs, str):
            raise QueryError(f"outputs must be several permitted outputs, got the text {outputs!r}; wrap it in a list")
        update = {
            name: value
            for name, value in (("task", task), ("outputs", None if outputs is None else frozenset(outputs)))
            if value is not None
        }
        return tuple(query.model_copy(update=update) for query in self._pool.queries(queries))

    def _query_vectors(self, queries: Sequence[Query], vectors: Tensor | None) -> Tensor:
        texts = [query.text for query in queries]
        found = embed_queries(self.embedder, texts) if vectors is None else checked_vectors(vectors, texts, "vectors")
        self._check_width(found)
        return found

    def _near(self, wanted: Requests) -> Neighbours:
        return neighbours(self._features, wanted, self.settings.shortlist)

    def _target(self, near: Neighbours) -> Target:
        regression, share = self.calibration.regression, self.calibration.chosen.neighbourhood
        if share == 0:
            return query_target(self._features, near, regression)
        return neighbourhood_target(self._features, near, regression, share)

    def _select(self, queries: Sequence[Query], wanted: Requests) -> list[Selection]:
        near = self._near(wanted)
        options = candidates(self._features, wanted, near, self.settings.quota)
        rows = choose(self._features, options, self._target(near), self.calibration, self.settings, self._lengths)
        audits = audit(self._features, self._target(near.to(*EXACT)), rows, self._geometry(), wanted.task[:, None])
        return [self._record(query, report, []) for query, report in zip(queries, audits, strict=True)]

    def _distribution(
        self, queries: Sequence[AnyQuery] | None, task: str | None, outputs: Iterable[str] | None
    ) -> tuple[Requests, list[str]]:
        """The queries of a static prompt and what to say of them."""
        given, vectors, notes = queries, None, []
        if given is None and self._traffic is not None:
            given, vectors = self._traffic.queries, self._traffic.vectors
        if given is None:
            rows = [d for d in self._pool if task is None or d.task == task]
            index = torch.tensor([self._pool.index(d.id) for d in rows], dtype=torch.long)
            given = [Query(text=d.input, task=d.task) for d in rows]
            vectors = self._vectors[index.to(self._vectors.device)]
            notes.append(FROM_POOL)
        parsed = self._parsed(given, task, outputs)
        if not parsed:
            raise QueryError("queries must hold at least one query; leave them out to take the pool's own inputs")
        wanted = requests(self._features, parsed, self._query_vectors(parsed, vectors))
        most = self.settings.static_queries
        if len(parsed) > most:
            generator = torch.Generator().manual_seed(self.settings.seed)
            keep = torch.randperm(len(parsed), generator=generator)[:most].sort().values.to(wanted.q.device)
            wanted = wanted.part(keep)
            notes.append(f"a sample of {most} of the {len(parsed)} queries stands for all (static_queries)")
        return wanted, notes

    def _geometry(self, sampled: int = 0) -> Geometry:
        trial = self.calibration.chosen
        return Geometry(trial.kernel, trial.share, trial.penalties, self.settings.order, self.settings.delta, sampled)

    def _record(self, query: Query | None, report: Audit, notes: Sequence[str]) -> Selection:
        shown = [self._pool[self._features.members[member.row]] for member in report.members]
        chosen = tuple(
            Chosen(demonstration=demonstration, **{name: getattr(member, name) for name in MEMBER_FIELDS})
            for demonstration, member in zip(shown, report.members, strict=True)
        )
        return Selection(
            query=query,
            chosen=chosen,
            before=report.before,
            after=report.after,
            penalties=self.calibration.chosen.penalties,
            cross_task=report.cross_task,
            label_conflict=report.label_conflict,
            support=report.support,
            estimate=report.estimate,
            bounds=report.bounds,
            tokens=sum(lengths(shown, self.settings.template, self.settings.count_tokens)),
            notes=(*notes, *self._shortfall(len(shown)), *_unsupported(report)),
        )

    def _shortfall(self, got: int) -> Iterator[str]:
        wanted = self.settings.k
        if wanted != "auto" and got < wanted:
            yield (
                f"{got} of {wanted} demonstrations: no more fit the budget, the quotas, the task and the permitted "
                "outputs without showing a duplicate or the query itself"
            )


MEMBER_FIELDS = ("weight", "attention", "gain", "marginal", "interference", "other_task")
FROM_POOL = "no queries were given: the pool's own inputs stand for the query distribution"
UNSUPPORTED = 1e-3


def _unsupported(report: Audit) -> Iterator[str]:
    if report.support < UNSUPPORTED:
        yield "nothing in the pool supports an estimate of the output: no interference is charged"


def _check_size(pool: Pool, distinct: int, settings: Settings) -> None:
    if not len(pool):
        raise PoolError("the pool is empty; give it at least one example")
    if settings.k != "auto" and settings.k > distinct:
        raise PoolError(
            f"k must be at most the number of distinct examples in the pool ({distinct}), got {settings.k}; add "
            "examples, lower k, or use k='auto'"
        )
