"""LangChain adapter of kdprompt: ``DistillationExampleSelector`` stands where a similarity example selector stood."""

from langchain_kdprompt.selector import DistillationExampleSelector

__all__ = ["DistillationExampleSelector"]
