"""Packs of prompts against their definition: what each token sees, read back from the mask, is its own prompt."""

import random

import pytest

from kdprompt.readers.label_tree import LabelTree
from kdprompt.readers.packing import PackedPrompts, PackingRule, common_prefix_length, split_into_packs

LABELS = [[1, 2, 3], [1, 2], [1, 4], [5]]
PREFIXES = [(), (1,), (1, 2)]  # what stands before the tokens that some label goes on with


def draw_prompts(seed):
    """Prompts of few tokens, so that they begin alike in many ways; some begin with all of another."""
    rng = random.Random(seed)
    stem = [rng.randrange(3) for _ in range(rng.randrange(6))]
    return [stem + [rng.randrange(3) for _ in range(rng.randrange(1, 5))] for _ in range(rng.randrange(1, 5))]


@pytest.mark.parametrize("seed", range(40))
def test_every_token_sees_its_own_prompt_and_nothing_else(seed):
    prompts, tree = draw_prompts(seed), LabelTree.from_token_ids(LABELS)
    shared = common_prefix_length(prompts)
    for cached in range(min(shared, min(map(len, prompts)) - 1) + 1):
        packed = PackedPrompts.build(prompts, tree, cached=cached, shared=shared)
        token_ids = [*prompts[0][:cached], *packed.token_ids.tolist()]
        positions = [*range(cached), *packed.positions.tolist()]
        seen = []
        for mask in packed.attention_mask.tolist():
            keys = sorted((positions[j], token_ids[j]) for j, visible in enumerate(mask) if visible)
            assert [position for position, _ in keys] == list(range(len(keys)))  # each place once
            seen.append([token for _, token in keys])
        expected = [[*prompt, *prefix] for prompt in prompts for prefix in PREFIXES]
        assert [seen[position] for position in packed.logit_positions.tolist()] == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_common_prefix_is_what_all_begin_with(seed):
    prompts = draw_prompts(seed)
    naive = 0
    while all(len(prompt) > naive and prompt[naive] == prompts[0][naive] for prompt in prompts):
        naive += 1
    assert common_prefix_length(prompts) == naive


@pytest.mark.parametrize("needs_common_prefix", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_a_pack_ends_where_the_next_prompt_does_not_fit(seed, needs_common_prefix):
    prompts = [prompt for i in range(6) for prompt in draw_prompts(100 * seed + i)]
    packs = list(split_into_packs(prompts, label_tokens=2, rule=PackingRule(14, needs_common_prefix)))
    assert [i for pack in packs for i in pack] == list(range(len(prompts)))

    def fits(members):
        shared = common_prefix_length(members)
        alike = 2 * shared >= min(map(len, members)) or not needs_common_prefix
        return alike and sum(len(member) - shared + 2 for member in members) <= 14

    for pack in packs:
        members = [prompts[i] for i in pack]
        assert len(members) == 1 or fits(members)
        assert pack.stop == len(prompts) or not fits([*members, prompts[pack.stop]])
    assert list(split_into_packs([], label_tokens=2, rule=PackingRule(14, needs_common_prefix))) == []
