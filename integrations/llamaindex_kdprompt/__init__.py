"""LlamaIndex adapter of kdprompt: ``DistillationExamples`` fills a variable of a prompt with chosen examples."""

try:
    import llama_index.core as _llama_index  # noqa: F401 -- only to say what is missing
except ImportError as error:
    raise ImportError("llamaindex_kdprompt needs LlamaIndex: pip install 'kdprompt[llamaindex]'") from error

from llamaindex_kdprompt.embedding import LlamaIndexEmbedder
from llamaindex_kdprompt.examples import DistillationExamples

__all__ = ["DistillationExamples", "LlamaIndexEmbedder"]
