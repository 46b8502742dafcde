"""The prefix: prompts that begin alike, against J by brute force in float64 from raw points."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from kdprompt import (
    AgreementLast,
    ByObjective,
    DistillationSelector,
    LikeliestLast,
    NearestFirst,
    NearestLast,
    ObjectiveWeights,
    PoolError,
    Query,
    QueryError,
    Quota,
    Selection,
)
from kdprompt.search.constraints import Constraints
from kdprompt.search.position_profiles import Recency, Uniform
from kdprompt.search.search import cut_path, greedy_search, refine_by_swaps
from kdprompt.theory.kernels import Gaussian
from support import RandomProblems, kappa, make_settings

TEMPERATURE, SHARE = RandomProblems.TEMPERATURE, RandomProblems.OUTPUT_SHARE
WIDTH, N = 5, 14
PENALTIES = ObjectiveWeights(1.0, 0.1, 0.4)
OUTPUTS = ("red", "green", "blue")


def uniform(k):
    return [1 / k] * k


def recency(k, decay=0.8):
    raw = [decay**age for age in reversed(range(k))]
    return [value / sum(raw) for value in raw]


# -- the search: raw problems -------------------------------------------------------------------------------------


class World(RandomProblems):
    """Problems with 9 candidates, and J of a set by its definition."""

    def __init__(self, seed, device, dtype, b=3, n=9, weights=PENALTIES):
        super().__init__(seed, device, dtype, b=b, n=n, weights=weights)
        self.objective = self.problem.objective
        self.slack = 1e-4 if dtype is torch.float32 else 1e-10

    def j(self, b, order):
        """J of an order under uniform weights, from its definition."""
        order = list(order)
        points = [(self.raw["x"][b, i], self.raw["v"][b, i]) for i in order]
        points += zip(self.raw["tx"][b], self.raw["tv"][b], strict=True)
        mass = self.mass[b]
        signed = [*uniform(len(order)), *(-mass)] if order else [*(-mass)]
        squared = sum(
            s * t * kappa(x, y, TEMPERATURE) * ((1 - SHARE) + SHARE * float(v @ w))
            for s, (x, v) in zip(signed, points, strict=True)
            for t, (y, w) in zip(signed, points, strict=True)
        )
        pulls = [kappa(x, self.raw["tx"][b, 0], TEMPERATURE) for x, _ in points[: len(order)]]
        gaps = [math.dist(v, self.raw["tv"][b, 0]) for _, v in points[: len(order)]]
        conflict = sum(p * g for p, g in zip(pulls, gaps, strict=True)) / sum(pulls)
        p = self.weights
        return (
            p.bias * math.sqrt(max(squared, 0))
            + p.complexity * math.sqrt(3 / len(order))
            + p.interference * self.raw["support"][b, 0] * conflict
        )

    def rules(self, fixed):
        """Members of the prefix are not chosen once more, as ``Candidates.with_prefix`` says."""
        valid = torch.ones(self.b, self.n, dtype=torch.bool, device=self.device)
        valid[:, :fixed] = False
        same = torch.eye(self.n, dtype=torch.bool, device=self.device).expand(self.b, -1, -1)
        return Constraints(valid=valid, duplicate=same)


@pytest.mark.parametrize("fixed", [1, 2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_greedy_adds_the_best_behind_the_prefix(seed, fixed, device, dtype):
    world = World(seed, device, dtype)
    path = greedy_search(world.objective, world.rules(fixed), fixed + 2, fixed)
    assert path.fixed == fixed and path.totals.shape == path.satisfied.shape == path.rounding.shape == (3, 3)
    for b, row in enumerate(path.chosen.tolist()):
        assert row[:fixed] == list(range(fixed))
        for step in range(3):
            assert path.totals[b, step].item() == pytest.approx(world.j(b, row[: fixed + step]), abs=world.slack)
        for size in (fixed, fixed + 1):
            free = [i for i in range(fixed, world.n) if i not in row[:size]]
            least = min(world.j(b, [*row[:size], i]) for i in free)
            assert world.j(b, row[: size + 1]) <= least + world.slack


@pytest.mark.parametrize("seed", range(4))
def test_refinement_leaves_the_prefix_and_no_swap_of_the_tail_is_better(seed, device, dtype):
    world, fixed = World(seed, device, dtype), 2
    rules = world.rules(fixed)
    worst = torch.tensor([[0, 1, 8, -1, 7]] * 3, device=device)  # a bad start, with a pad inside
    for start in (greedy_search(world.objective, rules, 4, fixed).chosen, worst):
        refined = refine_by_swaps(world.objective, rules, start, fixed)
        assert ((refined < 0) == (start < 0)).all()
        for b, row in enumerate(refined.tolist()):
            before, after = ([i for i in r if i >= 0] for r in (start[b].tolist(), row))
            assert after[:2] == [0, 1] and len(set(after)) == len(after)
            assert world.j(b, after) <= world.j(b, before) + world.slack
            for slot in (2, 3):
                for i in set(range(2, world.n)) - set(after):
                    swapped = [*after[:slot], i, *after[slot + 1 :]]
                    assert world.j(b, swapped) >= world.j(b, after) - world.slack


def test_the_tail_is_the_best_of_all_tails_on_nearly_all_problems(device):
    world = World(7, device, torch.float64, b=60)
    rules = world.rules(2)
    found = refine_by_swaps(world.objective, rules, greedy_search(world.objective, rules, 4, 2).chosen, 2).tolist()
    gaps = []
    for b, row in enumerate(found):
        optimum = min(world.j(b, [0, 1, *tail]) for tail in combinations(range(2, world.n), 2))
        gaps.append(world.j(b, row) / optimum - 1)
        assert gaps[-1] >= -1e-10
    assert np.mean(np.array(gaps) <= 0.01) >= 0.95


@pytest.mark.parametrize(
    ("penalties", "sizes"), [((1.0, 0.0, 0.0), None), ((0.0, 0.0, 1.0), None), ((1.0, 50.0, 0.0), {4})]
)
def test_the_best_prefix_begins_at_the_prefix(penalties, sizes, device, dtype):
    """R3 falls with length: a large weight on it asks for all of them."""
    world, seen = World(1, device, dtype, b=12, weights=ObjectiveWeights(*penalties)), set()
    path = greedy_search(world.objective, world.rules(2), 6, 2)
    for b, row in enumerate(cut_path(path).tolist()):
        size = sum(i >= 0 for i in row)
        values = [world.j(b, path.chosen[b, :s].tolist()) for s in range(2, 7)]
        assert row[:2] == [0, 1] and values[size - 2] <= min(values) + world.slack
        seen.add(size - 2)
    assert seen == sizes if sizes else len(seen) > 1


@pytest.mark.parametrize(
    "order",
    [NearestLast(), NearestFirst(), AgreementLast(), LikeliestLast(), ByObjective()],
    ids=lambda order: order.kind,
)
def test_an_order_moves_the_tail_alone_and_pads_stay_last(order, device, dtype):
    world = World(3, device, dtype)
    chosen = torch.tensor([[8, 2, 5, -1, 1, 7, -1], [0, 1, -1, -1, -1, -1, -1], [4, 3, 6, 0, 2, 8, 1]], device=device)
    for row, arranged in zip(chosen.tolist(), order.arrange(world.problem, chosen, 2).tolist(), strict=True):
        assert arranged[:2] == row[:2]
        assert sorted(arranged[2:], key=lambda i: i < 0) == arranged[2:]  # stable: pads are last
        assert sorted(arranged) == sorted(row)


# -- the selector -------------------------------------------------------------------------------------------------


class Known:
    """Vectors by a hash of the text; ``like`` gives some texts a vector near another's."""

    def __init__(self, device="cpu", dtype=torch.float64, like=None):
        self.device, self.dtype, self.like = device, dtype, like or {}

    def vector(self, text):
        base, away = self.like.get(text, (text, 0.0))
        noise = np.random.default_rng([1, *text.encode()]).normal(size=WIDTH)
        return np.random.default_rng(list(base.encode())).normal(size=WIDTH) + away * noise

    def embed_documents(self, texts):
        rows = np.array([self.vector(text) for text in texts])
        return torch.as_tensor(rows).to(self.device, self.dtype)

    def embed_query(self, text):
        return self.embed_documents([text])[0]


def record(i, **more):
    return {"id": f"e{i:02}", "input": f"text {i}", "output": OUTPUTS[i % 3], **more}


def selector(examples=None, embedder=None, **settings):
    """J is the MMD to the query alone and R3, so that the oracle is short."""
    pinned = {
        "k": 4,
        "kernel": Gaussian(TEMPERATURE),
        "output_share": 0.0,
        "neighbourhood": 0.0,
        "weights": ObjectiveWeights(1.0, 0.1, 0.0),
        "tolerance": 0.0,
        "near_duplicate": 2.0,
    }
    examples = [record(i) for i in range(N)] if examples is None else examples
    settings = make_settings(**{**pinned, **settings})
    return DistillationSelector.from_examples(examples, embedder or Known(), settings=settings)


class Oracle:
    """J of a prompt for a query, and greedy on it, from the texts."""

    def __init__(self, chooser):
        self.vectors = {d.id: self.unit(chooser, d.input) for d in chooser.pool}
        self.chooser = chooser
        self.slack = 1e-6 if chooser.embedder.dtype is torch.float32 else 1e-9

    @staticmethod
    def unit(chooser, text):
        row = chooser.embedder.embed_documents([text])[0].cpu().double().numpy()
        return row / np.linalg.norm(row)

    def j(self, query, ids, omega=None):
        q, x = self.unit(self.chooser, query), [self.vectors[i] for i in ids]
        w = omega or uniform(len(ids))
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x))]
        squared = sum(w[i] * w[j] * kappa(x[i], x[j], TEMPERATURE) for i, j in pairs) + 1
        squared -= 2 * sum(w[i] * kappa(x[i], q, TEMPERATURE) for i in range(len(x)))
        return math.sqrt(max(squared, 0)) + 0.1 * math.sqrt(3 * sum(value * value for value in w))

    def greedy(self, query, prefix, k, feasible=lambda ids: True):
        path = list(prefix)
        while len(path) < k:
            free = [i for i in self.vectors if i not in path and feasible([*path, i])]
            if not free:
                break
            path.append(min(free, key=lambda i: self.j(query, [*path, i])))
        return path

    def check(self, query, found, prefix, k, feasible=lambda ids: True):
        """The prefix first, J as reported, not larger than greedy's, and no feasible swap of the tail is better."""
        ids, total = list(found.ids), found.terms.total
        assert ids[: len(prefix)] == list(prefix) and found.prefix_length == len(prefix)
        assert len(set(ids)) == len(ids) and feasible(ids)
        assert total == pytest.approx(self.j(query, ids), abs=self.slack)
        path = self.greedy(query, prefix, k, feasible)
        assert len(ids) == len(path) and total <= self.j(query, path) + 1e-6
        for slot in range(len(prefix), len(ids)):
            for other in set(self.vectors) - set(ids):
                swapped = [*ids[:slot], other, *ids[slot + 1 :]]
                assert not feasible(swapped) or self.j(query, swapped) >= total - 1e-6


QUERIES = ["a query", "a second", "a third", "a fourth"]


@pytest.mark.parametrize("prefix", [["e07"], ["e09", "e02"], ["e11", "e00", "e05"]], ids=len)
def test_the_tail_is_chosen_given_the_prefix(prefix, device, dtype):
    k = len(prefix) + 2
    chooser = selector(embedder=Known(device, dtype), k=k)
    oracle = Oracle(chooser)
    for query in QUERIES:
        oracle.check(query, chooser.select(query, prefix=prefix), prefix, k)


def test_swaps_of_the_tail_improve_on_greedy():
    """Some prompts of many: greedy is not always the best that swaps can reach."""
    prefix, chooser = ["e09"], selector(k=4)
    oracle = Oracle(chooser)
    queries = [f"query {i}" for i in range(60)]
    falls = []
    for query, found in zip(queries, chooser.select_batch(queries, prefix=prefix), strict=True):
        oracle.check(query, found, prefix, 4)
        falls.append(oracle.j(query, oracle.greedy(query, prefix, 4)) - found.terms.total)
    assert sum(fall > 1e-4 for fall in falls) >= 3


def test_a_prefix_of_all_k_leaves_nothing_to_choose():
    prefix = ["e09", "e02", "e04", "e00"]
    found = selector().select("a query", prefix=prefix)
    assert list(found.ids) == prefix and found.prefix_length == 4 and found.cacheable_share == 1.0 and found.notes == ()


def test_without_a_prefix_nothing_is_shared():
    chooser = selector()
    plain = chooser.select("a query")
    assert plain == chooser.select("a query", prefix=[]) == chooser.select("a query", prefix=None)
    assert (plain.prefix_length, plain.prefix_tokens, plain.cacheable_share) == (0, 0, 0.0)


def test_the_tail_repeats_neither_the_prefix_nor_what_is_nearly_it():
    """The query lies on a member of the prefix, so that its copies are the best that could be added."""
    near = {"a query": ("text 3", 0.05), "text 6": ("text 3", 0.02), "text 8": ("text 3", 0.03)}
    banned = selector(embedder=Known(like=near), near_duplicate=0.95)
    free = selector(embedder=Known(like=near), near_duplicate=2.0)
    assert set(free.select("a query", prefix=["e03"]).ids) & {"e06", "e08"}  # what the ban prevents
    found = banned.select("a query", prefix=["e03"])
    assert found.ids.count("e03") == 1 and not set(found.ids) & {"e06", "e08"} and len(found) == 4


def test_the_same_text_with_another_output_is_no_company_for_the_prefix():
    examples = [*(record(i) for i in range(N)), {"id": "again", "input": "Text  3", "output": "pink"}]
    chooser = selector(examples, Known(like={"a query": ("Text  3", 0.01)}))
    assert "again" in chooser.select("a query").ids
    assert "again" not in chooser.select("a query", prefix=["e03"]).ids


def test_an_id_that_repeats_another_example_stands_for_it():
    examples = [*(record(i) for i in range(N)), {**record(3), "id": "z"}]
    assert selector(examples).select("a query", prefix=["z"]).ids[0] == "e03"


@pytest.mark.parametrize(
    ("quota", "prefix"),
    [
        (Quota(most=2), ["e00", "e03"]),  # both red
        (Quota(most={"red": 1}), ["e06"]),
        (Quota(least={"green": 2}), ["e01", "e00"]),
        (Quota(least={"green": 2, "blue": 1}), ["e06"]),
        (Quota(most=2, least=1), ["e00", "e03"]),
    ],
)
def test_quotas_count_the_prefix(quota, prefix):
    chooser = selector(quota=quota, shortlist=6)
    wide = selector(quota=quota)
    oracle = Oracle(wide)
    output = {d.id: d.output for d in wide.pool}

    def limit(value, name, free):
        return value.get(name, free) if isinstance(value, dict) else free if value is None else value

    def feasible(ids):
        counts = [sum(output[i] == name for i in ids) for name in OUTPUTS]
        most, least = ([limit(v, n, f) for n in OUTPUTS] for v, f in ((quota.most, 99), (quota.least, 0)))
        missing = sum(max(low - count, 0) for low, count in zip(least, counts, strict=True))
        return all(c <= m for c, m in zip(counts, most, strict=True)) and missing <= 4 - len(ids)

    for query in QUERIES:
        oracle.check(query, wide.select(query, prefix=prefix), prefix, 4, feasible)
        assert feasible(list(chooser.select(query, prefix=prefix).ids))


def words(text):
    return len(text.split())


@pytest.mark.parametrize("room", [0, 7, 12, 14, 100])
def test_the_budget_counts_the_prefix(room):
    examples = [record(i) | {"input": f"text {i}" + " more" * (i % 5)} for i in range(N)]
    prefix = ["e03", "e04"]
    costs = {e["id"]: words(f"Input: {e['input']} Output: {e['output']}") for e in examples}
    budget = sum(costs[i] for i in prefix) + room
    chooser = selector(examples, budget=budget, count_tokens=words)

    def fits(ids):
        return sum(costs[i] for i in ids) <= budget

    for query in QUERIES:
        found = chooser.select(query, prefix=prefix)
        Oracle(chooser).check(query, found, prefix, 4, fits)
        assert found.tokens == sum(costs[i] for i in found.ids) <= budget
        assert found.prefix_tokens == sum(costs[i] for i in prefix)
        assert found.cacheable_share == found.prefix_tokens / found.tokens
    assert bool(found.notes) == (len(found) < 4)


def test_a_prefix_beyond_the_budget_is_refused():
    chooser = selector(budget=11, count_tokens=words)
    assert len(chooser.select("a query", prefix=["e00"])) == 2
    with pytest.raises(QueryError, match=r"prefix takes 15 tokens, more than the budget of 11"):
        chooser.select("a query", prefix=["e00", "e01", "e02"])


def test_task_and_outputs_restrict_the_tail_alone():
    examples = [record(i, task=("left", "right")[i % 2]) for i in range(N)]
    found = selector(examples, k=3).select("a query", task="left", outputs=["blue", "green"], prefix=["e03"])
    prefix, *tail = found.demonstrations
    assert (prefix.task, prefix.output) == ("right", "red")
    assert len(tail) == 2 and all(d.task == "left" and d.output in ("blue", "green") for d in tail)


@pytest.mark.parametrize(("fixed", "k"), [(1, 5), (2, 6), (3, 4)])
def test_the_tail_stands_in_its_best_order(fixed, k, device):
    prefix = ["e08", "e01", "e05"][:fixed]
    chooser = selector(embedder=Known(device), k=k, order=ByObjective(Recency(0.8)))
    oracle = Oracle(chooser)
    for query in QUERIES:
        found = chooser.select(query, prefix=prefix)
        assert list(found.ids[:fixed]) == prefix
        orders = [[*prefix, *tail] for tail in permutations(found.ids[fixed:])]
        values = [oracle.j(query, order, recency(k)) for order in orders]
        assert found.terms.total == pytest.approx(oracle.j(query, found.ids, recency(k)), abs=1e-9)
        assert found.terms.total <= min(values) + 1e-6
        assert [chosen.weight for chosen in found.chosen] == pytest.approx(recency(k))


def test_of_a_long_tail_no_exchange_is_better():
    prefix, k = ["e08", "e01"], 11
    chooser = selector(k=k, order=ByObjective(Recency(0.8)))
    oracle = Oracle(chooser)
    found = chooser.select("a query", prefix=prefix)
    ids = list(found.ids)
    assert ids[:2] == prefix and len(set(ids)) == k
    for i, j in combinations(range(2, k), 2):
        swapped = ids.copy()
        swapped[i], swapped[j] = ids[j], ids[i]
        assert oracle.j("a query", swapped, recency(k)) >= found.terms.total - 1e-6


@pytest.mark.parametrize("order", [NearestLast(Uniform()), NearestFirst(Uniform())], ids=lambda order: order.kind)
def test_the_plain_orders_sort_the_tail_alone(order):
    prefix = ["e08", "e01", "e05"]
    chooser = selector(k=6, order=order)
    oracle = Oracle(chooser)
    for query in QUERIES:
        ids = chooser.select(query, prefix=prefix).ids
        near = [kappa(oracle.vectors[i], oracle.unit(chooser, query), TEMPERATURE) for i in ids[3:]]
        assert list(ids[:3]) == prefix
        assert near == sorted(near, reverse=order.kind == "nearest_first")


def test_auto_may_add_nothing():
    """The prefix is the query's own vector: whatever joins it leads away."""
    chooser = selector(
        k="auto", k_max=5, weights=ObjectiveWeights(1.0, 0.0, 0.0), embedder=Known(like={"a query": ("text 4", 0.0)})
    )
    found = chooser.select("a query", prefix=["e04"])
    assert found.ids == ("e04",) and found.cacheable_share == 1.0 and found.notes == ()
    assert len(chooser.select("a second", prefix=["e04"])) > 1


@pytest.mark.parametrize("prefix", [["e04"], ["e04", "e10", "e02"]], ids=len)
def test_auto_counts_from_the_prefix(prefix):
    chooser = selector(k="auto", k_max=6)
    oracle = Oracle(chooser)
    for query in QUERIES:
        found = chooser.select(query, prefix=prefix)
        path = oracle.greedy(query, prefix, 6)
        values = [oracle.j(query, path[:size]) for size in range(len(prefix), 7)]
        assert list(found.ids[: len(prefix)]) == prefix
        assert len(found) == len(prefix) + int(np.argmin(values))
        assert found.terms.total <= min(values) + 1e-6


@pytest.mark.parametrize("settings", [{"k": 2}, {"k": "auto", "k_max": 2}], ids=str)
def test_a_prefix_larger_than_k_is_refused(settings):
    with pytest.raises(QueryError, match="the prefix must hold at most k = 2 demonstrations, got 3"):
        selector(**settings).select("a query", prefix=["e00", "e01", "e02"])


@pytest.mark.parametrize(
    ("prefix", "error", "says"),
    [
        (["e00", "nowhere"], PoolError, "no example with the id 'nowhere'"),
        ("e00", QueryError, "prefix must be a selection or several ids, got the text 'e00'; wrap it in a list"),
        (["e00", "e01", "e00"], QueryError, r"prefix holds the example 'e00' twice"),
        (["e03", "z"], QueryError, r"prefix holds the example 'e03' twice"),
    ],
)
def test_a_prefix_that_cannot_be_meant_is_refused(prefix, error, says):
    chooser = selector([*(record(i) for i in range(N)), {**record(3), "id": "z"}])
    with pytest.raises(error, match=says):
        chooser.select("a query", prefix=prefix)
    with pytest.raises(error, match=says):
        chooser.select_batch(QUERIES, prefix=prefix)


def test_a_prefix_whose_example_was_removed_is_refused():
    chooser = selector()
    prefix = chooser.select_static(k=2)
    chooser.remove(prefix.ids[1])
    with pytest.raises(PoolError, match=f"no example with the id '{prefix.ids[1]}'"):
        chooser.select("a query", prefix=prefix)


def test_a_batch_is_its_queries_one_by_one(device, dtype):
    chooser = selector(embedder=Known(device, dtype), k=5, order=ByObjective(), weights=PENALTIES, output_share=0.5)
    prefix = ["e08", "e01"]
    queries = [*QUERIES, Query(text="a fifth", outputs=frozenset({"red"}))]
    together = chooser.select_batch(queries, prefix=prefix)
    alone = [chooser.select(query, prefix=prefix) for query in queries]
    assert [s.ids for s in together] == [s.ids for s in alone]
    assert [s.terms.total for s in together] == pytest.approx([s.terms.total for s in alone], abs=1e-9)
    assert {s.ids[:2] for s in together} == {("e08", "e01")} and len({s.ids for s in together}) > 1
    assert {s.prefix_tokens for s in together} == {together[0].prefix_tokens} != {0}


# -- the static prefix ----------------------------------------------------------------------------------------------


def test_a_static_selection_is_a_prefix_as_its_ids_are():
    chooser = selector(k=5)
    prefix = chooser.select_static(QUERIES, k=2)
    assert len(prefix) == 2 and prefix.query is None and chooser.settings.k == 5
    assert prefix == selector(k=2).select_static(QUERIES)
    for query in QUERIES:
        found = chooser.select(query, prefix=prefix)
        assert found == chooser.select(query, prefix=list(prefix.ids))
        assert found.ids[:2] == prefix.ids and len(found) == 5 and found.prefix_tokens == prefix.tokens > 0
        assert found.cacheable_share == prefix.tokens / found.tokens
    assert Selection.model_validate_json(found.model_dump_json()) == found


def test_prompts_with_one_prefix_begin_with_the_same_text():
    chooser = selector(k=4)
    prefix = chooser.select_static(k=2)
    texts = [chooser.select(query, prefix=prefix).to_text() for query in QUERIES]
    shared = prefix.to_text(query="").removesuffix("Input: \nOutput:")
    assert len(shared) > 40 and all(text.startswith(shared) for text in texts)
    assert [text.endswith(f"Input: {query}\nOutput:") for text, query in zip(texts, QUERIES, strict=True)] == [True] * 4
    messages = [chooser.select(query, prefix=prefix).to_messages(system="say") for query in QUERIES]
    assert all(m[:5] == prefix.to_messages("x", system="say")[:5] and len(m) == 10 for m in messages)


def test_a_static_selection_needs_the_input_that_is_to_be_answered():
    static = selector().select_static(k=1)
    for write in (static.to_text, static.to_messages):
        with pytest.raises(QueryError, match="give the input that the model is to answer: query="):
            write()
    assert static.to_text(query="now").endswith("Input: now\nOutput:")


def test_a_static_k_that_the_pool_cannot_give_is_refused():
    with pytest.raises(PoolError, match=rf"distinct examples in the pool \({N}\), got 15"):
        selector().select_static(k=15)
    with pytest.raises(ValidationError, match="k"):
        selector().select_static(k=-1)
    assert len(selector().select_static(k=0)) == 0


# -- what it says -------------------------------------------------------------------------------------------------


def test_a_prefix_that_shows_the_query_itself_is_noted():
    chooser = selector()
    (note,) = chooser.select("  TEXT 3", prefix=["e01", "e03"]).notes
    assert note.startswith("the prefix shows the query itself")
    assert chooser.select("text 2", prefix=["e01", "e03"]).notes == ()
    assert "e03" not in chooser.select("text 3", prefix=["e01"]).ids


@pytest.mark.parametrize("order", [NearestLast(), ByObjective()], ids=lambda order: order.kind)
def test_the_numbers_still_sum(order):
    tagged = [record(i, task=("left", "right")[i % 2]) for i in range(N)]
    chooser = selector(tagged, k=5, order=order, weights=PENALTIES, output_share=0.5, neighbourhood=0.5)
    for found in chooser.select_batch(QUERIES, prefix=["e08", "e01"]):
        after, parts = found.terms, found.chosen
        assert sum(c.gain for c in parts) == pytest.approx(found.empty_terms.total - after.total, abs=1e-9)
        assert sum(c.weight for c in parts) == pytest.approx(1) == sum(c.attention for c in parts)
        assert sum(c.interference for c in parts) == pytest.approx(after.interference, abs=1e-9)
        assert found.cross_task + found.label_conflict == pytest.approx(after.interference, abs=1e-9)
        weighed = after.bias + 0.1 * after.complexity + 0.4 * after.interference
        assert after.total == pytest.approx(weighed, abs=1e-9)
        assert after.interference > 0
