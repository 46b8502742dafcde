"""Data sets of a benchmark: a pool, dev queries and labelled test queries."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kdprompt.errors import PoolError
from kdprompt.evaluate.benchmark_pool import BenchmarkPool, EmbeddingFunction
from kdprompt.evaluate.store import digest
from kdprompt.pool.files import SUFFIXES
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema

__all__ = ["Case", "Dataset", "check_disjoint"]

MAX_LABELS = 200


@dataclass(frozen=True)
class Case:
    """A query with its true output.

    Attributes:
        query: What selectors see.
        output: The true output.
        task: The true task, whether or not the query states it.
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
        suite: The stress suite that was applied; ``clean`` for none.
    """

    name: str
    pool: Pool
    traffic: tuple[Query, ...]
    dev: tuple[Case, ...]
    test: tuple[Case, ...]
    suite: str = "clean"

    @classmethod
    def from_files(cls, pool: Path, dev: Path, test: Path, *, name: str, schema: Schema | None = None) -> "Dataset":
        """Reads three files of examples: JSON lines, JSON, CSV, TSV or Parquet.

        Raises:
            PoolError: A file cannot be read, an example has no output, or an input stands in two of the files.
        """
        files = {"pool": pool, "dev": dev, "test": test}
        splits = {split: Pool.from_file(path, schema) for split, path in files.items()}
        for split, path in files.items():
            unlabelled = next((d for d in splits[split] if d.output is None), None)
            if unlabelled is not None:
                raise PoolError(
                    f"{path}: the example {unlabelled.input!r:.80} has no output; a benchmark needs every one"
                )
        check_disjoint(splits)
        cases = {split: tuple(_labelled_case(d) for d in splits[split]) for split in ("dev", "test")}
        return cls(name, splits["pool"], tuple(case.query for case in cases["dev"]), cases["dev"], cases["test"])

    from_jsonl = from_files  # its former name

    @classmethod
    def from_prefix(cls, prefix: Path, schema: Schema | None = None) -> "Dataset":
        """Reads ``prefix.pool.jsonl``, ``prefix.dev.jsonl`` and ``prefix.test.jsonl``, or other files of examples.

        Raises:
            PoolError: A file does not exist, or as ``from_files``.
        """
        files = {split: _find_file(prefix, split) for split in ("pool", "dev", "test")}
        return cls.from_files(**files, name=prefix.name, schema=schema)

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The label set: all outputs of the pool, sorted; None where more than 200 or mostly distinct."""
        outputs = sorted({str(d.output) for d in self.pool})
        return tuple(outputs) if len(outputs) <= min(MAX_LABELS, max(2, len(self.pool) // 2)) else None

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the pool, the traffic and the suite: what selections depend on."""
        examples = [[d.id, d.input, d.output, d.task] for d in self.pool]
        queries = [[q.text, q.task, sorted(q.outputs or ())] for q in self.traffic]
        return digest(self.name, self.suite, examples, queries)

    def texts(self) -> list[str]:
        """Every distinct text to embed."""
        inputs = [d.input for d in self.pool]
        queries = [case.query.text for case in (*self.dev, *self.test)]
        return list(dict.fromkeys([*inputs, *queries]))

    def to_benchmark_pool(self, embed: EmbeddingFunction, seed: int = 0) -> BenchmarkPool:
        """The data set as selectors see it: embedded, and without the outputs of queries.

        Args:
            embed: Texts to unit-norm embeddings.
            seed: Seed of every random draw of a selector.
        """
        x = embed([d.input for d in self.pool])
        return BenchmarkPool(
            pool=self.pool,
            x=x,
            traffic=self.traffic,
            traffic_vectors=embed([query.text for query in self.traffic]) if self.traffic else x[:0],
            embed=embed,
            seed=seed,
        )


def _find_file(prefix: Path, split: str) -> Path:
    names = [f"{prefix.name}.{split}{suffix}{packed}" for suffix in SUFFIXES for packed in ("", ".gz")]
    path = next((prefix.with_name(name) for name in names if prefix.with_name(name).is_file()), None)
    if path is None:
        raise PoolError(
            f"no such file: {prefix.with_name(names[0])}; a data set is three files, NAME.pool.jsonl, .dev and .test "
            f"(or {', '.join(list(SUFFIXES)[1:])})"
        )
    return path


def _labelled_case(demonstration: Demonstration) -> Case:
    query = Query(text=demonstration.input)
    return Case(query, str(demonstration.output), demonstration.task)


def check_disjoint(splits: Mapping[str, Pool]) -> None:
    """Checks that no input stands in two splits of a data set.

    Args:
        splits: Splits by name.

    Raises:
        PoolError: An input stands in two splits; scores on such a data set would be no evidence.
    """
    first_split: dict[str, str] = {}
    for split, pool in splits.items():
        for demonstration in pool:
            first = first_split.setdefault(demonstration.input, split)
            if first != split:
                raise PoolError(
                    f"the input {demonstration.input!r:.80} stands in {first} and in {split}; take it out of one of "
                    "them, they must be disjoint"
                )
