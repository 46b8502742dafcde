"""The one-standard-error rule for paired losses."""

from torch import Tensor

__all__ = ["is_within_one_standard_error"]


def is_within_one_standard_error(loss: Tensor, best: Tensor) -> bool:
    """Whether losses ``[h]`` are on average at most one standard error (paired) above those of the best ``[h]``."""
    difference = loss - best
    if len(difference) < 2:
        return True
    return bool(difference.mean() <= difference.std() / len(difference) ** 0.5 + 1e-12)
