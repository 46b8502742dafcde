"""Haystack adapter of kdprompt: ``DistillationExampleSelector`` puts chosen examples into a pipeline."""

try:
    import haystack as _haystack  # noqa: F401 -- only to say what is missing
except ImportError as error:
    raise ImportError("haystack_kdprompt needs Haystack: pip install 'kdprompt[haystack]'") from error

from haystack_kdprompt.component import DistillationExampleSelector
from haystack_kdprompt.embedding import HaystackEmbedder

__all__ = ["DistillationExampleSelector", "HaystackEmbedder"]
