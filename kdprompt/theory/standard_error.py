"""The one-standard-error rule for paired losses: which options are near-ties of the best.

Source: Breiman, Friedman, Olshen, Stone (1984), "Classification and Regression Trees", chapter 3.
"""

from torch import Tensor

__all__ = ["is_within_one_standard_error"]


def is_within_one_standard_error(losses: Tensor, best_losses: Tensor) -> bool:
    """Whether an option's mean loss exceeds the best option's by at most one standard error of the paired difference.

    Args:
        losses: Of the option, one for each held-out example, ``[h]``.
        best_losses: Of the best option on the same examples, ``[h]``.

    Returns:
        Always true for fewer than two examples, which have no standard error.
    """
    differences = losses - best_losses
    if len(differences) < 2:
        return True
    return bool(differences.mean() <= differences.std() / len(differences) ** 0.5 + 1e-12)
