"""LangChain adapter of kdprompt: ``DistillationExampleSelector`` stands where a similarity example selector stood."""

from typing import TYPE_CHECKING, Any

from langchain_kdprompt.compressor import DistillationCompressor
from langchain_kdprompt.prompts import BraceSafePromptTemplate
from langchain_kdprompt.selector import DistillationExampleSelector

if TYPE_CHECKING:
    from langchain_kdprompt.middleware import DistillationMiddleware

__all__ = [
    "BraceSafePromptTemplate",
    "DistillationCompressor",
    "DistillationExampleSelector",
    "DistillationMiddleware",
]


def __getattr__(name: str) -> Any:  # agents are an extra: imported when asked for
    if name == "DistillationMiddleware":
        from langchain_kdprompt.middleware import DistillationMiddleware

        return DistillationMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
