"""Records that users bring: demonstrations, pools of them, and queries. Parsing and validation happen here, once.

What comes in is whatever people have (dicts with any keys, strings, files); what goes on are frozen
records with rendered texts and stable ids. Every error names the example and the key, or the line.
"""

from bisect import bisect_left
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

from kdprompt.errors import PoolError, QueryError
from kdprompt.pool.content_ids import make_content_id
from kdprompt.pool.distinct_rows import DistinctRows
from kdprompt.pool.example_forms import list_examples, to_mapping
from kdprompt.pool.files import read_records
from kdprompt.pool.members import Members
from kdprompt.pool.nesting import check_nesting
from kdprompt.pool.paused_collection import paused_collection
from kdprompt.pool.plain_records import read_plain_records
from kdprompt.pool.records import Demonstration, Query, Schema, check_demonstrations, copy_fields, render_field
from kdprompt.pool.text_column import Numbers
from kdprompt.pool.value_text import check_text, is_missing

__all__ = ["Pool"]


class Pool:
    """Demonstrations with unique ids, in the order in which they came. Immutable; ``with_…`` makes a new one.

    Example:
        >>> pool = Pool.from_records([{"input": "2 + 2", "output": 4}, {"input": "3 + 4", "output": 7}])
        >>> len(pool), pool[0].output
        (2, '4')
    """

    def __init__(self, demonstrations: Iterable[Demonstration], schema: Schema | None = None) -> None:
        self.schema = schema or Schema()
        self.members = Members(demonstrations)
        check_demonstrations(self.members, lambda i: f"example {i}")
        self._numbers: Sequence[int] = range(len(self.members))  # ascending from 0; they stay where places move up
        self._number_of: dict[str, int] = {}
        self._enter(self.members.list_ids(), self._numbers)

    @classmethod
    def of_members(cls, members: Members, schema: Schema) -> "Pool":
        """A pool of demonstrations that were checked, and whose ids are unique; unread ones stay unread."""
        pool = cls.__new__(cls)
        pool.schema, pool.members, pool._numbers = schema, members, range(len(members))
        return pool

    @cached_property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """All of them."""
        return tuple(self.members)

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return dict(zip(self.members.list_ids(), self._numbers, strict=True))

    def _enter(self, added: Iterable[str], numbers: Sequence[int]) -> None:
        """Notes the numbers of ids, the last of the pool."""
        for number, ident in zip(numbers, added, strict=True):
            first = self._number_of.setdefault(ident, number)
            if first != number:
                place, earlier = (bisect_left(self._numbers, which) for which in (number, first))
                raise PoolError(
                    f"example {place} has the id {ident!r} that example {earlier} has already; ids must be unique. "
                    "Change one, name another id key in the schema, or none where it means something else "
                    "(Schema(id=None); id_key=None in adapters): ids are made from the content then."
                )

    def _copy(self, members: Members, numbers: Sequence[int]) -> "Pool":
        """A pool of the same schema, with the numbers of this one's ids, for changes that cost little."""
        copy = Pool.of_members(members, self.schema)
        copy._numbers, copy._number_of = numbers, self._number_of.copy()
        return copy

    @classmethod
    def from_records(cls, records: Iterable[Any], schema: Schema | None = None) -> "Pool":
        """Makes a pool of examples.

        Args:
            records: Mappings, demonstrations, dataclasses, pydantic models, named tuples or chats in OpenAI's form: a
                list, a generator, a pandas or polars frame, a ``datasets.Dataset``.
            schema: Which keys hold what; defaults to ``input``, ``output``, ``task``, ``id``.

        Returns:
            The pool; may be empty.

        Raises:
            MissingKeyError: An example lacks an input or an output key.
            PoolError: An example is no mapping, has an empty input, or an id twice.
        """
        return cls((), schema).with_records(records)

    @classmethod
    def from_file(cls, path: str | Path, schema: Schema | None = None, *, content: bytes | None = None) -> "Pool":
        """Reads a pool from JSON lines, JSON, CSV, TSV or Parquet, as ``read_records`` says.

        Args:
            path: The file; its suffix says what it is, and ``~`` is the home folder.
            schema: Which keys or columns hold what.
            content: What the file holds, where it was read already: a pipe gives it once.

        Raises:
            MissingKeyError, PoolError: As ``from_records``; errors name the file and the line.
            FileNotFoundError, ImportError: There is no such file, or what reads it is not installed.
        """
        lines = read_records(path, content=content)
        records = [record for _, record in lines]
        return cls((), schema)._extended(records, lambda i: f"example {i} ({path}, {lines[i][0]})")

    from_jsonl = from_file  # its former name

    def with_records(self, records: Iterable[Mapping[str, Any] | Demonstration]) -> "Pool":
        """A pool with more examples behind these; content ids of repeated examples end in ``-2``, ``-3`` and so on."""
        return self._extended(list_examples(records), lambda i: f"example {i}")

    def _extended(
        self, records: Sequence[Mapping[str, Any] | Demonstration], name_example: Callable[[int], str]
    ) -> "Pool":
        with paused_collection():
            added = read_plain_records(records, self.schema, self._number_of, _fresh)
            if added is None:
                added, taken = [], set[str]()
                for i, record in enumerate(records):
                    added.append(self._parse(record, name_example(i), (taken, self._number_of)))
                    taken.add(added[-1].id)
        first = self._numbers[-1] + 1 if self._numbers else 0
        numbers = range(first, first + len(added))
        known = range(numbers.stop) if isinstance(self._numbers, range) else [*self._numbers, *numbers]
        pool = self._copy(self.members.with_added(added), known)
        pool._enter([shown.id for shown in added], numbers)
        return pool

    def with_changed(self, ident: str, record: Mapping[str, Any] | Demonstration) -> "Pool":
        """A pool with another example in the place of an id, under the same id.

        Raises:
            PoolError: The id is not in the pool.
            MissingKeyError, PoolError: As ``from_records``.
        """
        at = self.index(ident)
        changed = self.parse(record, f"the example for {ident!r}").model_copy(update={"id": ident})
        return self._copy(self.members.with_changed(at, changed), self._numbers)

    def without(self, ids: Iterable[str]) -> "Pool":
        """A pool without these ids.

        Raises:
            PoolError: An id is not in the pool.
        """
        gone = set(ids)
        unknown = sorted((ident for ident in gone if ident not in self._number_of), key=repr)
        if unknown:
            raise PoolError(f"the pool has no example with the id {unknown[0]!r}; nothing was removed")
        stays = bytearray(b"\1") * len(self)
        for ident in gone:
            stays[self.index(ident)] = 0
        pool = self._copy(self.members.kept(stays), list(compress(self._numbers, stays)))
        for ident in gone:
            del pool._number_of[ident]
        return pool

    def parse(self, record: Mapping[str, Any] | Demonstration, where: str = "the example") -> Demonstration:
        """One example as a demonstration by this pool's schema; the pool stays as it is.

        Args:
            record: The example.
            where: Names it in errors.

        Raises:
            MissingKeyError: It lacks an input or an output key.
            PoolError: It is no mapping, or its input is empty.
        """
        return self._parse(record, where, ((), ()))

    def _parse(
        self, record: Mapping[str, Any] | Demonstration, where: str, taken: tuple[Container[str], Container[str]]
    ) -> Demonstration:
        if type(record) is not dict and isinstance(record, Demonstration):
            check_nesting(record.fields, where, PoolError)
            check_demonstrations([record], lambda i: where)
            return record.model_copy(update={"fields": copy_fields(record.fields)})
        record = self._to_mapping(record, where, PoolError)
        if type(record) is not dict and not isinstance(record, Mapping):
            raise PoolError(f"{where} must be a mapping, got {type(record).__name__}: {record!r:.80}")
        for key in record:
            if not isinstance(key, str):
                raise PoolError(f"{where} has the key {key!r} ({type(key).__name__}); keys must be text: rename it")
        text = self.schema.input_text(record, where)
        if not text.strip():
            raise PoolError(f"{where} has an empty input ({list(self.schema.inputs)}); give it text or leave it out")
        output = self.schema.output_text(record, where)
        tag = self._task_of(record, where)
        given_id = record.get(self.schema.id) if self.schema.id else None
        rendered_id = "" if is_missing(given_id) else render_field(record, self.schema.id or "", where)
        check_text("\n".join((text, output or "", tag or "", rendered_id)), where, PoolError)
        ident = _fresh(make_content_id(text, output, tag), taken) if is_missing(given_id) else rendered_id
        return Demonstration.of_texts(ident, text, output, tag, copy_fields(record))

    def query(self, query: "str | Mapping[str, Any] | Query", where: str = "the query") -> Query:
        """A query rendered by the rules that rendered the pool's inputs.

        Args:
            query: Text, a mapping with the input keys (and the task key), or a ``Query``.
            where: Names the query in errors.

        Raises:
            QueryError: The query is empty, of another type, or of a task that the pool does not have.
            MissingKeyError: A mapping lacks an input key.
        """
        if isinstance(query, str):
            query = Query(text=query)
        elif isinstance(query := self._to_mapping(query, where, QueryError), Mapping):
            query = Query(text=self.schema.input_text(query, where), task=self._task_of(query, where))
        elif not isinstance(query, Query):
            raise QueryError(f"{where} must be text, a mapping or a Query, got {type(query).__name__}: {query!r:.80}")
        if not query.text.strip():
            raise QueryError(f"{where} is empty; give it text")
        check_text(f"{query.text}\n{query.task or ''}", where, QueryError)
        return query

    def _to_mapping(self, example: Any, where: str, error: type[Exception]) -> Any:
        if type(example) is not dict and isinstance(example, Query):
            return example
        check_nesting(example, where, error)
        mapping = to_mapping(example, (self.schema.inputs or ("input",))[0], (self.schema.outputs or ("output",))[0])
        if mapping is not example:  # of another type: a dataclass say, whose fields were not looked at
            check_nesting(mapping, where, error)
        return mapping

    def _task_of(self, record: Mapping[str, Any], where: str) -> str | None:
        key = self.schema.task
        return None if key is None or is_missing(record.get(key)) else render_field(record, key, where)

    def queries(
        self, queries: "Iterable[str | Mapping[str, Any] | Query]", names: Sequence[str] | None = None
    ) -> tuple[Query, ...]:
        """Several queries by the rules of ``query``.

        Args:
            queries: Texts, mappings or ``Query`` records: a list, an array, a column of a frame, a generator.
            names: What names each of them in errors; None names it by its position.
        """
        if isinstance(queries, str | Mapping | Query):
            raise QueryError(f"queries must be several queries, got one {type(queries).__name__}; wrap it in a list")
        queries = list(queries)
        if names is None:
            names = ["the query"] if len(queries) == 1 else [f"query {i}" for i in range(len(queries))]
        return tuple(self.query(query, name) for query, name in zip(queries, names, strict=True))

    @property
    def distinct(self) -> int:
        """How many different examples there are: repeats of input, output and task count once."""
        return len(self.distinct_rows[1])

    @cached_property
    def distinct_rows(self) -> tuple[DistinctRows, Numbers]:
        """Which of the examples are distinct, in the order of ids, and the place of each; built once."""
        with paused_collection():
            of, gapless = self.members, isinstance(self._numbers, range)
            numbers = self._number_of.values() if gapless else range(len(of))
            return DistinctRows.build(of.list_ids(), of.list_contents(), of.order_by_id(), numbers)

    def index(self, ident: str) -> int:
        """The position of an id.

        Raises:
            PoolError: The id is not in the pool.
        """
        try:
            return bisect_left(self._numbers, self._number_of[ident])
        except KeyError:
            raise PoolError(f"the pool has no example with the id {ident!r}") from None

    def __contains__(self, ident: Hashable) -> bool:
        return ident in self._number_of

    def __getitem__(self, i: int) -> Demonstration:
        return self.members[i]

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return f"Pool({len(self)} demonstrations)"


def _fresh(ident: str, taken: tuple[Container[str], Container[str]]) -> str:
    candidate, copy = ident, 2
    while candidate in taken[0] or candidate in taken[1]:
        candidate, copy = f"{ident}-{copy}", copy + 1
    return candidate
