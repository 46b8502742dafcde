"""Sequential halving against a naive account of it, and how seldom it asks."""

import numpy as np
import pytest

from kdprompt.tuning.halving import sequential_halving


def naive(table, first):
    """The winner by the definition, with every loss at hand ``[candidates, examples]``."""
    alive, seen, size = list(range(len(table))), 0, first
    while len(alive) > 1 and seen < table.shape[1]:
        seen, size = min(seen + size, table.shape[1]), 2 * size
        means = [table[candidate, :seen].mean() for candidate in alive]
        ranked = [alive[i] for i in np.lexsort((alive, means))]
        alive = ranked[: (len(alive) + 1) // 2]
    return alive[0]


@pytest.mark.parametrize("seed", range(40))
def test_the_winner_is_the_one_that_the_definition_names(seed):
    rng = np.random.default_rng(seed)
    count, first, total = int(rng.integers(1, 40)), int(rng.integers(1, 9)), int(rng.integers(1, 200))
    table = rng.integers(0, 5, (count, total)) / 4
    race = sequential_halving(count, lambda i, part: table[i, part.start : part.stop], first=first, total=total)
    assert race.winner == naive(table, first)
    for candidate, losses in enumerate(race.losses):
        assert list(losses) == table[candidate, : len(losses)].tolist()


def test_all_rounds_cost_the_same_and_nothing_is_asked_twice():
    asked = []
    race = sequential_halving(
        32, lambda i, part: asked.append((i, part)) or [float(i)] * len(part), first=12, total=180
    )
    rounds = {}
    for _, part in asked:
        rounds[part] = rounds.get(part, 0) + len(part)
    assert rounds == {range(12): 384, range(12, 36): 384, range(36, 84): 384, range(84, 180): 384}
    assert race.winner == 0 and [len(losses) for losses in race.losses] == [180] * 4 + [84] * 4 + [36] * 8 + [12] * 16


def test_of_equal_candidates_the_first_wins_and_one_alone_is_not_tried():
    assert sequential_halving(5, lambda i, part: [1.0] * len(part), first=3, total=50).winner == 0
    alone = sequential_halving(1, lambda i, part: pytest.fail("there is nothing to compare"), first=3, total=50)
    assert alone.winner == 0 and alone.losses == ((),)


def test_it_finds_a_good_candidate_among_noise():
    rng = np.random.default_rng(0)
    tables = np.sort(rng.uniform(0.2, 1.2, (200, 32)))[..., None] + 0.5 * rng.normal(size=(200, 32, 180))

    def winner(table):
        return sequential_halving(32, lambda i, part: table[i, list(part)], first=12, total=180).winner

    assert sum(winner(table) < 3 for table in tables) > 170
