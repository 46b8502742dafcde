"""Chooses the parameters of J on pool examples held out as pseudo-queries, without an LLM."""
