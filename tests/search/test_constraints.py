"""What may be chosen, against plain Python that looks at each candidate of each set alone."""

import numpy as np
import pytest
import torch

from kdprompt.search.constraints import Constraints
from kdprompt.search.exchange import draw_sets, replace_member

B, CANDIDATES, GROUPS, PLACES = 6, 7, 3, 4
LIMITS = pytest.mark.parametrize("limits", ["none", "budget", "quotas", "both"])
SEEDS = pytest.mark.parametrize("seed", range(12))


class Rules:
    """Random rules, as numbers of Python; ``constraints`` are the same as tensors."""

    def __init__(self, seed, limits):
        rng = np.random.default_rng(seed)
        pairs = rng.random((B, CANDIDATES, CANDIDATES)) < 0.12
        self.duplicate = pairs | pairs.transpose(0, 2, 1) | np.eye(CANDIDATES, dtype=bool)
        self.valid = rng.random((B, CANDIDATES)) < 0.85
        self.cost = rng.integers(1, 6, size=(B, CANDIDATES)) if limits in ("budget", "both") else None
        self.budget = int(rng.integers(6, 14))
        self.group = rng.integers(-1, GROUPS, size=(B, CANDIDATES)) if limits in ("quotas", "both") else None
        self.least = rng.integers(0, 2, size=GROUPS)
        self.most = self.least + rng.integers(0, 3, size=GROUPS)
        self.left = rng.integers(0, 4, size=B)
        self.keys = rng.permuted(np.tile(np.arange(CANDIDATES) - 3.5, (B, 1)), axis=1)
        self.chosen = np.full((B, PLACES), -1)
        for row in self.chosen:  # pads may stand anywhere
            size = rng.integers(0, PLACES + 1)
            row[rng.permutation(PLACES)[:size]] = rng.permutation(CANDIDATES)[:size]

    def constraints(self, device):
        def tensor(values):
            return None if values is None else torch.as_tensor(values, device=device)

        quotas = {} if self.group is None else {"most": tensor(self.most), "least": tensor(self.least)}
        return Constraints(
            tensor(self.valid), tensor(self.duplicate), tensor(self.cost), self.budget, tensor(self.group), **quotas
        )

    def counts(self, b, members):
        return [sum(self.group[b][m] == g for m in members) for g in range(GROUPS)]

    def may_join(self, b, members, left, candidate):
        """Whether a candidate may join the members when so many places are free."""
        if left <= 0 or not self.valid[b][candidate] or any(self.duplicate[b][m][candidate] for m in members):
            return False
        if self.cost is not None and sum(self.cost[b][m] for m in [*members, candidate]) > self.budget:
            return False
        if self.group is None:
            return True
        counts, own = self.counts(b, members), self.group[b][candidate]
        if own >= 0 and counts[own] >= self.most[own]:
            return False
        missing = [max(0, int(least) - count) for least, count in zip(self.least, counts, strict=True)]
        return sum(missing) == 0 or sum(missing) < left or (own >= 0 and missing[own] > 0)

    def best(self, b, members, left, but=None):
        """The candidate with the largest key that may join, −1 where there is none."""
        free = [c for c in range(CANDIDATES) if c != but and self.may_join(b, members, left, c)]
        return max(free, key=lambda c: self.keys[b][c], default=-1)


def members_of(row):
    return [int(member) for member in row if member >= 0]


@LIMITS
@SEEDS
def test_addable_and_open_are_those_of_each_candidate_alone(seed, limits, device):
    rules = Rules(seed, limits)
    constraints, chosen = rules.constraints(device), torch.as_tensor(rules.chosen, device=device)
    addable = constraints.addable(chosen, torch.as_tensor(rules.left, device=device)).tolist()
    open_to = constraints.open_to(chosen).tolist()
    for b in range(B):
        members, left = members_of(rules.chosen[b]), rules.left[b]
        assert addable[b] == [rules.may_join(b, members, left, c) for c in range(CANDIDATES)]
        repeated = [any(rules.duplicate[b][m][c] for m in members) for c in range(CANDIDATES)]
        assert open_to[b] == [bool(rules.valid[b][c]) and not repeated[c] for c in range(CANDIDATES)]
    assert torch.equal(constraints.open_to(chosen[:, :0]), constraints.valid)


@LIMITS
@SEEDS
def test_replaceable_are_those_that_may_join_the_others(seed, limits, device):
    rules = Rules(seed, limits)
    constraints, chosen = rules.constraints(device), torch.as_tensor(rules.chosen, device=device)
    for places in (slice(0, PLACES), slice(1, 3), slice(PLACES - 1, PLACES)):
        found = constraints.replaceable(chosen, places).tolist()
        for b in range(B):
            for row, place in zip(found[b], range(*places.indices(PLACES)), strict=True):
                others = members_of(np.delete(rules.chosen[b], place))
                is_member = rules.chosen[b][place] >= 0
                assert row == [is_member and rules.may_join(b, others, 1, c) for c in range(CANDIDATES)]


@SEEDS
def test_members_are_counted_and_quotas_met(seed, device):
    rules = Rules(seed, "quotas")
    constraints, chosen = rules.constraints(device), torch.as_tensor(rules.chosen, device=device)
    counts = [rules.counts(b, members_of(row)) for b, row in enumerate(rules.chosen)]
    assert constraints.counts(chosen).tolist() == counts
    assert constraints.counts(chosen[:, None].expand(-1, 2, -1)).tolist() == [[row, row] for row in counts]
    met = [all(count >= least for count, least in zip(row, rules.least, strict=True)) for row in counts]
    assert constraints.satisfied(chosen).tolist() == met
    assert Rules(seed, "budget").constraints(device).satisfied(chosen).tolist() == [True] * B


@LIMITS
@SEEDS
def test_sets_are_drawn_and_members_replaced_by_the_largest_key_that_may_join(seed, limits, device):
    rules = Rules(seed, limits)
    constraints, keys = rules.constraints(device), torch.as_tensor(rules.keys, device=device)
    drawn = draw_sets(constraints, PLACES, keys).tolist()
    chosen = torch.as_tensor(rules.chosen, device=device)
    for b in range(B):
        row = []
        for _ in range(PLACES):
            row.append(rules.best(b, members_of(row), PLACES - len(members_of(row))))
        assert drawn[b] == row
    for place in range(PLACES):
        replaced = replace_member(constraints, chosen, place, keys).tolist()
        for b, row in enumerate(rules.chosen.tolist()):
            others = members_of(row[:place] + row[place + 1 :])
            newcomer = rules.best(b, others, 1, but=row[place]) if row[place] >= 0 else -1
            expected = newcomer if newcomer >= 0 else row[place]
            assert replaced[b] == [*row[:place], expected, *row[place + 1 :]]
    assert chosen.tolist() == rules.chosen.tolist()


@LIMITS
def test_a_part_of_the_problems_has_its_own_rules(limits, device):
    rules = Rules(3, limits)
    constraints, chosen = rules.constraints(device), torch.as_tensor(rules.chosen, device=device)
    left, keep = torch.as_tensor(rules.left, device=device), torch.tensor([4, 1], device=device)
    assert torch.equal(
        constraints.subset(keep).addable(chosen[keep], left[keep]), constraints.addable(chosen, left)[keep]
    )
    assert constraints.has_limits == (limits != "none")
