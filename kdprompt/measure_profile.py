"""A reader's profile from the pool of a selector, for ``Settings`` and for other pools: ``kdprompt profile``."""

import torch

from kdprompt.readers.reader import Reader
from kdprompt.selector import DistillationSelector
from kdprompt.tuning.profile_measurement import ProfileMeasurement, fit_profile

__all__ = ["ProfileMeasurement", "measure_profile"]


def measure_profile(selector: DistillationSelector, reader: Reader) -> ProfileMeasurement:
    """Measures how a reader weighs what it knows and what it is shown (R9), by some 360 answers to pool examples.

    Args:
        selector: Its pool is asked and shown, written as its template has it, with as many demonstrations as its k.
        reader: Who answers; what it answers is cached by ``kdprompt.evaluate.Store(folder).cached_reader(reader)``.

    Returns:
        The profile, for ``ObjectiveSettings(profile=…)``, and how well it foretells answers that it was not fitted to.

    Raises:
        PoolError: There are fewer than 96 examples with an output, outputs are no labels, or the pool has several
            tasks.
        TypeError: What is given is no reader.
    """
    context = selector.calibration.query_context(selector._pool.in_order(selector.settings), selector.settings)
    rows = torch.arange(len(context.tensors), device=context.tensors.x.device)
    generator = torch.Generator().manual_seed(selector.settings.seed)
    return fit_profile(context, reader, rows, max(selector.settings.largest_k, 1), generator)
