"""What is stored of an embedder: enough to make kdprompt's own again, and to name any other."""

from collections.abc import Mapping
from typing import Any

from kdprompt.errors import EmbeddingError
from kdprompt.pool.embedders import AnyEmbedder, as_embedder
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder

__all__ = ["describe_embedder", "restore_embedder"]


def describe_embedder(embedder: Embedder) -> dict[str, Any]:
    """The class of an embedder and, for kdprompt's default, the model's name."""
    description: dict[str, Any] = {"class": f"{type(embedder).__module__}.{type(embedder).__qualname__}"}
    if type(embedder) is SentenceTransformerEmbedder and embedder.by_name:  # a subclass may embed otherwise
        model = None if embedder.name is None else str(embedder.name)
        description |= {"model": model, "prompts": embedder.prompt_names}
    return description


def restore_embedder(description: Mapping[str, Any], given: AnyEmbedder | None) -> Embedder:
    """The embedder given, else a new one of the kind that was described.

    Raises:
        TypeError: What is given is no embedder.
        EmbeddingError: None is given, and the stored one was not kdprompt's own.
    """
    if given is not None:
        return as_embedder(given)
    if "model" not in description:
        raise EmbeddingError(
            f"the pool was embedded by a {description['class']}, which is not stored; give it again: embeddings=…"
        )
    prompts = description["prompts"]
    return SentenceTransformerEmbedder(description["model"], prompt_names=(prompts[0], prompts[1]))
