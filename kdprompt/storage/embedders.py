"""What is stored of an embedder: enough to make kdprompt's own again, and to know and name any other."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kdprompt.errors import EmbeddingError
from kdprompt.pool.embedders import AnyEmbedder, as_embedder
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.fingerprint import Fingerprint, check_fingerprint, remember_fingerprint, take_fingerprint
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder

__all__ = ["describe_embedder", "make_embedder", "restore_embedder"]


def describe_embedder(embedder: Embedder, text: str, vector: Tensor) -> dict[str, Any]:
    """The class of an embedder, the name of the model of kdprompt's default, and what it makes of a text.

    Args:
        embedder: The embedder.
        text: One that it can embed: the first input of the pool.
        vector: What the pool holds of it ``[d]``, which serves where the embedder fails or was not loaded yet.
    """
    description: dict[str, Any] = {"class": f"{type(embedder).__module__}.{type(embedder).__qualname__}"}
    if type(embedder) is SentenceTransformerEmbedder and embedder.by_name:  # a subclass may embed otherwise
        model = None if embedder.name is None else str(embedder.name)
        description |= {"model": model, "prompts": embedder.prompt_names}
    fingerprint = take_fingerprint(embedder, text) or Fingerprint.of(text, vector)
    return {**description, "fingerprint": fingerprint.to_json()}


def restore_embedder(description: Mapping[str, Any], given: AnyEmbedder | None) -> Embedder:
    """The embedder given, if it is the one that was described, else a new one of that kind.

    Raises:
        TypeError: What is given is no embedder.
        EmbeddingError: None is given, and the stored one was not kdprompt's own; or another one is given.
    """
    stored = description.get("fingerprint")
    fingerprint = None if stored is None else Fingerprint.read(stored)
    if given is None:
        made = make_embedder(description)
        if fingerprint is not None:
            remember_fingerprint(made, fingerprint)
        return made
    embedder = as_embedder(given)
    if fingerprint is not None:
        check_fingerprint(fingerprint, embedder, _name(description))
    return embedder


def make_embedder(description: Mapping[str, Any]) -> SentenceTransformerEmbedder:
    """A new embedder of the kind that was described.

    Raises:
        EmbeddingError: It was not kdprompt's own.
    """
    if "model" not in description:
        raise EmbeddingError(
            f"the pool was embedded by a {description['class']}, which is not stored; give it again: embeddings=…"
        )
    prompts = description["prompts"]
    return SentenceTransformerEmbedder(description["model"], prompt_names=(prompts[0], prompts[1]))


def _name(description: Mapping[str, Any]) -> str:
    return f"{description['class']}, model {description['model']!r}" if "model" in description else description["class"]
