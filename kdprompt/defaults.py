"""Defaults that ``Settings``, benchmarks and commands share; a module of its own, so that ``--help`` loads no other."""

__all__ = ["DEFAULT_DETAILS", "DEFAULT_K", "DEFAULT_STATIC_ROUNDS"]

DEFAULT_K = 8  # demonstrations a prompt
DEFAULT_DETAILS = 12  # queries of a data set whose prompts and answers a benchmark shows
DEFAULT_STATIC_ROUNDS = 16  # changes of the best static prompt, with a reader
