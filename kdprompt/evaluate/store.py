"""What a benchmark has computed so far, on disk: a run that was killed continues where it stopped.

Answers are kept under a hash of reader, prompt and labels, one JSON object a line, written as they come. Selections are
kept under a hash of everything that they depend on, the sources of this package included. Several runs may share a
folder: each writes answers to a file of its own. Lines and files hold their checksum (``kdprompt.checksums``).
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Self

from kdprompt.atomic_write import atomic_write
from kdprompt.checksums import seal, unseal
from kdprompt.errors import DamagedFileError
from kdprompt.readers.answer_gate import check_answer
from kdprompt.readers.reader import Answer, Reader

__all__ = ["Store", "code_fingerprint", "digest"]

ANSWER = {"key", "text", "log_probs"}


def digest(*parts: object) -> str:
    """20 hex digits of a hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, default=str).encode()).hexdigest()[:20]


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """A hash of the package's sources: selections are made again when the code that made them has changed."""
    folder = Path(__file__).parents[1]
    sources = sorted(path for path in folder.rglob("*.py") if path.parent.name not in ("cli", "report"))
    return digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in sources])


class Store:
    """Answers and selections in a folder; a context manager that closes its file.

    Args:
        folder: Made where it does not exist.

    Raises:
        DamagedFileError: A line of answers is not what was written. The last line of a file may be cut, by a run that
            was killed: its answer is asked again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._selections = folder / "selections"
        self._selections.mkdir(parents=True, exist_ok=True)
        self._answers: dict[str, Answer] = {}
        self._origins: dict[str, tuple[Path, int]] = {}  # file and line of the answers that were read
        self._file: IO[str] | None = None
        for path in sorted(folder.glob("answers*.jsonl")):
            for number, key, answer in _read_answers(path):
                self._answers[key], self._origins[key] = answer, (path, number)

    def __len__(self) -> int:
        """Number of answers that are known."""
        return len(self._answers)

    def answers(self, reader: Reader, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """The reader's answers, in order; the reader is asked only for unknown ones, and for each prompt once.

        Raises:
            DamagedFileError: An answer that is kept does not have as many log-probabilities as there are labels.
            ValueError: The reader gives an answer that is none (``check_answer``); it is not kept.
        """
        keys = [self.key(reader, prompt, labels) for prompt in prompts]
        unknown = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._answers}
        new_answers = zip(unknown, reader.answers(list(unknown.values()), labels), strict=True)
        for key in keys:
            while key not in self._answers:
                self._keep_answer(reader, labels, *next(new_answers))
            if key in self._origins:
                self._check_kept(key, labels)
            yield self._answers[key]

    def cached_reader(self, reader: Reader) -> Reader:
        """A reader that asks the given one only for answers that are not known yet."""
        return _CachedReader(self, reader)

    @staticmethod
    def key(reader: Reader, prompt: str, labels: Sequence[str] | None) -> str:
        """The key of an answer; where it is text, its greatest length is part of it."""
        length = getattr(reader, "max_new_tokens", None) if labels is None else None
        return digest(reader.name, prompt, labels, *([] if length is None else [length]))

    def selection_path(self, key: str) -> Path:
        """Where the selection under a key is kept."""
        return self._selections / f"{key}.json"

    def load_selection(self, key: str) -> Any:
        """The selection saved under a key, or None.

        Raises:
            DamagedFileError: It is not what was saved.
        """
        path = self.selection_path(key)
        if not path.is_file():
            return None
        try:
            saved = unseal(json.loads(path.read_bytes()))
            if saved["key"] != key:
                raise ValueError(f"it is the selection of {saved['key']!r:.40}")
            return saved["selection"]
        except (ValueError, KeyError, RecursionError) as error:
            raise DamagedFileError(
                f"{path} is damaged, or no selection of kdprompt bench: {error!s:.160}. Delete it; the selection is "
                "made again."
            ) from error

    def save_selection(self, key: str, value: Any) -> None:
        """Saves a selection under a key; the file is written whole or not at all."""
        atomic_write(self.selection_path(key), json.dumps(seal({"key": key, "selection": value})))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file of answers."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _check_kept(self, key: str, labels: Sequence[str] | None) -> None:
        try:
            check_answer(self._answers[key], labels)
        except ValueError as error:
            raise _damaged(*self._origins[key], error) from error

    def _keep_answer(self, reader: Reader, labels: Sequence[str] | None, key: str, answer: Answer) -> None:
        try:
            check_answer(answer, labels)
        except ValueError as error:
            raise ValueError(f"an answer of the reader {reader.name!r} cannot be used: {error}") from error
        if self._file is None:  # no file of before goes on: its last line may be cut
            self._file = (self.folder / f"answers-{os.getpid()}-{time.time_ns()}.jsonl").open("x", encoding="utf-8")
        probs = None if answer.log_probs is None else [round(value, 5) for value in answer.log_probs]
        self._answers[key] = answer
        self._file.write(json.dumps(seal({"key": key, "text": answer.text, "log_probs": probs})) + "\n")
        self._file.flush()


def _read_answers(path: Path) -> Iterator[tuple[int, str, Answer]]:
    """The answers in a file, with number of line and key."""
    content = path.read_bytes()
    strict = b'"checksum"' in content  # in files of before, a cut line may stand anywhere
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            yield number, *_read_answer(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if strict:
                raise _damaged(path, number, error) from error


def _damaged(path: Path, number: int, error: Exception) -> DamagedFileError:
    return DamagedFileError(
        f"{path}, line {number} is damaged, or no answer of kdprompt bench: {error!s:.200}. Delete the line; its "
        "answer is asked again."
    )


def _read_answer(line: bytes) -> tuple[str, Answer]:
    entry = json.loads(line)
    if not isinstance(entry, dict) or entry.keys() != ANSWER:  # the lines of before have no checksum
        entry = unseal(entry)
    key, probs = entry["key"], entry["log_probs"]
    if not isinstance(key, str):
        raise TypeError(f"a key must be a text, got {key!r:.40}")
    answer = Answer(entry["text"], tuple(probs) if isinstance(probs, list) else probs)
    check_answer(answer, None)
    return key, answer


class _CachedReader:
    """A reader in front of which stands a store."""

    def __init__(self, store: Store, reader: Reader) -> None:
        self.name = reader.name
        self.count_tokens = reader.count_tokens
        self.max_new_tokens = getattr(reader, "max_new_tokens", None)
        self._store, self._reader = store, reader

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        return self._store.answers(self._reader, prompts, labels)
