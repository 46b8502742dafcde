"""Data sets: a pool, dev queries and labelled test queries, with the embeddings of their texts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kdprompt.errors import PoolError
from kdprompt.evaluate.store import digest
from kdprompt.pool.embedding import CallableEmbedder, Embedder
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema
from kdprompt.readers.reader import Reader

__all__ = ["Asked", "Case", "Dataset", "Embed", "EmbeddingCache", "Problem"]

MOST_LABELS = 200


class Embed(Protocol):
    """Texts to ``[n, d]``, with a name that identifies the embedding."""

    name: str

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts to ``[n, d]``."""
        ...


@dataclass(frozen=True)
class Case:
    """A test query with the output that it should get.

    Attributes:
        query: What selectors see.
        output: The true output.
        task: The true task, whether or not the query says it.
    """

    query: Query
    output: str
    task: str | None = None


@dataclass(frozen=True)
class Dataset:
    """What a benchmark runs on.

    Attributes:
        name: Its name.
        pool: Demonstrations to choose from.
        traffic: Dev queries without their outputs: the query distribution.
        dev: The same queries with outputs, for choosing settings.
        test: Labelled queries, for reporting.
        suite: Which stress it was put under; ``clean`` for none.
    """

    name: str
    pool: Pool
    traffic: tuple[Query, ...]
    dev: tuple[Case, ...]
    test: tuple[Case, ...]
    suite: str = "clean"

    @classmethod
    def from_jsonl(cls, pool: Path, dev: Path, test: Path, *, name: str, schema: Schema | None = None) -> "Dataset":
        """Reads three files with one JSON object a line.

        Raises:
            PoolError: A file cannot be read, an example has no output, or an input stands in two of the files.
        """
        parts = {"pool": pool, "dev": dev, "test": test}
        pools = {part: Pool.from_jsonl(path, schema) for part, path in parts.items()}
        for part, path in parts.items():
            missing = next((d for d in pools[part] if d.output is None), None)
            if missing is not None:
                raise PoolError(f"{path}: the example {missing.input!r:.80} has no output; a benchmark needs every one")
        check_disjoint(pools)
        cases = {part: tuple(_case(d) for d in pools[part]) for part in ("dev", "test")}
        return cls(name, pools["pool"], tuple(case.query for case in cases["dev"]), cases["dev"], cases["test"])

    @classmethod
    def from_prefix(cls, prefix: Path, schema: Schema | None = None) -> "Dataset":
        """Reads ``prefix.pool.jsonl``, ``prefix.dev.jsonl`` and ``prefix.test.jsonl``."""
        files = {part: prefix.with_name(f"{prefix.name}.{part}.jsonl") for part in ("pool", "dev", "test")}
        for path in files.values():
            if not path.is_file():
                raise PoolError(f"no such file: {path}; a data set is three files, NAME.pool.jsonl, .dev and .test")
        return cls.from_jsonl(**files, name=prefix.name, schema=schema)

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """All outputs of the pool, sorted; None where they are no label set (more than 200 or mostly distinct)."""
        names = sorted({str(d.output) for d in self.pool})
        return tuple(names) if len(names) <= min(MOST_LABELS, max(2, len(self.pool) // 2)) else None

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the pool, the traffic and the suite: what selections depend on."""
        rows = [[d.id, d.input, d.output, d.task] for d in self.pool]
        queries = [[q.text, q.task, sorted(q.outputs or ())] for q in self.traffic]
        return digest(self.name, self.suite, rows, queries)

    def texts(self) -> list[str]:
        """Every distinct text to embed."""
        parts = ([d.input for d in self.pool], [c.query.text for c in self.dev], [c.query.text for c in self.test])
        return list(dict.fromkeys(text for part in parts for text in part))

    def problem(self, embed: Embed, seed: int = 0) -> "Problem":
        """The data set as selectors see it."""
        return Problem(
            pool=self.pool,
            x=(x := embed([d.input for d in self.pool])),
            traffic=self.traffic,
            traffic_vectors=embed([query.text for query in self.traffic]) if self.traffic else x[:0],
            embed=embed,
            seed=seed,
        )


@dataclass(frozen=True)
class Problem:
    """A pool and a sample of the traffic, as selectors see them: no output of a query.

    Attributes:
        pool: The demonstrations.
        x: Unit-norm embeddings of their inputs ``[n, d]``.
        traffic: Sample of the query distribution.
        traffic_vectors: Its unit-norm embeddings ``[t, d]``.
        embed: Texts to embeddings, for selectors that embed for themselves.
        seed: Of everything that samples.
        reader: Who will answer, for selectors that may ask beforehand; None where nobody is there.
    """

    pool: Pool
    x: Tensor
    traffic: tuple[Query, ...]
    traffic_vectors: Tensor
    embed: Embed
    seed: int = 0
    reader: Reader | None = None

    @cached_property
    def labels(self) -> Tensor:
        """Code of each example's output ``[n]``."""
        names = {name: i for i, name in enumerate(sorted({str(d.output) for d in self.pool}))}
        return torch.tensor([names[str(d.output)] for d in self.pool])

    @cached_property
    def embedder(self) -> Embedder:
        """The embedding as an ``Embedder``."""
        return CallableEmbedder(self.embed)

    def demonstrations(self, rows: Iterable[int]) -> tuple[Demonstration, ...]:
        """The pool's examples at some rows; −1 pads are left out."""
        return tuple(self.pool[row] for row in rows if row >= 0)


@dataclass(frozen=True)
class Asked:
    """Queries to select for: ``queries`` of length m and their unit-norm embeddings ``q: [m, d]``."""

    queries: tuple[Query, ...]
    q: Tensor

    def __iter__(self) -> Iterator["Asked"]:
        """One by one."""
        for i in range(len(self.queries)):
            yield Asked(self.queries[i : i + 1], self.q[i : i + 1])

    def first(self, count: int) -> "Asked":
        """The first few."""
        return Asked(self.queries[:count], self.q[:count])


class EmbeddingCache:
    """Embeds texts once: known ones from memory, lists seen before from files.

    Args:
        embedder: The embedder.
        name: Identifies it in file names and results.
        folder: Where lists of embeddings are kept; None keeps nothing.
    """

    def __init__(self, embedder: Embedder, *, name: str, folder: Path | None = None) -> None:
        self.embedder = embedder
        self.name = name
        self.folder = folder
        self._known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit-norm ``[n, d]``, float32 on the CPU."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._load(new), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def _load(self, texts: list[str]) -> Tensor:
        from safetensors.torch import load_file, save_file

        path = self.folder / f"{digest(self.name, texts)}.safetensors" if self.folder else None
        if path is not None and path.is_file():
            return load_file(path)["vectors"]
        vectors = torch.as_tensor(self.embedder.embed_documents(texts)).float().cpu()
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
        if path is not None and len(texts) > 1:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            save_file({"vectors": vectors.contiguous()}, part)
            part.replace(path)
        return vectors


def _case(demonstration: Demonstration) -> Case:
    query = Query(text=demonstration.input)
    return Case(query, str(demonstration.output), demonstration.task)


def check_disjoint(pools: Mapping[str, Pool]) -> None:
    """Says which input stands in two parts of a data set.

    Raises:
        PoolError: One does; figures from such a data set would be no evidence.
    """
    seen: dict[str, str] = {}
    for part, pool in pools.items():
        for demonstration in pool:
            first = seen.setdefault(demonstration.input, part)
            if first != part:
                raise PoolError(
                    f"the input {demonstration.input!r:.80} stands in {first} and in {part}; take it out of one of "
                    "them, they must be disjoint"
                )
