"""LangChain adapter of kdprompt."""
