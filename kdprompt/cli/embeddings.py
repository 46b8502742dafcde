"""The embedder of commands that embed files: its vectors are kept on disk from one call to the next."""

import os
from pathlib import Path
from typing import Annotated, Any

from typer import Option

__all__ = ["NoCacheOption", "open_embedder"]

NoCacheOption = Annotated[bool, Option("--no-cache", help="Embed everything, and keep no embeddings.")]


def open_embedder(model: str | None, device: str | None, cache: Path | None, *, keep: bool) -> Any:
    """The embedder of a command.

    Args:
        model: Name or folder of a sentence-transformers model; None: the default.
        device: Where it computes, and where vectors go; None: the best there is.
        cache: Folder of the embeddings; None: what KDPROMPT_CACHE names, or kdprompt's in the user's cache folder.
        keep: Whether embeddings are read from there and kept.
    """
    from kdprompt.cli.progress import ProgressEmbedder

    embedder = ProgressEmbedder(model, device=device)
    if not keep:
        return embedder
    import torch
    from platformdirs import user_cache_path

    from kdprompt import CachedEmbedder

    folder = cache or os.environ.get("KDPROMPT_CACHE") or user_cache_path("kdprompt", appauthor=False) / "embeddings"
    return CachedEmbedder(embedder, folder, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
