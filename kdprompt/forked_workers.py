"""Workers made by ``fork``: torch's threads do not survive it, and a worker that waits for them waits for ever."""

import os
import warnings
from functools import cache

import torch

__all__ = ["guard_forks"]


@cache
def guard_forks() -> None:
    """Lets processes that are forked from this one compute on one thread, and says so there; once a process.

    ``torch.utils.data.DataLoader`` does the same in its workers. Nothing is done where there is no ``fork``.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    if torch.get_num_threads() == 1:
        return
    torch.set_num_threads(1)
    warnings.warn(
        "this process was forked from one with a kdprompt selector: torch's threads did not come along, so it computes "
        "on one. Start workers by 'spawn' or 'forkserver' (multiprocessing.get_context) and load a saved selector "
        "there, or call torch.set_num_threads(1) before the fork.",
        RuntimeWarning,
        stacklevel=2,
    )
