"""Fits the share of words in the vectors of a pool whose outputs are text.

What a reader writes follows the nearest of the outputs that it is shown: of 480 prompts for JSON and 92 for SQL that
SmolLM2-135M read, the log-likelihood of the true output went with the largest similarity among the outputs shown, with
a correlation of 0.85 and 0.88 within queries, and with their mean less well (0.60 and 0.79). So the share is taken with
which the prompts that J chooses show the nearest outputs, by the rule of the calibration that follows.

Rejected: the nearest output among the nearest neighbours. Prompts of small MMD hold outputs that differ without the
help of words, and need a smaller share.
"""

import torch
from torch import Tensor

from kdprompt.calibration.held_out import HeldOutRows, LeftOutRows
from kdprompt.calibration.pseudo_queries import PseudoQueries, TrialResult, find_best
from kdprompt.calibration.regression_fit import fit_kernel_regression
from kdprompt.objective.parameters import ObjectiveParameters, ObjectiveWeights
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.settings import Settings

__all__ = ["fit_lexical_share"]

SHARES = (0.0, 0.15, 0.3, 0.5)
HELD_OUT = 256
FEWEST = 96


def fit_lexical_share(pool: EmbeddedPool, settings: Settings) -> float:
    """The share h of words: fixed by the settings, else 0 but for text, where examples that are left out choose it.

    Args:
        pool: The pool, its vectors without words.
        settings: The share where it is fixed, the seed, and k.

    Returns:
        Of the shares that are near-ties of the best, the one whose prompts are nearest on average, in [0, 1].
    """
    if settings.search.lexical_share is not None:
        return settings.search.lexical_share
    tensors = pool.tensors
    if tensors.output_mode != "text" or not (settings.calibrate and settings.largest_k):
        return 0.0
    generator = torch.Generator().manual_seed(settings.seed)
    with_output = (tensors.label >= 0).nonzero().squeeze(-1)
    if len(with_output) < FEWEST:
        return 0.0
    count = min(HELD_OUT, len(with_output) // 4)
    drawn = torch.randperm(len(with_output), generator=generator)[:count]
    rows = with_output[drawn.to(with_output.device)]
    results = [_try_share(pool.with_lexical_share(share, settings).tensors, rows, settings) for share in SHARES]
    best = find_best(results)
    return next(share for share, result in zip(SHARES, results, strict=True) if result is best)


def _try_share(pool: PoolTensors, rows: Tensor, settings: Settings) -> TrialResult:
    """What prompts of small MMD show to rows that are held out, under the kernel that foretells outputs."""
    shortlist = settings.search.shortlist
    left_out = LeftOutRows.draw(pool, shortlist, torch.Generator().manual_seed(settings.seed), 0)
    regression = fit_kernel_regression(pool, settings, left_out)
    kernel = settings.objective.kernel or regression.kernel
    parameters = ObjectiveParameters(kernel=kernel, output_share=1.0, neighbourhood=0.0, weights=ObjectiveWeights())
    held_out = HeldOutRows.apart(pool, rows, shortlist)
    pseudo = PseudoQueries.build(pool, settings, regression, held_out)
    return pseudo.try_all([parameters], settings.largest_k, adaptive=False)[0]
