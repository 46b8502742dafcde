"""A pool in shards chooses what the whole pool chooses. The shards stand in this process; test_ray_cluster has Ray."""

import zlib

import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector, Quota, SearchSettings, Settings
from kdprompt.distributed.shard import PoolShard, ShardPlan
from kdprompt.distributed.sharded_search import ShardedSearch
from kdprompt.selection.pool_part import PoolFrame, PoolRows
from kdprompt.selection.traffic import TrafficRequest

LETTERS = "abc"


def embed(texts):
    """Vectors of 16 dimensions that depend on the text alone; copies of a text differ in nothing."""
    rows = []
    for text in texts:
        noise = torch.randn(16, generator=torch.Generator().manual_seed(zlib.crc32(text.removesuffix(" ").encode())))
        centre = torch.zeros(16)
        centre[LETTERS.find(text[0]) + 1] = 3.0
        rows.append(noise + centre)
    return torch.stack(rows)


def make_selector(embedder=embed, size=240, **settings):
    examples = [
        {
            "input": f"{LETTERS[i % 3]} example {i}",
            "output": f"{LETTERS[(i * i) % 3]}",
            "task": ("left", "right")[i % 2],
        }
        for i in range(size)
    ]
    settings = Settings(**{"k": 6, **settings})
    return DistillationSelector.from_examples(examples, CallableEmbedder(embedder), settings=settings)


def make_queries(count=60):
    return [f"{LETTERS[i % 3]} query {i}" for i in range(count)]


@pytest.mark.parametrize("outputs", ["labels", "text"])
def test_a_pool_of_some_rows_has_the_codes_and_sums_of_the_whole(outputs):
    pool = make_selector(outputs=outputs)._pool
    rows = PoolRows.join([PoolRows.take(pool, [7, 3, 200]), PoolRows.take(pool, [3, 11])])
    part = PoolFrame.of(pool).embed(rows)
    assert [part.demonstration(row).id for row in range(4)] == [pool.demonstration(row).id for row in (3, 7, 11, 200)]
    for name in ("x", "v", "label", "task"):
        assert torch.equal(getattr(part.tensors, name), getattr(pool.tensors, name)[[3, 7, 11, 200]])
    assert part.tensors.priors.equal(pool.tensors.priors) and part.tensors.labels == pool.tensors.labels
    assert part.tensors.ridge(0.1).weights.equal(pool.tensors.ridge(0.1).weights)
    assert torch.equal(part.vectors, embed([shown.input for shown in part.pool]))


def search_in_shards(selector, shards=3):
    """The search over shards that stand in this process."""
    plan, parts = ShardPlan.lay_out(selector, shards)
    there = [PoolShard(plan, part) for part in parts]
    return ShardedSearch(plan, lambda method, *arguments: [getattr(shard, method)(*arguments) for shard in there])


def ids_of(selections):
    return [selection.ids for selection in selections]


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"quota": Quota(least={"a": 2}, most=3)}, {}),
        ({"budget": 40}, {"task": "left"}),
        ({"k": "auto"}, {"outputs": ("a", "c")}),
        ({"search": SearchSettings(shortlist=8)}, {}),
        ({"search": SearchSettings(min_similarity=0.7)}, {}),
        ({"outputs": "text"}, {}),
        ({"outputs": "text", "search": SearchSettings(lexical_share=0.3)}, {}),
    ],
    ids=["plain", "quota", "budget and task", "auto and outputs", "short lists", "floor", "text", "words"],
)
@pytest.mark.parametrize("shards", [1, 3])
def test_shards_choose_what_the_whole_pool_chooses(settings, options, shards):
    selector, queries = make_selector(**settings), make_queries()
    expected = ids_of(selector.select_batch(queries, **options))
    assert ids_of(search_in_shards(selector, shards).choose(queries, **options)) == expected


def test_where_the_nearest_are_copies_the_shards_look_as_far_as_the_whole_pool_does():
    """Sixty inputs differ by blanks, which the embedder does not see, so a shortlist of 8 holds one example."""
    copies = [{"input": f"a copy{' ' * i}.", "output": "a"} for i in range(60)]
    others = [{"input": f"{LETTERS[i % 3]} example {i}", "output": "b"} for i in range(60)]
    embedder = CallableEmbedder(lambda texts: embed([text.replace(" ", "") for text in texts]))
    settings = Settings(k=4, search=SearchSettings(shortlist=8))
    selector = DistillationSelector.from_examples(copies + others, embedder, settings=settings)
    queries = ["a copy .", *make_queries(6)]
    expected = ids_of(selector.select_batch(queries))
    assert len(expected[0]) == 4
    assert ids_of(search_in_shards(selector).choose(queries)) == expected


def test_a_pool_with_gaps_is_laid_out_without_them():
    selector = make_selector()
    selector.remove([shown.id for shown in selector.pool][10:60])
    selector.add_examples([{"input": f"b late {i}", "output": "a", "task": "left"} for i in range(20)])
    queries = make_queries()
    assert ids_of(search_in_shards(selector).choose(queries)) == ids_of(selector.select_batch(queries))


@pytest.mark.parametrize("weights", [{}, {"objective": {"weights": {"bias": 1.0}}}], ids=["default", "MMD alone"])
def test_one_prompt_of_two_rounds_is_at_most_five_percent_worse(weights):
    selector, queries = make_selector(**weights), make_queries()
    plan_queries = DistillationSelector.from_examples(
        selector.pool, CallableEmbedder(embed), queries=queries, settings=selector.settings
    )
    alone = selector.select_static(queries)
    merged = search_in_shards(selector).choose_static(plan_queries._traffic, TrafficRequest())
    assert len(merged.ids) == len(alone.ids)
    assert merged.terms.total <= alone.terms.total * 1.05
