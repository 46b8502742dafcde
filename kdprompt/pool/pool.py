"""Records that users bring: demonstrations, pools of them, and queries. Parsing and validation happen here, once.

What comes in is whatever people have (dicts with any keys, strings, JSONL files); what goes on are frozen
records with rendered texts and stable ids. Every error names the example and the key, or the line.
"""

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kdprompt.errors import MissingKeyError, PoolError, QueryError

__all__ = ["Demonstration", "Pool", "Query", "Schema", "normalised", "read_jsonl", "render"]

FROZEN = ConfigDict(frozen=True, extra="forbid")


def render(value: object) -> str:
    """A value as text: strings as they are, everything else as JSON where it can be, else ``str``.

    Example:
        >>> render("plain"), render(["a", 1]), render({"x": True})
        ('plain', '["a", 1]', '{"x": true}')
    """
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def normalised(text: str) -> str:
    """Text without case and spacing: what counts as *the same text* when duplicates are looked for."""
    return " ".join(text.casefold().split())


class Demonstration(BaseModel):
    """One example that may be shown to the model.

    Attributes:
        id: Stable id, unique in its pool.
        input: The input as text.
        output: The output as text, or None where the example has none.
        task: Task tag, or None.
        fields: The original example, untouched.
    """

    model_config = FROZEN

    id: str
    input: str
    output: str | None = None
    task: str | None = None
    fields: Mapping[str, Any] = Field(default_factory=dict, repr=False)


class Query(BaseModel):
    """What the product was asked.

    Attributes:
        text: The input as text, rendered as the pool's inputs are.
        task: Restricts the demonstrations to this task tag.
        outputs: Restricts the demonstrations to these outputs.
    """

    model_config = FROZEN

    text: str
    task: str | None = None
    outputs: frozenset[str] | None = None


class Schema(BaseModel):
    """Which keys of an example hold what.

    Attributes:
        inputs: Keys of the input. One key is rendered as its value, several as ``key: value`` lines.
        outputs: Keys of the output. None takes every key that is no input, task or id; empty: no outputs.
        task: Key of the task tag; used where an example has it, None ignores it.
        id: Key of the id; used where an example has it, else ids come from the content.
    """

    model_config = FROZEN

    inputs: tuple[str, ...] = ("input",)
    outputs: tuple[str, ...] | None = ("output",)
    task: str | None = "task"
    id: str | None = "id"

    def input_text(self, record: Mapping[str, Any], where: str) -> str:
        """The rendered input of a record; ``where`` names the record in errors."""
        return _join(record, self.inputs, where, "input")

    def output_text(self, record: Mapping[str, Any], where: str) -> str | None:
        """The rendered output of a record, or None where the schema or the record has none."""
        keys = self.outputs
        if keys is None:
            known = {*self.inputs, self.task, self.id}
            keys = tuple(key for key in record if key not in known)
        if not keys or not any(key in record for key in keys):
            return None
        return _join(record, keys, where, "output")


def _join(record: Mapping[str, Any], keys: Sequence[str], where: str, role: str) -> str:
    for key in keys:
        if key not in record:
            raise MissingKeyError(
                f"{where} has no {role} key {key!r}; it has {sorted(map(str, record))}. Add the key, or name "
                f"the right one in the schema ({role} keys are {list(keys)})."
            )
    if len(keys) == 1:
        return render(record[keys[0]])
    return "\n".join(f"{key}: {render(record[key])}" for key in keys)


def content_id(*parts: str | None) -> str:
    """A stable id of 12 hex digits from the content."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:12]


class Pool:
    """Demonstrations with unique ids, in the order in which they came. Immutable; ``with_…`` makes a new one.

    Example:
        >>> pool = Pool.from_records([{"input": "2 + 2", "output": 4}, {"input": "3 + 4", "output": 7}])
        >>> len(pool), pool[0].output
        (2, '4')
    """

    def __init__(self, demonstrations: Iterable[Demonstration], schema: Schema | None = None) -> None:
        self.schema = schema or Schema()
        self.demonstrations = tuple(demonstrations)
        self._index: dict[str, int] = {}
        for i, demonstration in enumerate(self.demonstrations):
            first = self._index.setdefault(demonstration.id, i)
            if first != i:
                raise PoolError(
                    f"example {i} has the id {demonstration.id!r} that example {first} has already; ids must be "
                    "unique. Change one, or name another id key in the schema."
                )

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any] | Demonstration], schema: Schema | None = None) -> "Pool":
        """Makes a pool of mappings or demonstrations.

        Args:
            records: The examples.
            schema: Which keys hold what; defaults to ``input``, ``output``, ``task``, ``id``.

        Returns:
            The pool; may be empty.

        Raises:
            MissingKeyError: An example lacks an input or an output key.
            PoolError: An example is no mapping, has an empty input, or an id twice.
        """
        return cls((), schema).with_records(records)

    @classmethod
    def from_jsonl(cls, path: str | Path, schema: Schema | None = None) -> "Pool":
        """Reads a pool from a file with one JSON object a line; errors name the line."""
        return cls.from_records(read_jsonl(path), schema)

    def with_records(self, records: Iterable[Mapping[str, Any] | Demonstration]) -> "Pool":
        """A pool with more examples behind these; content ids of repeated examples end in ``-2``, ``-3`` and so on."""
        taken = set(self._index)
        added = []
        for i, record in enumerate(records):
            added.append(self._parse(record, f"example {i}", taken))
            taken.add(added[-1].id)
        return Pool((*self.demonstrations, *added), self.schema)

    def with_changed(self, ident: str, record: Mapping[str, Any] | Demonstration) -> "Pool":
        """A pool with another example in the place of an id, under the same id.

        Raises:
            PoolError: The id is not in the pool.
            MissingKeyError, PoolError: As ``from_records``.
        """
        at = self.index(ident)
        changed = self._parse(record, f"the example for {ident!r}", set()).model_copy(update={"id": ident})
        return Pool((*self.demonstrations[:at], changed, *self.demonstrations[at + 1 :]), self.schema)

    def without(self, ids: Iterable[str]) -> "Pool":
        """A pool without these ids.

        Raises:
            PoolError: An id is not in the pool.
        """
        gone = set(ids)
        unknown = sorted(gone - set(self._index))
        if unknown:
            raise PoolError(f"the pool has no example with the id {unknown[0]!r}; nothing was removed")
        return Pool((d for d in self.demonstrations if d.id not in gone), self.schema)

    def _parse(self, record: Mapping[str, Any] | Demonstration, where: str, taken: set[str]) -> Demonstration:
        if isinstance(record, Demonstration):
            return record
        if not isinstance(record, Mapping):
            raise PoolError(f"{where} must be a mapping, got {type(record).__name__}: {record!r:.80}")
        line = getattr(record, "line", None)
        where = f"{where} (line {line})" if line else where
        text = self.schema.input_text(record, where)
        if not text.strip():
            raise PoolError(f"{where} has an empty input ({list(self.schema.inputs)}); give it text or leave it out")
        output = self.schema.output_text(record, where)
        task = record.get(self.schema.task) if self.schema.task else None
        tag = None if task is None else render(task)
        own = record.get(self.schema.id) if self.schema.id else None
        ident = render(own) if own is not None else _fresh(content_id(text, output, tag), taken)
        return Demonstration(id=ident, input=text, output=output, task=tag, fields=dict(record))

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
        elif isinstance(query, Mapping):
            task = query.get(self.schema.task) if self.schema.task else None
            text = self.schema.input_text(query, where)
            query = Query(text=text, task=None if task is None else render(task))
        elif not isinstance(query, Query):
            raise QueryError(f"{where} must be text, a mapping or a Query, got {type(query).__name__}: {query!r:.80}")
        if not query.text.strip():
            raise QueryError(f"{where} is empty; give it text")
        return query

    def queries(self, queries: "Sequence[str | Mapping[str, Any] | Query]") -> tuple[Query, ...]:
        """Several queries by the rules of ``query``; errors name the position."""
        if isinstance(queries, str | Mapping | Query):
            kind = type(queries).__name__
            raise QueryError(f"queries must be a sequence of queries, got one {kind}; wrap it in a list")
        single = len(queries) == 1
        return tuple(self.query(query, "the query" if single else f"query {i}") for i, query in enumerate(queries))

    @property
    def distinct(self) -> int:
        """How many different examples there are: repeats of input, output and task count once."""
        return len({(each.input, each.output, each.task) for each in self})

    def index(self, ident: str) -> int:
        """The position of an id.

        Raises:
            PoolError: The id is not in the pool.
        """
        try:
            return self._index[ident]
        except KeyError:
            raise PoolError(f"the pool has no example with the id {ident!r}") from None

    def __contains__(self, ident: Hashable) -> bool:
        return ident in self._index

    def __getitem__(self, i: int) -> Demonstration:
        return self.demonstrations[i]

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self.demonstrations)

    def __len__(self) -> int:
        return len(self.demonstrations)

    def __repr__(self) -> str:
        return f"Pool({len(self)} demonstrations)"


def _fresh(ident: str, taken: set[str]) -> str:
    candidate, copy = ident, 2
    while candidate in taken:
        candidate, copy = f"{ident}-{copy}", copy + 1
    return candidate


class _Line(dict[str, Any]):
    """A record that remembers the line it was read from, for errors further on."""

    def __init__(self, record: Mapping[str, Any], line: int) -> None:
        super().__init__(record)
        self.line = line


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Reads a file with one JSON object a line, UTF-8; blank lines are passed over.

    Args:
        path: The file.

    Returns:
        The objects in order.

    Raises:
        PoolError: A line is no JSON or no object; the error names the file and the line.
        FileNotFoundError: There is no such file.
    """
    records: list[dict[str, Any]] = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.removeprefix(b"\xef\xbb\xbf").strip():
                records.append(_Line(_parse_line(line, f"{path}, line {number}"), number))
    return records


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        shown = line.decode("utf-8", "backslashreplace").strip()
        raise PoolError(f"{where} is no JSON ({error}): {shown:.80}. Every line must hold one JSON object.") from error
    if not isinstance(record, dict):
        raise PoolError(f"{where} must hold a JSON object, got {type(record).__name__}: {record!r:.80}")
    return record
