"""Defaults that ``Settings`` and the commands share; a module of its own, so that ``--help`` loads nothing else."""

__all__ = ["DEFAULT_K", "DEFAULT_STATIC_ROUNDS"]

DEFAULT_K = 8  # demonstrations a prompt
DEFAULT_STATIC_ROUNDS = 16  # changes of the best static prompt, with a reader
