"""Pools of a command: read from files, by the keys that its options name, and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdprompt.paths import read_stream

__all__ = ["Keys", "PoolFile", "read_pool"]


@dataclass(frozen=True)
class Keys:
    """The keys that a command's options name; None is the default.

    Attributes:
        inputs: Keys of the input.
        outputs: Keys of the output.
        task: Key of the task tag.
        id: Key of the id.
        no_outputs: Whether the examples have none.
    """

    inputs: Sequence[str] | None = None
    outputs: Sequence[str] | None = None
    task: str | None = None
    id: str | None = None
    no_outputs: bool = False

    def schema(self) -> Any:
        """As a ``Schema``.

        Raises:
            ValueError: There are to be no outputs, and a key of theirs is given.
        """
        from kdprompt import Schema

        if self.no_outputs and self.outputs:
            raise ValueError("--no-outputs and --output-key contradict each other; give one of them")
        outputs = () if self.no_outputs else tuple(self.outputs or ("output",))
        inputs = tuple(self.inputs or ("input",))
        return Schema(inputs=inputs, outputs=outputs, task=self.task or "task", id=self.id or "id")

    def check(self, pool: Any, path: Path) -> None:
        """Refuses a pool that has none of what the keys name: prompts without outputs help nobody.

        Raises:
            MissingKeyError: No example has the output, or a task or an id whose key was given.
        """
        from kdprompt import MissingKeyError
        from kdprompt.pool.records import suggest

        names = list(dict.fromkeys(str(key) for example in pool for key in example.fields))
        given = [("--task-key", self.task), ("--id-key", self.id)]
        if pool.schema.outputs and all(example.output is None for example in pool):
            given.insert(0, ("--output-key", pool.schema.outputs[0]))
        for option, key in given:
            if key is not None and (option == "--output-key" or key not in names) and len(pool):
                near = suggest(key, names)
                raise MissingKeyError(
                    f"no example of {path} has a value for {key!r}"
                    + (f"; did you mean {option} {near}?" if near and near != key else f"; its keys are {names[:20]}.")
                    + f" Name the right key with {option}"
                    + (", or give --no-outputs." if option == "--output-key" else ".")
                )


@dataclass(frozen=True)
class PoolFile:
    """A file that may hold examples, or a selector as ``kdprompt build`` writes it.

    Attributes:
        path: The file.
        content: All of it, where it can be read but once; None where it can be read again.
    """

    path: Path
    content: bytes | None

    @classmethod
    def open(cls, path: Path) -> "PoolFile":
        """The file of a path; a pipe is read to its end."""
        return cls(path, read_stream(path))

    @property
    def is_stored(self) -> bool:
        """Whether it holds a selector rather than examples."""
        head = self._read_head(9)
        return len(head) == 9 and head[7] == 0 and head[8:] == b"{"  # safetensors: a length of 8 bytes, then JSON

    def _read_head(self, size: int) -> bytes:
        if self.content is not None:
            return self.content[:size]
        with self.path.open("rb") as file:
            return file.read(size)


def read_pool(path: Path, keys: Keys, content: bytes | None = None) -> Any:
    """The pool of a file; ``content`` is what it holds, where it was read already.

    Raises:
        PoolError, MissingKeyError: It cannot be used; the error names file and line.
    """
    from kdprompt import Pool

    pool = Pool.from_file(path, keys.schema(), content=content)
    keys.check(pool, path)
    return pool
