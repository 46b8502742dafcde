"""Which embedder embedded a pool: what it makes of one text, to be compared when another one is given.

Two models of the same width embed the same text otherwise; a selector whose queries came from another model than its
pool would choose at random without a word.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch

from kdprompt.errors import EmbeddingError
from kdprompt.pool.embedding import Embedder, embed_documents
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder

__all__ = ["Fingerprint", "check_fingerprint", "remember_fingerprint", "take_fingerprint"]

LOG = logging.getLogger(__name__)
ALIKE = 0.999  # cosine of two embeddings of a text by one model: on other devices, in half precision, over a network
TAKEN: "WeakKeyDictionary[Embedder, Fingerprint]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Fingerprint:
    """A text and its embedding ``[d]``, of unit norm."""

    text: str
    vector: tuple[float, ...]

    @classmethod
    def of(cls, text: str, vector: torch.Tensor) -> Self:
        """The fingerprint by an embedding ``[d]`` that is at hand, of any norm but 0."""
        exact = vector.detach().cpu().double()
        unit = torch.nn.functional.normalize(exact / exact.abs().max(), dim=-1)
        return cls(text, tuple(round(value, 8) for value in unit.tolist()))

    @classmethod
    def read(cls, stored: Any) -> Self:
        """A fingerprint from JSON.

        Raises:
            TypeError, ValueError: It is none.
        """
        if (
            not isinstance(stored, Mapping)
            or stored.keys() != {"text", "vector"}
            or not isinstance(stored["text"], str)
        ):
            raise TypeError(f"the embedder's fingerprint must be a text and a vector, got {stored!r:.80}")
        vector = tuple(map(float, stored["vector"]))
        if not vector or not math.isclose(math.hypot(*vector), 1, rel_tol=1e-3):
            raise ValueError("the vector of the embedder's fingerprint must have the norm 1")
        return cls(stored["text"], vector)

    def to_json(self) -> dict[str, Any]:
        """What ``read`` reads."""
        return {"text": self.text, "vector": list(self.vector)}


def take_fingerprint(embedder: Embedder, text: str) -> Fingerprint | None:
    """What an embedder makes of a text; embedded once in the life of an embedder.

    Args:
        embedder: The embedder.
        text: One that it can embed, such as the first input of the pool.

    Returns:
        None where the embedder fails, which is logged, and where its model was not loaded yet: saving is no reason to
        wait for it.
    """
    known = _find(embedder)
    if known is not None:
        return known
    if isinstance(embedder, SentenceTransformerEmbedder) and not embedder.is_loaded:
        return None
    try:
        fingerprint = _embed(embedder, text)
    except Exception as error:  # a service that is down must not cost the selector that is being saved
        LOG.warning(
            "the embedder failed on a text; its fingerprint is what the pool holds of it: %s", type(error).__name__
        )
        return None
    remember_fingerprint(embedder, fingerprint)
    return fingerprint


def check_fingerprint(fingerprint: Fingerprint, embedder: Embedder, name: str) -> None:
    """Compares what an embedder makes of the text with what the pool's made of it.

    Args:
        fingerprint: That of the pool's embedder.
        embedder: The embedder that is given.
        name: Names the pool's embedder in errors.

    Raises:
        EmbeddingError: It is another embedder, or it fails.
    """
    if _find(embedder) == fingerprint:
        return
    given = type(embedder).__qualname__
    remedy = "give the embedder that embedded the pool, or embed it anew: load(…, reembed=True)"
    try:
        vector = _embed(embedder, fingerprint.text).vector
    except Exception as error:
        raise EmbeddingError(
            f"the {given} given cannot be compared with the embedder of the pool ({name}), as it fails on a text "
            f"({fingerprint.text!r:.60}): {type(error).__name__}: {error!s:.200}"
        ) from error
    if len(vector) != len(fingerprint.vector):
        raise EmbeddingError(
            f"the {given} given returns {len(vector)} dimensions, the embedder of the pool ({name}) "
            f"{len(fingerprint.vector)}; {remedy}"
        )
    cosine = math.fsum(map(math.prod, zip(vector, fingerprint.vector, strict=True)))
    if cosine < ALIKE:
        raise EmbeddingError(
            f"the {given} given is another embedder than that of the pool ({name}): it embeds {fingerprint.text!r:.60} "
            f"otherwise (cosine {cosine:.3f}); {remedy}"
        )
    remember_fingerprint(embedder, fingerprint)


def remember_fingerprint(embedder: Embedder, fingerprint: Fingerprint) -> None:
    """Keeps the fingerprint of an embedder as long as it lives, where it can be a key."""
    try:
        TAKEN[embedder] = fingerprint
    except TypeError:
        return


def _find(embedder: Embedder) -> Fingerprint | None:
    try:
        return TAKEN.get(embedder)
    except TypeError:
        return None


def _embed(embedder: Embedder, text: str) -> Fingerprint:
    return Fingerprint.of(text, embed_documents(embedder, [text])[0])
