"""R7: orders against J of every permutation by brute force, in float64 from raw points; profiles and plain orders."""

import math
import re
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.target import Target
from kdprompt.objective.weighted_sets import weighted_terms
from kdprompt.search.order_names import ORDERS as ORDERS_BY_NAME
from kdprompt.search.order_names import order_by_name
from kdprompt.search.ordering import (
    AgreementLast,
    ByObjective,
    EvidenceLast,
    LikeliestLast,
    NearestFirst,
    NearestLast,
)
from kdprompt.search.position_profiles import MeasuredProfile, PrimacyRecency, Recency, Uniform
from kdprompt.settings import Settings
from kdprompt.theory.kernels import Gaussian
from support import RandomProblems, at_most, build_ordering_problem, kappa

TEMPERATURE, SHARE = RandomProblems.TEMPERATURE, RandomProblems.OUTPUT_SHARE
PENALTIES = ObjectiveWeights(1.0, 0.1, 0.4)


@pytest.fixture(autouse=True)
def an_end():
    """A search that does not end fails its test, and does not hang the others."""
    with at_most(60):
        yield


class World(RandomProblems):
    """Problems with 12 candidates, and J by its definition."""

    def __init__(self, seed, device, dtype, b=2, n=12, weights=PENALTIES):
        super().__init__(seed, device, dtype, b=b, n=n, weights=weights)

    def nearness(self, b, i):
        return self.kappa(self.raw["x"][b, i], self.raw["tx"][b, 0])

    def gram(self, b, members):
        """κ⊗ among the members and the target points, by a double loop."""
        x, v = (np.vstack([self.raw[s][b, members], self.raw[t][b]]) for s, t in (("x", "tx"), ("v", "tv")))
        return np.array(
            [
                [self.kappa(a, c) * ((1 - SHARE) + SHARE * float(p @ q)) for c, q in zip(x, v, strict=True)]
                for a, p in zip(x, v, strict=True)
            ]
        )

    def values(self, b, members, weightings):
        """J of the members under each of the weightings ``[P, k]``, from its definition."""
        members, weightings = list(members), np.asarray(weightings)
        signed = np.hstack([weightings, np.tile(-self.mass[b], (len(weightings), 1))])
        bias = np.sqrt(np.einsum("pi,ij,pj->p", signed, self.gram(b, members), signed).clip(0))
        complexity = np.sqrt(3 * (weightings**2).sum(1))  # radius and κ(x, x) are 1
        near = np.array([self.nearness(b, i) for i in members])
        gaps = np.array([math.dist(self.raw["v"][b, i], self.raw["tv"][b, 0]) for i in members])
        attention = weightings * near / (weightings * near).sum(1, keepdims=True)
        interference = self.raw["support"][b, 0] * (attention * gaps).sum(1)
        p = PENALTIES
        return p.bias * bias + p.complexity * complexity + p.interference * interference

    def j(self, b, order, omega):
        """J of an order: its first member has the weight ω_1."""
        return float(self.values(b, order, [omega])[0])

    def least(self, b, members, omega):
        """The smallest J of all orders."""
        return self.values(b, members, list(permutations(omega))).min()


def index(rows, device):
    return torch.tensor(rows, device=device)


def draw(seed, k, b=2, n=12):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n)[:k].tolist() for _ in range(b)]


def recency(k, decay):
    raw = [decay**age for age in reversed(range(k))]
    return [value / sum(raw) for value in raw]


def ends(k):
    raw = [0.5 * 0.7**i + 0.7 ** (k - 1 - i) for i in range(k)]
    return [value / sum(raw) for value in raw]


def custom(k):
    measured = [0.1, 0.0, 0.3, 0.6]
    padded = [measured[0]] * max(k - len(measured), 0) + measured
    tail = padded[len(padded) - k :]
    return [w / sum(tail) for w in tail]


PROFILES = {
    "recency": (Recency(0.6), lambda k: recency(k, 0.6)),
    "ends": (PrimacyRecency(0.5, 0.7), ends),
    "custom": (MeasuredProfile((0.1, 0.0, 0.3, 0.6)), custom),
}
every_profile = pytest.mark.parametrize(("profile", "textbook"), PROFILES.values(), ids=PROFILES)


def tolerance(dtype):
    return 1e-4 if dtype is torch.float32 else 1e-10


@every_profile
@pytest.mark.parametrize("k", [1, 2, 5, 6, 7])
def test_to_seven_by_objective_is_the_best_of_all_orders(profile, textbook, k, device, dtype):
    world, chosen = World(35, device, dtype, b=16), draw(35, k, b=16)
    arranged = ByObjective(profile).arrange(world.problem, index(chosen, device)).tolist()
    for b in range(16):
        assert sorted(arranged[b]) == sorted(chosen[b])
        assert world.j(b, arranged[b], textbook(k)) <= world.least(b, chosen[b], textbook(k)) + tolerance(dtype)


@every_profile
@pytest.mark.parametrize("k", [8, 11])
@pytest.mark.parametrize("seed", range(2))
def test_beyond_seven_no_pair_swap_improves_and_nearest_last_is_not_better(profile, textbook, k, seed, device, dtype):
    world, chosen = World(seed, device, dtype), draw(seed, k)
    arranged = ByObjective(profile).arrange(world.problem, index(chosen, device)).tolist()
    for b in range(2):
        assert sorted(arranged[b]) == sorted(chosen[b])
        value = world.j(b, arranged[b], textbook(k))
        start = sorted(chosen[b], key=lambda i: world.nearness(b, i))
        assert value <= world.j(b, start, textbook(k)) + tolerance(dtype)
        swapped = []
        for i, j in combinations(range(k), 2):  # to swap two members is to swap their weights
            swapped.append(list(textbook(k)))
            swapped[-1][i], swapped[-1][j] = swapped[-1][j], swapped[-1][i]
        assert world.values(b, arranged[b], swapped).min() >= value - tolerance(dtype)


@every_profile
@pytest.mark.parametrize(("k", "fixed"), [(3, 2), (4, 1), (7, 3), (7, 2)])
def test_what_stands_first_stays_there_and_the_rest_is_ordered_around_it(profile, textbook, k, fixed, device, dtype):
    world, chosen = World(8, device, dtype, b=6), draw(8, k, b=6)
    arranged = ByObjective(profile).arrange(world.problem, index(chosen, device), fixed).tolist()
    for b in range(6):
        assert arranged[b][:fixed] == chosen[b][:fixed] and sorted(arranged[b]) == sorted(chosen[b])
        orders = [[*chosen[b][:fixed], *tail] for tail in permutations(chosen[b][fixed:])]
        least = min(world.j(b, order, textbook(k)) for order in orders)
        assert world.j(b, arranged[b], textbook(k)) <= least + tolerance(dtype)


@pytest.mark.parametrize("k", [1, 5, 9])
@pytest.mark.parametrize("seed", range(3))
def test_nearest_last_and_nearest_first_sort_by_the_kernel(k, seed, device, dtype):
    world, chosen = World(seed, device, dtype), draw(seed, k)
    rising = [sorted(row, key=lambda i: world.nearness(b, i)) for b, row in enumerate(chosen)]
    assert NearestLast().arrange(world.problem, index(chosen, device)).tolist() == rising
    falling = [row[::-1] for row in rising]
    assert NearestFirst().arrange(world.problem, index(chosen, device)).tolist() == falling


@pytest.mark.parametrize("seed", range(3))
def test_several_queries_are_near_by_their_weighted_mean(seed, device, dtype):
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(1, 8, 3)), rng.normal(size=(1, 4, 3))
    weights = rng.dirichlet(np.ones(4), size=1)
    held, at, own = (torch.as_tensor(a, device=device, dtype=dtype) for a in (x, q, weights))
    v, tv, task = torch.ones_like(held[..., :1]), torch.ones_like(at[..., :1]), torch.full((1, 4), -1, device=device)
    target = Target(at, tv, own, own, torch.ones_like(own), task, 4)
    problem = build_ordering_problem(Gaussian(TEMPERATURE), (held, v), target, 0.0, ObjectiveWeights())
    near = [sum(w * kappa(a, p, TEMPERATURE) for w, p in zip(weights[0], q[0], strict=True)) for a in x[0]]
    expected = sorted(range(8), key=lambda i: near[i])
    assert NearestLast().arrange(problem, torch.arange(8, device=device)[None]).tolist() == [expected]


def spread(members, output, likely):
    """Members (nearest last) as LikeliestLast puts them, in exact fractions."""
    groups = {o: [i for i in members if output(i) == o] for o in map(output, members)}
    ranked = sorted(groups, key=lambda o: (likely(o), len(groups[o]), members.index(groups[o][-1])))
    place = {}
    for rank, o in enumerate(ranked):
        for j, i in enumerate(groups[o]):
            shift = Fraction(rank, max(len(ranked) - 1, 1))
            place[i] = ((j + shift) / len(groups[o]), -rank)
    return sorted(members, key=place.__getitem__)


@pytest.mark.parametrize("k", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("seed", range(4))
def test_likeliest_last_equals_its_definition(k, seed, device, dtype):
    world, chosen, expected = World(seed, device, dtype), draw(seed, k), []
    for b, members in enumerate(chosen):
        output = world.raw["v"][b].argmax(-1)
        likely = world.raw["tv"][b, 0]
        near = sorted(members, key=lambda i: world.nearness(b, i))
        expected.append(spread(near, output.__getitem__, likely.__getitem__))
        ends = [likely[output[i]] for i in expected[-1]]
        assert ends[-1] == max(ends) and ends[0] == min(ends)
    assert LikeliestLast().arrange(world.problem, index(chosen, device)).tolist() == expected


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [("aaab", "baaa"), ("abab", "baba"), ("aabbbabb", "bbabbaba"), ("aabbabcc", "cbabcaba"), ("cba", "cba")],
)
def test_outputs_are_spread_and_the_likeliest_ends_the_prompt(outputs, expected, device, dtype):
    """a: 0.6, b: 0.3, c: 0.1."""
    size = len(outputs)
    x = torch.linspace(0.5, 1.0, size, device=device, dtype=dtype)[None, :, None]  # nearest last
    v = torch.eye(3, device=device, dtype=dtype)[["abc".index(o) for o in outputs]][None]
    likely = torch.tensor([[[0.6, 0.3, 0.1]]], device=device, dtype=dtype)
    own = torch.ones(1, 1, device=device, dtype=dtype)
    target = Target(torch.ones_like(x[:, :1]), likely, own, own, own, own.long(), 1)
    problem = build_ordering_problem(Gaussian(), (x, v), target, 0.5, ObjectiveWeights())
    arranged = LikeliestLast().arrange(problem, index([list(range(size))[::-1]], device))[0].tolist()
    assert "".join(outputs[i] for i in arranged) == expected
    for output in set(outputs):
        same = [i for i in arranged if outputs[i] == output]
        assert same == sorted(same), "equal outputs: nearest last"


@pytest.mark.parametrize("likely", [(0.25, 0.25, 0.25, 0.25), (0.4, 0.4, 0.1, 0.1), (0.1, 0.2, 0.2, 0.5)])
@pytest.mark.parametrize("k", [5, 9])
def test_of_equally_likely_outputs_the_commoner_and_then_the_nearer_comes_last(likely, k, device, dtype):
    b, rng = 60, np.random.default_rng(k)
    outputs = rng.integers(4, size=(b, k))
    x = torch.linspace(0.5, 1.0, k, device=device, dtype=dtype)[None, :, None].expand(b, -1, -1)  # nearest last
    v = torch.eye(4, device=device, dtype=dtype)[torch.as_tensor(outputs, device=device)]
    estimate = torch.tensor(likely, device=device, dtype=dtype).expand(b, 1, 4)
    own = torch.ones(b, 1, device=device, dtype=dtype)
    target = Target(torch.ones_like(x[:, :1]), estimate, own, own, own, own.long(), 1)
    problem = build_ordering_problem(Gaussian(), (x, v), target, 0.5, ObjectiveWeights())
    arranged = LikeliestLast().arrange(problem, torch.arange(k, device=device).expand(b, -1)).tolist()
    for row, found in zip(outputs, arranged, strict=True):
        assert found == spread(list(range(k)), row.__getitem__, likely.__getitem__)


def test_free_texts_stand_by_their_agreement_with_the_estimate(device, dtype):
    world = World(2, device, dtype)
    angles = torch.linspace(0.0, 3.0, 12, device=device, dtype=dtype)
    v = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], -1).expand(2, -1, -1)
    target = replace(world.target, v=v[:, [4] * 4])
    problem = build_ordering_problem(Gaussian(), (world.x, v), target, SHARE, PENALTIES)
    arranged = LikeliestLast().arrange(problem, index([[0, 4, 9, 2, 11]] * 2, device)).tolist()
    assert arranged == [[11, 9, 0, 2, 4]] * 2


def texts(world, seed):
    """A world whose outputs are points on a sphere, none of them equal, and these in float64."""
    v = np.random.default_rng(seed).normal(size=(*world.x.shape[:2], 5))
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    outputs = torch.as_tensor(v).to(world.x)
    target = replace(world.target, v=outputs[:, :4])
    return v, build_ordering_problem(Gaussian(TEMPERATURE), (world.x, outputs), target, SHARE, PENALTIES)


def agreements(world, b, members, v):
    """⟨v_i, f̄_S(q)⟩ of each member, by its formula."""
    pull = np.array([world.nearness(b, i) for i in members])
    return v[b, members] @ (pull / pull.sum() @ v[b, members])


@pytest.mark.parametrize("who", ["the prompt", "the pool"])
@pytest.mark.parametrize("fixed", [0, 2])
@pytest.mark.parametrize("k", [1, 2, 5, 9])
@pytest.mark.parametrize("seed", range(3))
def test_agreement_rises_with_what_the_pool_says_of_the_queries_or_else_the_whole_prompt(
    seed, k, fixed, who, device, dtype
):
    world, chosen = World(seed, device, dtype), draw(seed, k)
    v, problem = texts(world, seed)
    target = problem.outputs.target
    expected = np.random.default_rng(seed + 9).normal(size=(2, target.queries, 5))
    if who == "the pool":
        target = replace(target, expected=torch.as_tensor(expected))  # float64 on the CPU
        problem = replace(problem, outputs=replace(problem.outputs, target=target))
    arranged = AgreementLast().arrange(problem, index(chosen, device), min(fixed, k)).tolist()
    for b, members in enumerate(chosen):
        assert arranged[b][:fixed] == members[:fixed] and sorted(arranged[b]) == sorted(members)
        by_prompt = agreements(world, b, arranged[b], v)[fixed:]  # of all members, the fixed ones among them
        by_pool = (v[b, arranged[b]] @ (world.raw["query_mass"][b][: target.queries] @ expected[b]))[fixed:]
        rising, other = (by_pool, by_prompt) if who == "the pool" else (by_prompt, by_pool)
        assert (np.diff(rising) > -1e-3).all()
        assert len(rising) < 5 or not (np.diff(other) > -1e-3).all()


@pytest.mark.parametrize("seed", range(3))
def test_of_all_orders_agreement_last_keeps_most_of_what_the_set_says(seed, device, dtype):
    world, chosen, omega = World(seed, device, dtype), draw(seed, 6), np.array(Recency(0.7).weights(6))
    v, problem = texts(world, seed)
    for b, row in enumerate(AgreementLast().arrange(problem, index(chosen, device)).tolist()):
        of = dict(zip(chosen[b], agreements(world, b, chosen[b], v), strict=True))
        best = max(float(omega @ [of[i] for i in order]) for order in permutations(chosen[b]))
        assert float(omega @ [of[i] for i in row]) >= best - 1e-3


def test_the_commonest_of_forms_comes_last_and_of_equal_outputs_the_nearest(device, dtype):
    x = torch.linspace(0.0, 1.0, 6, device=device, dtype=dtype)[None, :, None]  # nearest last
    forms = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])[None].to(x)
    forms[0, 3] = torch.tensor([0.6, 0.8])  # between the two
    own = torch.ones(1, 1, device=device, dtype=dtype)
    target = Target(torch.ones_like(x[:, :1]), forms[:, :1], own, own, own, own.long(), 1)
    problem = build_ordering_problem(Gaussian(100.0), (x, forms), target, 0.5, ObjectiveWeights())
    assert AgreementLast().arrange(problem, index([[5, 4, 3, 2, 1, 0]], device)).tolist() == [[1, 5, 0, 2, 4, 3]]


def on_a_line(places, outputs, queries, kernel):
    """Candidates on a line with outputs A, B, C, and queries of equal mass."""
    x = torch.tensor(places)[None, :, None]
    v = torch.eye(3)[["ABC".index(output) for output in outputs]][None]
    q = torch.tensor(queries)[None, :, None]
    mass, own = torch.full_like(q[..., 0], 1 / len(queries)), torch.ones_like(q[..., 0])
    target = Target(q, v[:, :1].expand(-1, len(queries), -1), mass, mass, own, own.long(), len(queries))
    return build_ordering_problem(kernel, (x, v), target, 0.5, ObjectiveWeights())


def test_of_many_queries_each_reads_the_prompt_for_itself():
    """One query reads A and two read B, from afar: so B comes last, though κ is larger at A."""
    problem = on_a_line([0.0, 3.0, 3.1], "ABB", [0.0, 5.0, 5.2], Gaussian(0.5))
    assert AgreementLast().arrange(problem, torch.tensor([[0, 1, 2]])).tolist() == [[0, 1, 2]]


def test_where_nobody_attends_all_say_as_much():
    """So the commonest output comes last; κ does not tell which of them is nearest."""
    problem = on_a_line([50.0, 60.0, 70.0, 80.0], "ABCB", [0.0], Gaussian(0.001))
    assert not problem.objective.attention.any()
    assert AgreementLast().arrange(problem, torch.tensor([[3, 2, 1, 0]])).tolist() == [[0, 2, 1, 3]]


@pytest.mark.parametrize("fixed", [0, 2])
@pytest.mark.parametrize("profile", [Uniform(), Recency(0.7)], ids=["uniform", "recency"])
@pytest.mark.parametrize("seed", range(3))
def test_evidence_last_ends_with_the_demonstration_of_least_j(seed, profile, fixed, device, dtype):
    weights = ObjectiveWeights(0.3, 0.0, 0.0, 1.0)
    world, chosen = World(seed, device, dtype, b=12, weights=weights), draw(seed, 5, b=12)
    nearest = NearestLast().arrange(world.problem, index(chosen, device), fixed).tolist()
    tried = [[[*row[:i], *row[i + 1 :], row[i]] for i in range(4, fixed - 1, -1)] for row in nearest]
    omega = torch.tensor(profile.weights(5), device=device, dtype=dtype).expand(12, 1, 5)
    last = torch.full((12, 1), 4, device=device)
    totals = [
        weighted_terms(world.problem.objective, index(rows, device), omega, last).total[:, 0].tolist()
        for rows in zip(*tried, strict=True)
    ]
    best = [min(range(len(row)), key=lambda i: row[i]) for row in zip(*totals, strict=True)]
    arranged = EvidenceLast(profile).arrange(world.problem, index(chosen, device), fixed).tolist()
    for b in range(12):
        found = totals[tried[b].index(arranged[b])][b]
        assert found <= totals[best[b]][b] + (1e-5 if dtype is torch.float32 else 1e-12)
    assert any(arranged[b] != nearest[b] for b in range(12))


def test_evidence_last_is_nearest_last_where_no_reader_is_modelled(device, dtype):
    world, chosen = World(1, device, dtype), index(draw(1, 6), device)
    assert (EvidenceLast().arrange(world.problem, chosen) == NearestLast().arrange(world.problem, chosen)).all()


ORDERS = [
    NearestLast(),
    NearestFirst(),
    AgreementLast(),
    LikeliestLast(),
    ByObjective(),
    ByObjective(PrimacyRecency()),
    EvidenceLast(),
]
NAMES = ["last", "first", "agreement", "likeliest", "recency", "ends", "evidence"]


@pytest.mark.parametrize("order", ORDERS, ids=NAMES)
@pytest.mark.parametrize("k", [3, 9])
def test_pads_stay_last_wherever_they_stood_and_change_nothing(order, k, device, dtype):
    world, chosen = World(4, device, dtype, b=3), draw(4, k, b=3)
    plain = order.arrange(world.problem, index(chosen, device)).tolist()
    padded = [[-1, *row, -1] for row in chosen]
    assert order.arrange(world.problem, index(padded, device)).tolist() == [[*row, -1, -1] for row in plain]
    mixed = index([chosen[0], [-1] * k, [-1] * (k - 1) + chosen[2][:1]], device)
    expected = [plain[0], [-1] * k, chosen[2][:1] + [-1] * (k - 1)]
    assert order.arrange(world.problem, mixed).tolist() == expected


@pytest.mark.parametrize("order", ORDERS, ids=NAMES)
@pytest.mark.parametrize("k", [5, 9])
def test_the_order_of_the_input_does_not_matter_and_arranging_again_changes_nothing(order, k, device, dtype):
    world, chosen = World(5, device, dtype), draw(5, k)
    once = order.arrange(world.problem, index(chosen, device))
    assert (order.arrange(world.problem, index([row[::-1] for row in chosen], device)) == once).all()
    assert (order.arrange(world.problem, once) == once).all()


@pytest.mark.parametrize("k", [2, 6, 7, 8, 11])
def test_a_uniform_profile_keeps_nearest_last(k, device, dtype):
    world, chosen = World(k, device, dtype), index(draw(k, k), device)
    for flat in (Uniform(), Recency(1.0), MeasuredProfile((0.5,))):
        arranged = ByObjective(flat).arrange(world.problem, chosen)
        assert (arranged == NearestLast().arrange(world.problem, chosen)).all()


def test_ties_stand_in_the_order_of_candidates(device, dtype):
    x = torch.ones(1, 9, 2, device=device, dtype=dtype)
    v, own = torch.ones_like(x[..., :1]), torch.ones(1, 1, device=device, dtype=dtype)
    target = Target(x[:, :1] * 2, v[:, :1], own, own, own, own.long(), 1)
    problem = build_ordering_problem(Gaussian(), (x, v), target, 0.5, ObjectiveWeights())
    chosen = index([[3, 8, 0, 5, 1]], device)
    for order in (NearestLast(), NearestFirst(), AgreementLast(), LikeliestLast(), ByObjective()):
        assert order.arrange(problem, chosen).tolist() == [[0, 1, 3, 5, 8]]


@pytest.mark.parametrize("k", [5, 8, 9])
@pytest.mark.parametrize("profile", [Uniform(), Recency()], ids=["uniform", "recency"])
def test_ordering_ends_where_only_rounding_is_left_of_the_mmd(k, profile, device, dtype):
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(40, 1, 6)), device=device, dtype=dtype)
    x = torch.nn.functional.normalize(x, dim=-1).repeat(1, 9, 1)  # every candidate is the query
    v, own = torch.ones_like(x[..., :1]), torch.ones(40, 1, device=device, dtype=dtype)
    target = Target(x[:, :1], v[:, :1], own, own, own, own.long(), 1)
    problem = build_ordering_problem(Gaussian(0.1), (x, v), target, 0.5, ObjectiveWeights())
    chosen = torch.arange(k, device=device).expand(40, k)
    with at_most(5):
        arranged = ByObjective(profile).arrange(problem, chosen)
    assert (arranged == NearestLast().arrange(problem, chosen)).all()


@pytest.mark.parametrize("order", [NearestLast(Recency(0.6)), ByObjective(Recency(0.6))], ids=["last", "objective"])
def test_position_weights_follow_the_profile_and_are_zero_at_pads(order, device, dtype):
    arranged = index([[4, 2, 7, -1], [1, -1, -1, -1], [-1, -1, -1, -1]], device)
    weights = order.weights(arranged, torch.zeros(1, device=device, dtype=dtype))
    assert weights.dtype is dtype
    expected = [[*recency(3, 0.6), 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4]
    np.testing.assert_allclose(weights.cpu(), expected, rtol=1e-6)


@given(
    profile=st.one_of(
        st.just(Uniform()),
        st.builds(Recency, st.floats(1e-3, 1)),
        st.builds(PrimacyRecency, st.floats(0, 10), st.floats(1e-3, 1)),
        st.builds(
            lambda front, last: MeasuredProfile((*front, last)),
            st.lists(st.floats(0, 10), max_size=6),
            st.floats(1e-3, 10),
        ),
    ),
    k=st.integers(1, 20),
)
def test_profiles_are_weights_that_sum_to_one(profile, k):
    weights = profile.weights(k)
    assert len(weights) == k
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1)


@every_profile
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 9])
def test_profiles_are_their_formulas(profile, textbook, k):
    assert profile.weights(k) == pytest.approx(textbook(k))


def test_recency_rises_primacy_recency_sags_in_the_middle_and_uniform_is_flat():
    assert Recency(0.8).weights(5) == sorted(Recency(0.8).weights(5))
    weights = PrimacyRecency(0.5, 0.7).weights(7)
    bottom = weights.index(min(weights))
    assert 0 < bottom < 6
    assert weights[: bottom + 1] == sorted(weights[: bottom + 1], reverse=True)
    assert weights[bottom:] == sorted(weights[bottom:])
    assert Uniform().weights(4) == [0.25] * 4


def test_a_custom_profile_gives_its_end_to_short_prompts_and_repeats_its_front_for_long_ones():
    profile = MeasuredProfile((0.2, 0.3, 0.5))
    assert profile.weights(2) == pytest.approx([0.3 / 0.8, 0.5 / 0.8])
    assert profile.weights(3) == pytest.approx([0.2, 0.3, 0.5])
    assert profile.weights(5) == pytest.approx([w / 1.4 for w in (0.2, 0.2, 0.2, 0.3, 0.5)])


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (Recency, 0.0),
        (Recency, 1.01),
        (Recency, math.nan),
        (PrimacyRecency, -0.1),
        (PrimacyRecency, math.nan),
        (lambda value: PrimacyRecency(0.5, value), 0.0),
        (lambda value: PrimacyRecency(0.5, value), -0.5),
        (lambda value: PrimacyRecency(0.5, value), 2.0),
        (MeasuredProfile, ()),
        (MeasuredProfile, (-0.1, 1.0)),
        (MeasuredProfile, (1.0, 0.0)),
        (MeasuredProfile, (math.nan, 1.0)),
        (MeasuredProfile, (math.inf, 1.0)),
    ],
)
def test_invalid_profiles_raise_with_the_value(make, value):
    with pytest.raises(ValueError, match=f"got {re.escape(str(value))}"):
        make(value)


def test_settings_take_an_order_by_name():
    for name, kind in ORDERS_BY_NAME.items():
        assert Settings(order=name).order == kind() == order_by_name(name)
    with pytest.raises(ValueError, match="did you mean 'nearest-last'"):
        Settings(order="nearest_last")
    restored = Settings.model_validate_json(Settings(order="nearest-first").model_dump_json())
    assert restored.order == ORDERS_BY_NAME["nearest-first"]()
