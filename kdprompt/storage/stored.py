"""Everything that a selector holds, in one object that can be written and read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.errors import PoolError
from kdprompt.pool.pool import Pool
from kdprompt.selection.traffic import Traffic
from kdprompt.settings import Settings

__all__ = ["Stored"]


@dataclass(frozen=True)
class Stored:
    """Everything that a selector holds but the embedder itself.

    Attributes:
        pool: The demonstrations.
        vectors: Embeddings of their inputs ``[n, d]``.
        outputs: Embeddings of output texts, by text.
        traffic: The sample of the traffic, or None.
        settings: The settings, or None where one of them could not be stored.
        calibration: What is in force, or None likewise.
        embedder: What ``describe_embedder`` says of the embedder.
        about: Whatever else who stores wants to find again; JSON.
    """

    pool: Pool
    vectors: Tensor
    outputs: Mapping[str, Tensor]
    traffic: Traffic | None
    settings: Settings | None
    calibration: Calibration | None
    embedder: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)

    def restored_settings(self) -> Settings:
        """The stored settings.

        Raises:
            PoolError: They could not be stored.
        """
        if self.settings is None:
            raise PoolError(
                "the settings hold an object or a function that could not be stored (a kernel, an order, a template or "
                "a token count of your own); give them again: settings=…"
            )
        return self.settings

    def calibration_under(self, settings: Settings) -> Calibration | None:
        """The calibration, or None where these settings fix a parameter that it chose otherwise."""
        if self.calibration is None:
            return None
        share = settings.search.lexical_share
        same_words = share is None or share == self.calibration.lexical_share
        kept = settings == self.settings or (same_words and settings.objective.fixed_in(self.calibration.parameters))
        return self.calibration if kept else None
