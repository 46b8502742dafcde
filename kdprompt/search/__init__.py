"""Minimises J: greedy search, swaps, and reading orders, under constraints."""

from kdprompt.moved_modules import forward_names

__getattr__ = forward_names("kdprompt.search", "kdprompt.search.constraints", "kdprompt.search.search")
