"""One prompt for the whole query distribution: the least J, or the best of several in a reader's answers.

J knows which demonstrations stand for the queries; how one model takes them it does not know. Where outputs are few,
a small model may lean to one of them because of what stands last, and no order is safe from that before it is tried.
So a reader may be asked: prompts are compared by what it answers to pool examples that are held out, whose outputs
are known. No label of a query is needed. Half of the prompts are of nearly least J, which are good on average and much
alike; the other half is drawn, and the best of many different ones may be better still.
"""

import random
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from kdprompt.calibration import Calibration
from kdprompt.choice import choose, choose_each, static_candidates
from kdprompt.corpus import Corpus
from kdprompt.examination import Examination
from kdprompt.features import Requests
from kdprompt.ordering import ByObjective
from kdprompt.reading import Reader
from kdprompt.settings import Settings
from kdprompt.target import neighbours, sample_target

__all__ = ["static_rows"]

SETS = 16  # of small J: over all candidates, then over random halves of them
DRAWN = 16  # at random
FIRST = 6  # held-out examples that every prompt is tried on
HELD_OUT = 186  # 6 + 12 + 24 + 48 + 96


def static_rows(
    corpus: Corpus,
    wanted: Requests,
    calibration: Calibration,
    settings: Settings,
    reader: Reader | None = None,
    apart: Examination | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """The rows of a static prompt.

    Args:
        corpus: The pool.
        wanted: The queries.
        calibration: The settings in force.
        settings: How many, under which limits, in which order.
        reader: Chooses among prompts of small J and drawn ones; None takes the one of least J.
        apart: Whose examples are neither shown nor asked here.

    Returns:
        Rows of the features in reading order ``[1, K]``, and what to say of them.

    Raises:
        PoolError: A reader is given and the pool is too small, or has no outputs to compare with.
        TypeError: What is given is no reader.
    """
    features, trial = corpus.features, calibration.static
    target = sample_target(features, neighbours(features, wanted, settings.shortlist), calibration.regression)
    options = static_candidates(features, wanted, settings.static_shortlist)
    if reader is None:
        return choose(features, options, target, trial, settings, corpus.lengths), ()
    generator = torch.Generator().manual_seed(settings.seed)
    rows = options.index[options.valid]
    if apart is not None:
        rows = apart.without(rows)
    examination = Examination.of(corpus, settings, reader, rows, HELD_OUT, generator)
    kept = options.valid & torch.isin(options.index, examination.without(rows))
    halves = [torch.rand(kept.shape, generator=generator).to(kept.device) < 0.5 for _ in range(SETS - 1)]
    keys = [torch.rand(kept.shape, generator=generator).to(kept.device) for _ in range(DRAWN)]
    valid = [kept, *(kept & half for half in halves)]
    sets = choose_each(features, options, valid, target, trial, settings, corpus.lengths, keys)
    prompts = _orders([rows[rows >= 0].tolist() for rows in sets], settings)
    if len(prompts) == 1:
        return sets[0], (f"{reader.name} was not asked: there is one prompt",)
    race, outcomes = examination.race([[rows] * len(examination.held) for rows in prompts], first=FIRST)
    best, first = outcomes[race.winner], outcomes[0].losses
    found = torch.tensor([prompts[race.winner]], dtype=torch.long, device=options.index.device)
    small = {frozenset(rows[rows >= 0].tolist()) for rows in sets[:SETS]}
    source = "of small J" if frozenset(prompts[race.winner]) in small else "drawn at random"
    return found, (
        f"the best of {len(prompts)} prompts, of small J and drawn, by what {reader.name} answers to held-out examples "
        f"of the pool, {source}: {best}; that of least J {fmean(first):.3f} on the first {len(first)}",
    )


def _orders(sets: Sequence[list[int]], settings: Settings) -> list[list[int]]:
    """Each set in its order and, unless that is a fixed rule, in a random one; each prompt once, the first first."""
    draw = random.Random(settings.seed)
    free = settings.k == "auto" or settings.budget is not None  # else k is what was asked for
    whole = [rows for rows in sets if free or len(rows) == len(sets[0])]
    shuffled = [draw.sample(rows, len(rows)) for rows in whole] if isinstance(settings.reading, ByObjective) else []
    return [list(rows) for rows in dict.fromkeys(tuple(rows) for rows in [*whole, *shuffled])]
