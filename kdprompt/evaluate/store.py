"""What a benchmark has learnt so far, on disk: a killed run goes on where it was.

Answers are kept by the content that they answer (reader, prompt, labels), one JSON object a line, written as they
come; selections by what they depend on, the package's own code included. Several runs may share a folder: each
appends to a file of its own.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Self

from kdprompt.readers.reader import Answer, Reader

__all__ = ["Store", "code_fingerprint", "digest"]


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
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._selections = folder / "selections"
        self._selections.mkdir(parents=True, exist_ok=True)
        self._answers: dict[str, Answer] = {}
        self._file: IO[str] | None = None
        for path in sorted(folder.glob("answers*.jsonl")):
            self._read(path)

    def __len__(self) -> int:
        """Answers at hand."""
        return len(self._answers)

    def answers(self, reader: Reader, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        """The reader's answers, in order; only those that are not known yet are asked for, each prompt once."""
        keys = [self.key(reader, prompt, labels) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._answers}
        fresh = zip(new, reader.answers(list(new.values()), labels), strict=True)
        for key in keys:
            while key not in self._answers:
                self._keep(*next(fresh))
            yield self._answers[key]

    def remembering(self, reader: Reader) -> Reader:
        """The reader, asked only for what is not known yet."""
        return _Remembering(self, reader)

    @staticmethod
    def key(reader: Reader, prompt: str, labels: Sequence[str] | None) -> str:
        """What an answer is kept under."""
        return digest(reader.name, prompt, labels)

    def selection(self, key: str) -> Any:
        """A selection kept under a key, or None."""
        path = self._selections / f"{key}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def keep_selection(self, key: str, value: Any) -> None:
        """Keeps a selection; whole or not at all."""
        path = self._selections / f"{key}.json"
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(value), encoding="utf-8")
        part.replace(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file of answers."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, key: str, answer: Answer) -> None:
        if self._file is None:
            self._file = (self.folder / f"answers-{os.getpid()}.jsonl").open("a", encoding="utf-8")
        probs = None if answer.log_probs is None else [round(value, 5) for value in answer.log_probs]
        self._answers[key] = answer
        self._file.write(json.dumps({"key": key, "text": answer.text, "log_probs": probs}, ensure_ascii=False) + "\n")
        self._file.flush()

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8", errors="replace")
        for line in text.split("\n"):
            try:
                row = json.loads(line)
                probs = row["log_probs"]
                self._answers[row["key"]] = Answer(row["text"], None if probs is None else tuple(probs))
            except (ValueError, KeyError, TypeError):
                continue  # the line that a killed run was writing
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")


class _Remembering:
    def __init__(self, store: Store, reader: Reader) -> None:
        self.name = reader.name
        self.count_tokens = reader.count_tokens
        self._store, self._reader = store, reader

    def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
        return self._store.answers(self._reader, prompts, labels)
