"""A selector that is saved and loaded: the part of ``DistillationSelector`` that meets ``kdprompt.storage``."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from kdprompt.calibration.calibration import Calibration
from kdprompt.editable_pool import EditablePool
from kdprompt.pool.embedders import AnyEmbedder, as_embedder
from kdprompt.pool.embedding import Embedder, embed_queries
from kdprompt.pool.vectors import parse_device
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.late_pool import build_late
from kdprompt.selection.traffic import Traffic
from kdprompt.settings import Settings
from kdprompt.storage import (
    Recode,
    Stored,
    describe_embedder,
    from_dict,
    make_embedder,
    read,
    restore_embedder,
    to_dict,
    write,
)

__all__ = ["StorableSelector"]


class StorableSelector(EditablePool):
    """An embedded pool with its calibration, on disk and back.

    Attributes:
        calibration: What is in force.
    """

    calibration: Calibration

    @abstractmethod
    def __init__(
        self,
        pool: EmbeddedPool,
        settings: Settings,
        traffic: Traffic | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(pool, settings)
        self._traffic = traffic

    def save(self, path: str | Path, default: Recode | None = None) -> None:
        """Writes pool, embeddings, settings and calibration to one file, for ``load``; see ``kdprompt.storage``.

        The embedder is asked for one text once, by which ``load`` knows it again.

        Args:
            path: The file; one that is there is replaced at once or not at all. ``PoolError``: JSON cannot keep an
                example as it is; nothing is written. ``OSError``: The disk is full, say; the file of before stays.
            default: Called for a value of an example that JSON has no form for, as ``json.dumps`` does.
        """
        write(self.stored(), path, default)

    @classmethod
    def load(
        cls,
        path: str | Path,
        embeddings: AnyEmbedder | None = None,
        *,
        settings: Settings | None = None,
        decode: Recode | None = None,
        reembed: bool = False,
        device: str | torch.device | None = None,
    ) -> Self:
        """Reads what ``save`` wrote; nothing is embedded or calibrated again.

        Args:
            path: The file.
            embeddings: The embedder, for queries; it is asked for one text, to see that it is the one of before. None
                makes one of kdprompt's own as it was.
            settings: In place of the stored ones, which cannot hold objects of yours; new pins calibrate again.
            decode: Makes a value again of what ``default`` made of it.
            reembed: Whether to embed everything anew, by another embedder than before, and to calibrate again.
            device: Where the pool is kept and searched, ``"cuda"`` say; None: the CPU. ``ValueError``: it is not there.

        Raises:
            FileNotFoundError, PoolError: There is none; or it is no stored selector, is damaged, or holds what nothing
                can work with; or settings must be given.
            EmbeddingError: The embedder is another one than before, or it was none of kdprompt's and none is given.
        """
        place = parse_device(device)
        return cls.restored(read(path, decode), embeddings, settings, reembed=reembed, device=place)

    def to_dict(self, default: Recode | None = None) -> dict[str, Any]:
        """All that ``save`` writes, as JSON has it."""
        return to_dict(self.stored(), default)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        embeddings: AnyEmbedder | None = None,
        *,
        settings: Settings | None = None,
        decode: Recode | None = None,
        reembed: bool = False,
    ) -> Self:
        """A selector from what ``to_dict`` made; see ``load``."""
        return cls.restored(from_dict(data, decode), embeddings, settings, reembed=reembed)

    def stored(self) -> Stored:
        """What ``save`` and ``to_dict`` write."""
        pool = self._pool
        embedder = describe_embedder(pool.embedder, pool.pool[0].input, pool.embeddings.at([0])[0])
        return Stored(pool.pool, pool.vectors, pool.outputs, self._traffic, self.settings, self.calibration, embedder)

    @classmethod
    def restored(
        cls,
        stored: Stored,
        embeddings: AnyEmbedder | None = None,
        settings: Settings | None = None,
        *,
        reembed: bool = False,
        device: torch.device | None = None,
    ) -> Self:
        """A selector from what ``stored`` gave; errors as ``load``."""
        settings = settings or stored.restored_settings()
        if reembed:
            anew = make_embedder(stored.embedder) if embeddings is None else as_embedder(embeddings)
            return cls._embedded_anew(stored, anew, settings, device)
        embedder = restore_embedder(stored.embedder, embeddings)
        calibration = stored.calibration_under(settings)
        share = 0.0 if calibration is None else calibration.lexical_share
        build = build_late if settings == stored.settings else EmbeddedPool.build
        pool = build(stored.pool, stored.vectors.to(device), embedder, settings, stored.outputs, share)
        return cls(pool, settings, stored.traffic, calibration)

    @classmethod
    def _embedded_anew(
        cls, stored: Stored, embedder: Embedder, settings: Settings, device: torch.device | None
    ) -> Self:
        pool, traffic = EmbeddedPool.embed(stored.pool, embedder, settings, device=device), stored.traffic
        if traffic is not None:
            traffic = Traffic(traffic.queries, embed_queries(embedder, [query.text for query in traffic.queries]))
        return cls(pool, settings, traffic)
