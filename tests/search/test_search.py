"""Greedy and swaps against J by brute force: explicit double sums in float64 from raw points, over all choices."""

import math
from functools import cache, cached_property
from itertools import combinations

import numpy as np
import pytest
import torch

from kdprompt.objective.changed_sets import sum_swaps
from kdprompt.objective.gram import compute_gram_blocks
from kdprompt.objective.objective import Objective
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.target import Target
from kdprompt.search import search
from kdprompt.search.constraints import Constraints
from kdprompt.search.exchange import draw_sets, replace_member
from kdprompt.search.search import cut_path, first_minimum, greedy_search, refine_by_swaps
from kdprompt.theory.kernels import Gaussian
from support import at_most, kappa


@pytest.fixture(autouse=True)
def an_end():
    """A search that does not end fails its test, and does not hang the others."""
    with at_most(60):
        yield


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Problem:
    """Raw data of one realistic problem: clustered unit vectors, one-hot outputs, a query with its neighbourhood."""

    def __init__(self, seed, n, dtype=torch.float64, penalties=None):
        rng = np.random.default_rng(seed)
        centres = unit(rng.normal(size=(3, 8)))
        cluster = rng.integers(3, size=n)
        x = unit(centres[cluster] + rng.uniform(0.1, 0.3) * rng.normal(size=(n, 8)))
        flipped = rng.random(n) < 0.15
        v = np.eye(3)[np.where(flipped, rng.integers(3, size=n), cluster)]
        q = unit(centres[rng.integers(3)] + 0.2 * rng.normal(size=8))
        self.temperature, self.share = rng.uniform(0.1, 1.0), rng.random()
        self.penalties = penalties or ObjectiveWeights(1.0, rng.uniform(0, 0.1), rng.random())
        self.eta = rng.choice([0.0, 0.5, rng.random()])
        self.x, self.v, q = (torch.as_tensor(a).to(dtype).double().numpy() for a in (x, v, q))  # as the package sees it
        self._estimate(q)

    def _estimate(self, q):
        """The target: q and all candidates, outputs by kernel regression with a prior that counts for a mass of ½."""
        n = len(self.x)
        pulls = np.array([kappa(q, a, self.temperature) for a in self.x])
        among = np.array([[kappa(a, b, self.temperature) for b in self.x] for a in self.x])
        np.fill_diagonal(among, 0)  # leave-one-out
        prior = self.v.mean(0)
        value = (pulls @ self.v + prior / 2) / (pulls.sum() + 0.5)
        others = (among @ self.v + prior / 2) / (among.sum(1, keepdims=True) + 0.5)
        self.tx, self.tv = np.vstack([q, self.x]), np.vstack([value, others])
        self.own, self.nearby = np.eye(n + 1)[0], np.array([0.0, *(pulls / pulls.sum())])
        self.support = pulls.sum() / (pulls.sum() + 0.5)

    @cached_property
    def mass(self):
        return (1 - self.eta) * self.own + self.eta * self.nearby

    @cached_property
    def gram(self):
        """κ⊗ among candidates and target points, by a double loop."""
        points = [*zip(self.x, self.v, strict=True), *zip(self.tx, self.tv, strict=True)]
        return np.array(
            [
                [kappa(a, b, self.temperature) * ((1 - self.share) + self.share * float(v @ w)) for b, w in points]
                for a, v in points
            ]
        )

    @cached_property
    def pulls(self):
        """κ(x_i, q) and ‖v_i − v̂(q)‖ of every candidate."""
        kappas = [kappa(a, self.tx[0], self.temperature) for a in self.x]
        return np.array([kappas, [math.dist(v, self.tv[0]) for v in self.v]])

    def j(self, members):
        """J of a set ``[k]``, or of many ``[..., k]``: ‖Σ s_z κ⊗(z, ·)‖ of the signed measure D − Q, R3 and R6."""
        members, n = np.asarray(members, dtype=int), len(self.x)
        k = members.shape[-1]
        signed = np.zeros((*members.shape[:-1], n + len(self.mass)))
        signed[..., n:] = -self.mass
        np.put_along_axis(signed, members, 1 / max(k, 1), -1)
        bias = np.sqrt(np.einsum("...i,ij,...j", signed, self.gram, signed).clip(0))
        if k == 0:
            return self.penalties.bias * bias + self.penalties.interference * self.support * np.linalg.norm(self.tv[0])
        pulls, gaps = self.pulls[:, members]
        interference = self.support * (pulls * gaps).sum(-1) / pulls.sum(-1)
        complexity = math.sqrt(3 / k)
        p = self.penalties
        return p.bias * bias + p.complexity * complexity + p.interference * interference


def objective_of(problems, device, dtype):
    """One batch of problems that share ρ, penalties and temperature with the first."""
    lead = problems[0]

    def held(name):
        return torch.as_tensor(np.array([getattr(p, name) for p in problems]), device=device, dtype=dtype)

    support = held("support")[:, None]
    task = torch.full_like(support, -1, dtype=torch.long)
    target = Target(held("tx"), held("tv"), held("own"), held("nearby"), support, task, 1, lead.eta)
    parts = compute_gram_blocks(Gaussian(lead.temperature), held("x"), held("v"), target, 1.0)
    return Objective.build(parts, lead.share, lead.penalties)


def batch(seed, n, device, dtype, b=3, penalties=None):
    problems = [Problem(1000 * seed + i, n, dtype, penalties) for i in range(b)]
    for problem in problems[1:]:
        for name in ("temperature", "share", "penalties", "eta"):
            setattr(problem, name, getattr(problems[0], name))
    return problems, objective_of(problems, device, dtype)


def rules(b, n, device, **limits):
    """Constraints of one kind for all problems; nothing is forbidden but a candidate twice, unless said."""
    held = {
        "valid": np.ones((b, n), dtype=bool),
        "duplicate": np.tile(np.eye(n, dtype=bool), (b, 1, 1)),
        **{name: value for name, value in limits.items() if name != "budget"},
    }
    tensors = {name: torch.as_tensor(value, device=device) for name, value in held.items()}
    return Constraints(**tensors, budget=limits.get("budget", 0))


def members(row):
    return [i for i in row.tolist() if i >= 0]


def tolerance(dtype):
    return 1e-4 if dtype is torch.float32 else 1e-10


def assert_greedy(problems, path, k, feasible, dtype):
    """Each step joins the feasible candidate with the smallest J; −1 where there is none."""
    for b, (problem, row) in enumerate(zip(problems, path.chosen.tolist(), strict=True)):
        chosen = []
        assert path.totals[b, 0].item() == pytest.approx(problem.j([]), abs=tolerance(dtype))
        for step in range(k):
            values = {i: problem.j([*chosen, i]) for i in range(len(problem.x)) if feasible(b, chosen, i)}
            if not values:
                assert row[step:] == [-1] * (k - step)
                assert path.totals[b, step + 1 :].tolist() == [math.inf] * (k - step)
                break
            assert values[row[step]] <= min(values.values()) + tolerance(dtype)
            assert path.totals[b, step + 1].item() == pytest.approx(values[row[step]], abs=tolerance(dtype))
            chosen.append(row[step])


def swaps(chosen, n):
    """All sets that differ from ``chosen`` in one member, with what stays and what joins."""
    for slot in range(len(chosen)):
        rest = chosen[:slot] + chosen[slot + 1 :]
        for i in range(n):
            yield rest, i


def assert_refined(problems, before, after, feasible, dtype):
    """Never worse, of the same size, and no feasible swap is better."""
    for b, problem in enumerate(problems):
        start, chosen = members(before[b]), members(after[b])
        assert len(set(chosen)) == len(start)
        assert problem.j(chosen) <= problem.j(start) + tolerance(dtype)
        for rest, i in swaps(chosen, len(problem.x)):
            if feasible(b, rest, i):
                assert problem.j([*rest, i]) >= problem.j(chosen) - tolerance(dtype)


def anew(b, chosen, i):
    """Feasible without limits: not in the set yet."""
    return i not in chosen


@pytest.mark.parametrize("cells", [1, 150, 10**6])
def test_no_pass_over_places_holds_more_than_it_may_and_how_many_there_are_changes_nothing(
    cells, monkeypatch, device, dtype
):
    objective = batch(17, 12, device, dtype)[1]
    constraints = rules(3, 12, device)
    start = torch.arange(5, device=device).expand(3, -1)
    expected = refine_by_swaps(objective, constraints, start)
    asked = []

    def sum_places(part, chosen, places):
        asked.append((len(chosen) * 12 * 2, places))
        return sum_swaps(part, chosen, places)

    monkeypatch.setattr(search, "PASS", cells)
    monkeypatch.setattr(search, "sum_swaps", sum_places)
    assert refine_by_swaps(objective, constraints, start).tolist() == expected.tolist()
    assert expected.tolist() != start.tolist()
    for each, places in asked:
        size = places.stop - places.start
        assert size == 1 or size * each <= cells  # as many as fit, and one at least
        assert (size + 1) * each > cells
    assert {place for _, places in asked for place in range(places.start, min(places.stop, 5))} == set(range(5))


def test_a_member_that_is_the_first_candidate_is_swapped_too(device, dtype):
    problems, objective = batch(18, 8, device, dtype)
    found = refine_by_swaps(objective, rules(3, 8, device), torch.zeros(3, 1, dtype=torch.long, device=device))
    for problem, row in zip(problems, found.tolist(), strict=True):
        values = [float(problem.j([i])) for i in range(8)]
        assert values[row[0]] == pytest.approx(min(values), abs=tolerance(dtype))


@pytest.mark.parametrize("b", [1, 3])
def test_the_first_of_equally_small_values_is_found_in_each_row(b, device):
    values = torch.tensor([[3.0, 1.0, 1.0 + 1e-9, 0.999]] * b, device=device)
    least, place = first_minimum(values, torch.full_like(values, 1e-2))
    assert least.tolist() == [1.0] * b and place.tolist() == [1] * b


@pytest.mark.parametrize("seed", range(5))
def test_each_greedy_step_is_the_exhaustive_argmin_of_j(seed, device, dtype):
    problems, objective = batch(seed, 10, device, dtype)
    path = greedy_search(objective, rules(3, 10, device), 5)
    assert_greedy(problems, path, 5, anew, dtype)
    assert path.satisfied.all()


@pytest.mark.parametrize("seed", range(5))
def test_refined_sets_are_never_worse_and_no_swap_improves_them(seed, device, dtype):
    problems, objective = batch(seed, 10, device, dtype)
    limits = rules(3, 10, device)
    chosen = greedy_search(objective, limits, 4).chosen
    assert_refined(problems, chosen, refine_by_swaps(objective, limits, chosen), anew, dtype)
    worst = torch.tensor([[9, 8, -1, 7]] * 3, device=device)  # a bad start, with a pad inside
    refined = refine_by_swaps(objective, limits, worst)
    assert_refined(problems, worst, refined, anew, dtype)
    assert (refined[:, 2] == -1).all()


@cache
def solved(seed):
    """A problem with 12 candidates and the smallest J of all their sets of 4."""
    problem = Problem(seed, 12)
    return problem, problem.j(list(combinations(range(12), 4))).min()


def test_within_one_percent_of_the_exhaustive_optimum_on_95_of_100_realistic_problems(device, dtype):
    limits, gaps = rules(1, 12, device), []
    for problem, optimum in map(solved, range(200)):
        objective = objective_of([problem], device, dtype)
        chosen = refine_by_swaps(objective, limits, greedy_search(objective, limits, 4).chosen)
        gaps.append(problem.j(members(chosen[0])) / optimum - 1)
    within = np.mean(np.array(gaps) <= 0.01)
    worst = ", ".join(f"{100 * gap:.2f} %" for gap in sorted(gaps)[:-11:-1])
    assert within >= 0.95, f"{100 * within:.1f} % of problems within 1 %; the largest gaps are {worst}"


@pytest.mark.parametrize("seed", range(5))
def test_budget_is_never_exceeded_and_what_does_not_fit_is_skipped(seed, device, dtype):
    problems, objective = batch(seed, 10, device, dtype)
    cost = np.random.default_rng(seed).integers(1, 30, size=(3, 10))
    limits = rules(3, 10, device, cost=cost, budget=50)

    def fits(b, chosen, i):
        return i not in chosen and sum(cost[b][[*chosen, i]]) <= 50

    path = greedy_search(objective, limits, 6)
    assert_greedy(problems, path, 6, fits, dtype)
    refined = refine_by_swaps(objective, limits, path.chosen)
    assert_refined(problems, path.chosen, refined, fits, dtype)
    for b in range(3):
        assert sum(cost[b][members(refined[b])]) <= 50


def test_search_goes_on_after_the_best_candidate_did_not_fit(device, dtype):
    problems, objective = batch(0, 8, device, dtype, b=1)
    best = min(range(8), key=lambda i: problems[0].j([i]))
    cost = np.ones((1, 8), dtype=int)
    cost[0, best] = 100
    chosen = members(greedy_search(objective, rules(1, 8, device, cost=cost, budget=3), 5).chosen[0])
    assert len(chosen) == 3
    assert best not in chosen
    assert members(greedy_search(objective, rules(1, 8, device, cost=cost, budget=0), 5).chosen[0]) == []


@pytest.mark.parametrize("seed", range(8))
def test_quotas_are_kept_by_greedy_and_by_swaps(seed, device, dtype):
    problems, objective = batch(seed, 12, device, dtype)
    rng = np.random.default_rng(seed)
    group = np.array([rng.permutation([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, -1, -1]) for _ in range(3)])
    most, least = np.array([1, 3, 2]), np.array([0, 2, 1])
    limits = rules(3, 12, device, group=group, most=most, least=least)

    def counts(b, chosen):
        return np.array([sum(group[b][i] == code for i in chosen) for code in range(3)])

    def kept(b, chosen, i):
        """At most ``most``, and ``least`` still within reach of 5 places."""
        after = counts(b, [*chosen, i])
        missing = np.maximum(least - after, 0).sum()
        return i not in chosen and (after <= most).all() and missing <= 5 - len(chosen) - 1

    path = greedy_search(objective, limits, 5)
    assert_greedy(problems, path, 5, kept, dtype)
    refined = refine_by_swaps(objective, limits, path.chosen)
    assert_refined(problems, path.chosen, refined, kept, dtype)
    for b in range(3):
        for chosen in (path.chosen[b], refined[b]):
            assert (counts(b, members(chosen)) <= most).all()
            assert (counts(b, members(chosen)) >= least).all()
        for size in range(6):
            inside = counts(b, members(path.chosen[b, :size]))
            assert path.satisfied[b, size].item() == (inside >= least).all()


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_are_never_together(seed, device, dtype):
    problems, objective = batch(seed, 10, device, dtype)
    pairs = np.random.default_rng(seed).random((3, 10, 10)) < 0.25
    pairs = pairs | pairs.transpose(0, 2, 1) | np.eye(10, dtype=bool)
    limits = rules(3, 10, device, duplicate=pairs)

    def apart(b, chosen, i):
        return not pairs[b][i][[*chosen]].any() and i not in chosen

    path = greedy_search(objective, limits, 6)
    assert_greedy(problems, path, 6, apart, dtype)
    refined = refine_by_swaps(objective, limits, path.chosen)
    assert_refined(problems, path.chosen, refined, apart, dtype)
    for b in range(3):
        assert not any(pairs[b, i, j] for i, j in combinations(members(refined[b]), 2))


@pytest.mark.parametrize("seed", range(5))
def test_invalid_candidates_are_never_chosen(seed, device, dtype):
    problems, objective = batch(seed, 10, device, dtype)
    valid = np.random.default_rng(seed).random((3, 10)) < 0.5

    def allowed(b, chosen, i):
        return valid[b, i] and i not in chosen

    limits = rules(3, 10, device, valid=valid)
    path = greedy_search(objective, limits, 4)
    assert_greedy(problems, path, 4, allowed, dtype)
    assert_refined(problems, path.chosen, refine_by_swaps(objective, limits, path.chosen), allowed, dtype)


@pytest.mark.parametrize("seed", range(5))
def test_ties_go_to_the_lowest_index_and_are_deterministic(seed, device, dtype):
    problem = Problem(seed, 6, dtype)
    problem.x, problem.v = np.tile(problem.x, (2, 1)), np.tile(problem.v, (2, 1))  # i and i + 6 are the same
    objective = objective_of([problem], device, dtype)
    chosen = members(greedy_search(objective, rules(1, 12, device), 5).chosen[0])
    for place, i in enumerate(chosen):
        assert i < 6 or i - 6 in chosen[:place]
    assert members(greedy_search(objective, rules(1, 12, device), 5).chosen[0]) == chosen


def copies(b, n, device, dtype, *, k=None):
    """Problems whose sets of k have MMD 0: the target is one point and all candidates are it, or it is k of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(b, 1, 6)).repeat(n, 1) if k is None else rng.normal(size=(b, n, 6))
    x = torch.as_tensor(unit(x), device=device, dtype=dtype)
    v, at = torch.ones_like(x[..., :1]), k or 1
    uniform = torch.full((b, at), 1 / at, device=device, dtype=dtype)
    task = torch.full_like(uniform, -1, dtype=torch.long)
    target = Target(x[:, :at], v[:, :at], uniform, uniform, torch.ones_like(uniform), task, at)
    return Objective.build(compute_gram_blocks(Gaussian(0.3), x, v, target, 1.0), 0.5, ObjectiveWeights())


def test_ties_at_mmd_zero_go_to_the_lowest_index(device, dtype):
    path = greedy_search(copies(50, 9, device, dtype), rules(50, 9, device), 5)
    assert path.chosen.tolist() == [[0, 1, 2, 3, 4]] * 50
    assert cut_path(path).tolist() == [[0, -1, -1, -1, -1]] * 50


@pytest.mark.parametrize("k", [3, 4, 8])
def test_refinement_ends_where_only_rounding_is_left_of_the_mmd(k, device, dtype):
    for objective in (copies(40, 9, device, dtype), copies(40, 9, device, dtype, k=k)):
        start = torch.arange(k, device=device).expand(40, k)
        with at_most(5):
            refined = refine_by_swaps(objective, rules(40, 9, device), start)
        assert (refined == start).all()  # it is optimal already


@pytest.mark.parametrize("complexity", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_adaptive_prefix_minimises_j_over_the_prefixes(complexity, seed, device, dtype):
    problems, objective = batch(seed, 10, device, dtype, penalties=ObjectiveWeights(1.0, complexity, 0.3))
    path = greedy_search(objective, rules(3, 10, device), 6)
    for b, row in enumerate(cut_path(path)):
        values = [problems[b].j(members(path.chosen[b, :size])) for size in range(7)]
        assert row[: len(members(row))].tolist() == path.chosen[b, : len(members(row))].tolist()
        assert row[len(members(row)) :].tolist() == [-1] * (6 - len(members(row)))
        assert values[len(members(row))] <= min(values) + tolerance(dtype)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_adaptive_prefix_is_the_shortest_within_the_tolerance(share, seed, device, dtype):
    problems, objective = batch(seed, 10, device, dtype, penalties=ObjectiveWeights(1.0, 0.0, 0.3))
    path = greedy_search(objective, rules(3, 10, device), 6)
    shortest = cut_path(path)
    for b, row in enumerate(cut_path(path, share)):
        values = [problems[b].j(members(path.chosen[b, :size])) for size in range(7)]
        limit = min(values) + share * (values[0] - min(values))
        size = len(members(row))
        assert values[size] <= limit + tolerance(dtype)
        assert all(value > limit - tolerance(dtype) for value in values[:size])
        assert size <= len(members(shortest[b])) and (share < 1 or size == 0)


@pytest.mark.parametrize("fixed", [1, 2, 3])
@pytest.mark.parametrize("complexity", [0.0, 0.05, 5.0])
def test_what_was_given_is_kept_whatever_the_adaptive_length(complexity, fixed, device, dtype):
    problems, objective = batch(19, 12, device, dtype, penalties=ObjectiveWeights(1.0, complexity, 0.3))
    path = greedy_search(objective, rules(3, 12, device), 7, fixed)
    for problem, whole, kept in zip(problems, path.chosen.tolist(), cut_path(path).tolist(), strict=True):
        assert whole[:fixed] == list(range(fixed))
        values = {size: float(problem.j(whole[:size])) for size in range(fixed, 8)}
        size = len([i for i in kept if i >= 0])
        assert size >= fixed and kept == whole[:size] + [-1] * (7 - size)
        assert values[size] <= min(values.values()) + tolerance(dtype)


def test_adaptive_prefix_may_be_empty(device, dtype):
    _, objective = batch(0, 10, device, dtype, penalties=ObjectiveWeights(1.0, 50.0, 0.0))
    assert cut_path(greedy_search(objective, rules(3, 10, device), 4)).tolist() == [[-1] * 4] * 3


@pytest.mark.parametrize("seed", range(4))
def test_adaptive_prefix_meets_the_quotas_minima_before_it_minimises_j(seed, device, dtype):
    problems, objective = batch(
        seed, 9, device, dtype, penalties=ObjectiveWeights(1.0, 5.0, 0.0)
    )  # alone it would be empty
    group = np.tile(np.arange(9) % 3, (3, 1))
    limits = rules(3, 9, device, group=group, most=np.array([9, 9, 9]), least=np.array([1, 0, 2]))
    path = greedy_search(objective, limits, 5)
    for b, row in enumerate(cut_path(path)):
        codes = [i % 3 for i in members(row)]
        assert codes.count(0) >= 1
        assert codes.count(2) >= 2
        prefixes = [members(path.chosen[b, :size]) for size in range(6)]
        enough = [p for p in prefixes if sum(i % 3 == 0 for i in p) >= 1 and sum(i % 3 == 2 for i in p) >= 2]
        assert problems[b].j(members(row)) <= min(map(problems[b].j, enough)) + tolerance(dtype)


def test_what_is_infeasible_is_padded(device, dtype):
    _, objective = batch(0, 4, device, dtype)
    all_of_them = greedy_search(objective, rules(3, 4, device), 7)
    assert [sorted(row) for row in all_of_them.chosen.tolist()] == [[-1, -1, -1, 0, 1, 2, 3]] * 3
    assert (all_of_them.chosen[:, 4:] == -1).all()
    assert all_of_them.totals.isfinite().tolist() == [[True] * 5 + [False] * 3] * 3
    nothing = rules(3, 4, device, valid=np.zeros((3, 4), dtype=bool))
    path = greedy_search(objective, nothing, 2)
    assert path.chosen.tolist() == cut_path(path).tolist() == [[-1, -1]] * 3
    assert refine_by_swaps(objective, nothing, path.chosen).tolist() == [[-1, -1]] * 3


def test_no_places_give_no_demonstrations(device, dtype):
    problems, objective = batch(0, 4, device, dtype)
    path = greedy_search(objective, rules(3, 4, device), 0)
    assert (
        path.chosen.shape == cut_path(path).shape == refine_by_swaps(objective, rules(3, 4, device), path.chosen).shape
    )
    assert path.totals.tolist() == [[pytest.approx(problem.j([]), abs=tolerance(dtype))] for problem in problems]


@pytest.mark.parametrize("seed", range(5))
def test_permuting_the_pool_permutes_the_answer(seed, device, dtype):
    problem, moved = Problem(seed, 10, dtype), Problem(seed, 10, dtype)
    order = np.random.default_rng(seed).permutation(10)
    moved.x, moved.v = problem.x[order], problem.v[order]
    limits, answers = rules(1, 10, device), []
    for each in (problem, moved):
        objective = objective_of([each], device, dtype)
        answers.append(members(refine_by_swaps(objective, limits, greedy_search(objective, limits, 4).chosen)[0]))
    assert [order[i] for i in answers[1]] == answers[0]


def test_a_batch_is_its_problems_one_by_one(device, dtype):
    _, objective = batch(3, 10, device, dtype, b=6)
    limits = rules(6, 10, device)
    together = refine_by_swaps(objective, limits, greedy_search(objective, limits, 4).chosen)
    for b in range(6):
        one = torch.tensor([b], device=device)
        alone = greedy_search(objective.subset(one), limits.subset(one), 4).chosen
        assert (
            refine_by_swaps(objective.subset(one), limits.subset(one), alone).tolist() == together[b : b + 1].tolist()
        )


class Limits:
    """All limits at once, at random, and a plain check of one more member."""

    def __init__(self, seed, device):
        rng = np.random.default_rng(seed)
        self.keys = rng.random((3, 12))
        self.cost = rng.integers(1, 5, size=(3, 12))
        self.valid = rng.random((3, 12)) < 0.9
        pairs = rng.random((3, 12, 12)) < 0.1
        self.pairs = pairs | pairs.transpose(0, 2, 1) | np.eye(12, dtype=bool)
        self.group = np.array([rng.permutation([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, -1, -1]) for _ in range(3)])
        self.most, self.least = np.array([1, 3, 2]), np.array([0, 2, 1])
        self.rules = rules(
            3,
            12,
            device,
            valid=self.valid,
            duplicate=self.pairs,
            cost=self.cost,
            budget=14,
            group=self.group,
            most=self.most,
            least=self.least,
        )

    def feasible(self, b, chosen, left):
        """Candidates that may join when ``left`` places are free."""
        found = []
        for i in range(12):
            after = np.array([sum(self.group[b][j] == code for j in [*chosen, i]) for code in range(3)])
            if (
                self.valid[b][i]
                and not self.pairs[b][i][chosen].any()
                and i not in chosen
                and self.cost[b][[*chosen, i]].sum() <= 14
                and (after <= self.most).all()
                and np.maximum(self.least - after, 0).sum() <= left - 1
            ):
                found.append(i)
        return found


@pytest.mark.parametrize("seed", range(8))
def test_drawn_sets_join_the_feasible_candidate_with_the_largest_key(seed, device):
    limits = Limits(seed, device)
    found = draw_sets(limits.rules, 5, torch.as_tensor(limits.keys, device=device))
    for b in range(3):
        chosen = []
        while len(chosen) < 5 and (feasible := limits.feasible(b, chosen, 5 - len(chosen))):
            chosen.append(max(feasible, key=lambda i, b=b: limits.keys[b][i]))
        assert found[b].tolist() == chosen + [-1] * (5 - len(chosen))


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 7, 8, 9])
def test_an_exchanged_member_gives_way_to_the_feasible_candidate_with_the_largest_key(seed, device):
    limits = Limits(seed, device)
    before = draw_sets(limits.rules, 5, torch.as_tensor(limits.keys, device=device))
    keys = np.random.default_rng(100 + seed).random((3, 12))
    whole = limits.rules.satisfied(before).nonzero().squeeze(-1).tolist()
    assert whole
    for place in range(5):
        after = replace_member(limits.rules, before, place, torch.as_tensor(keys, device=device))
        for b in whole:
            expected = before[b].tolist()
            rest = [i for i in expected[:place] + expected[place + 1 :] if i >= 0]
            feasible = [i for i in limits.feasible(b, rest, 1) if i != expected[place]]
            if expected[place] >= 0 and feasible:
                expected[place] = max(feasible, key=lambda i, b=b: keys[b][i])
            assert after[b].tolist() == expected


def test_of_random_keys_every_set_is_drawn_equally_often(device):
    keys = torch.rand((4000, 5), generator=torch.Generator().manual_seed(0)).to(device)
    sets = draw_sets(rules(4000, 5, device), 2, keys).sort(-1).values.tolist()
    counts = [sets.count([i, j]) for i, j in combinations(range(5), 2)]
    assert sum(counts) == 4000 and all(abs(count - 400) < 4 * math.sqrt(4000 * 0.1 * 0.9) for count in counts)
