"""Embeddings on disk, by content: what was embedded once is not embedded again, by any process.

One SQLite file in a folder. A row's key is the SHA-256 of the embedder's identity, the side (document or query) and the
text; no text is stored. A CRC-32 guards each row: one that does not fit, or is no vector, is embedded again and
overwritten. What was embedded before a failure is kept. A file that is damaged, or cannot be written, costs the cache
alone.

Rejected: one connection that stays open (it belongs to one thread, and to no forked process; opening costs under a
millisecond); write-ahead logging (not on network file systems).
"""

import hashlib
import logging
import os
import sqlite3
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from kdprompt.errors import EmbeddingError
from kdprompt.paths import expand_home
from kdprompt.pool.embedders import AnyEmbedder, as_embedder
from kdprompt.pool.embedding import Embedder, embed_each
from kdprompt.pool.sentence_transformer import DEFAULT_MODEL, SentenceTransformerEmbedder
from kdprompt.pool.unread import find_unread
from kdprompt.pool.vectors import check_finite_rows, check_vectors

__all__ = ["CachedEmbedder", "identify_embedder"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

FILE = "embeddings.sqlite3"
CHUNK = 1024  # texts embedded before they are written
KEYS = 500  # a query; SQLite allows 999 in old versions
WAIT = 60.0  # seconds for another process's write
TABLE = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, dtype TEXT, vector BLOB, crc INTEGER) WITHOUT ROWID"
DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


class CachedEmbedder:
    """An embedder whose vectors are kept on disk.

    Threads and processes may share a folder. Vectors come back on the CPU unless a device is named.

    Args:
        embedder: As ``from_examples`` takes it; None: the default model. It is asked for new texts alone.
        folder: Where the file ``embeddings.sqlite3`` lies; made where it is missing. ``~`` is the home folder.
        name: Identifies the embedder, with its version; None for a sentence-transformers model by name or folder.
        device: Where vectors go.

    Raises:
        ValueError: A name is needed: nothing tells this embedder from another one.

    Example:
        ``DistillationSelector.from_examples(examples, CachedEmbedder("intfloat/e5-small", "~/.cache/vectors"))``
    """

    def __init__(
        self,
        embedder: AnyEmbedder | None,
        folder: str | Path,
        *,
        name: str | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.embedder = as_embedder(embedder)
        self.name = name or identify_embedder(self.embedder)
        self.path = expand_home(folder) / FILE
        self.device = torch.device("cpu" if device is None else device)

    def embed_documents(self, texts: list[str]) -> Tensor:
        """Texts to ``[n, d]``."""
        return self._look_up(texts, "document", self.embedder.embed_documents)

    def embed_query(self, text: str) -> Tensor:
        """One text to ``[d]``, by the embedder's query side."""
        return self.embed_queries([text])[0]

    def embed_queries(self, texts: list[str]) -> Tensor:
        """Many queries to ``[m, d]``."""
        many = getattr(self.embedder, "embed_queries", None) or self._one_by_one
        return self._look_up(texts, "query", many)

    def find_unread(self, texts: list[str]) -> list[str]:
        """As the embedder's own, where it has one: the ends of texts that it does not read."""
        return find_unread(self.embedder, texts)

    def _one_by_one(self, texts: list[str]) -> Any:
        return embed_each(self.embedder.embed_query, texts)

    def _look_up(self, texts: Sequence[str], side: str, embed: Callable[[list[str]], Any]) -> Tensor:
        keys = {text: self._key(side, text) for text in texts}
        known = self._read(list(keys.values()))
        new = [text for text, key in keys.items() if key not in known]
        logger.debug("%d of %d texts were kept in %s", len(keys) - len(new), len(keys), self.path)
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            made = check_vectors(embed(list(part)), part, f"embed_{side} of the embedder").cpu()
            made = made.float() if made.dtype is torch.bfloat16 else made  # numpy has no bfloat16
            fresh = dict(zip([keys[text] for text in part], made, strict=True))
            self._write(fresh)
            known |= fresh
        if not texts:
            return torch.empty(0, 0, device=self.device)
        rows = [known[keys[text]] for text in texts]
        if len({row.shape for row in rows}) > 1:
            raise EmbeddingError(
                f"{self.path} holds vectors of another width under the name {self.name!r}: {sorted(map(len, rows))[0]} "
                f"and {sorted(map(len, rows))[-1]}; give the embedder another name"
            )
        return torch.stack(rows).to(self.device)

    def _key(self, side: str, text: str) -> bytes:
        parts = (part.encode("utf-8", "surrogatepass") for part in (self.name, side, text))
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        def select(database: sqlite3.Connection) -> dict[bytes, Tensor]:
            known: dict[bytes, Tensor] = {}
            for start in range(0, len(keys), KEYS):
                part = keys[start : start + KEYS]
                marks = ",".join("?" * len(part))
                rows = database.execute(f"SELECT key, dtype, vector, crc FROM vectors WHERE key IN ({marks})", part)
                found = {row[0]: _read_row(*row) for row in rows}
                damaged.update(key for key, vector in found.items() if vector is None)
                known.update((key, vector) for key, vector in found.items() if vector is not None)
            return known

        damaged: set[bytes] = set()
        known = (self._use(select) if self.path.exists() else None) or {}
        damaged |= (odd := _find_no_vectors(known))
        if damaged:
            logger.warning("%d rows of %s are no vectors; their texts are embedded again", len(damaged), self.path)
        return {key: vector for key, vector in known.items() if key not in odd}

    def _write(self, rows: dict[bytes, Tensor]) -> None:
        values = []
        for key, row in rows.items():
            dtype, vector = str(row.dtype).removeprefix("torch."), row.contiguous().numpy().tobytes()
            values.append((key, dtype, vector, _checksum(key, dtype, vector)))

        def insert(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", values)

        self._use(insert)

    def _use(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """What an action on the database gives; None, with a warning, where the file cannot be used."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._act(action)
        except (sqlite3.OperationalError, OSError) as error:
            warnings.warn(f"embeddings are not kept: {self.path}: {error}", stacklevel=5)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            warnings.warn(f"{self.path} is damaged ({error}) and {self._set_aside()}", stacklevel=5)
        return None

    def _set_aside(self) -> str:
        """Renames the file; says what became of it."""
        aside = self.path.with_name(f"{FILE}.damaged")
        try:
            os.replace(self.path, aside)
        except FileNotFoundError:  # another process was faster
            pass
        except OSError as error:
            return f"could not be renamed ({error}); delete it"
        return f"was renamed to {aside.name}"

    def _act(self, action: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self.path, timeout=WAIT)) as database:
            database.text_factory = lambda raw: raw.decode("utf-8", "replace")  # what is damaged is no text
            database.execute(TABLE)
            return action(database)

    def __repr__(self) -> str:
        return f"CachedEmbedder({self.embedder!r}, {str(self.path.parent)!r}, name={self.name!r})"


def identify_embedder(embedder: Embedder) -> str:
    """What tells a sentence-transformers model from others: its name and prompts; of a folder also its files' ages.

    Raises:
        ValueError: The embedder is another one, of which nothing is known.
    """
    if not isinstance(embedder, SentenceTransformerEmbedder) or not embedder.by_name:
        raise ValueError(
            f"nothing tells {embedder!r:.80} from another embedder; give a name with its version: name='my-model-2'"
        )
    name = str(embedder.name or DEFAULT_MODEL)
    folder = Path(name)
    if folder.is_dir():
        stamps = sorted((str(file.relative_to(folder)), *_stamp(file)) for file in folder.rglob("*") if file.is_file())
        name = f"{folder.resolve()} {hashlib.sha256(repr(stamps).encode()).hexdigest()}"
    return f"sentence-transformers {name} {embedder.prompt_names}"


def _stamp(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


def _read_row(key: bytes, dtype: Any, vector: Any, crc: Any) -> Tensor | None:
    """The vector of a row; None where it is none, as the gate has it."""
    if not isinstance(vector, bytes) or dtype not in DTYPES or _checksum(key, dtype, vector) != crc:
        return None
    if not vector or len(vector) % DTYPES[dtype].itemsize:
        return None
    return torch.frombuffer(bytearray(vector), dtype=DTYPES[dtype])


def _find_no_vectors(rows: dict[bytes, Tensor]) -> set[bytes]:
    """Keys of rows that the gate would refuse, or whose width is not that of most (of all where none is commonest)."""
    widths = Counter(map(len, rows.values())).most_common(2)
    is_tie = len(widths) == 2 and widths[0][1] == widths[1][1]
    odd = {key for key, row in rows.items() if is_tie or len(row) != widths[0][0]}
    even = {key: row for key, row in rows.items() if key not in odd}
    if even and not _passes(list(even.values())):  # all at once first: rows are hardly ever damaged
        odd |= {key for key, row in even.items() if not _passes([row])}
    return odd


def _passes(rows: Sequence[Tensor]) -> bool:
    vectors = torch.stack([row.float() for row in rows])
    try:
        check_finite_rows(vectors, vectors, [FILE] * len(rows), FILE)
    except EmbeddingError:
        return False
    return True


def _checksum(key: bytes, dtype: str, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(key + dtype.encode()))
