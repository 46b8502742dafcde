"""Models that answer prompts: local causal LMs, LangChain models, plain functions."""
