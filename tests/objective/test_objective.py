"""J against an independent brute force: explicit double sums in float64 from raw points (R2, R3, R6, R8, R9)."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from kdprompt.objective import objective as objective_module
from kdprompt.objective.changed_sets import GrowingSets, sum_swaps
from kdprompt.objective.gram import compute_gram_blocks
from kdprompt.objective.objective import Objective
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.objective.reader_profile import ReaderProfile
from kdprompt.objective.target import Target
from kdprompt.objective.weighted_sets import evaluate_place_swaps, evaluate_weighted, weighted_terms
from kdprompt.theory.kernels import Gaussian, Linear, Polynomial

PENALTIES = ObjectiveWeights(bias=0.9, complexity=0.2, interference=0.7, reader=0.3)
READER = ReaderProfile(name="planted", follow=2.5, knowledge_weight=0.6, recency=0.8, label_bias={"b": 0.4, "c": -1.1})
KERNELS = {
    "gaussian": (Gaussian(0.6), lambda a, b: math.exp(-float((a - b) @ (a - b)) / 1.2)),
    "linear": (Linear(), lambda a, b: float(a @ b)),  # negative at times: no attention there
    "polynomial": (Polynomial(2, 0.3), lambda a, b: (float(a @ b) + 0.3) ** 2),
}
every_kernel = pytest.mark.parametrize("name", KERNELS)
every_target = pytest.mark.parametrize("queries", [1, 4], ids=["neighbourhood", "sample"])


@dataclass(frozen=True)
class Case:
    """Raw data of b problems, as NumPy arrays in the values of the dtype under test, and the objective of them."""

    objective: Objective
    textbook: object
    x: np.ndarray
    v: np.ndarray
    tx: np.ndarray
    tv: np.ndarray
    own: np.ndarray
    mass: np.ndarray
    support: np.ndarray
    prior: np.ndarray
    knows: np.ndarray
    share: float
    radius: float

    def terms(self, b, members, weights, last=None):
        """(bias, complexity, interference, L, J) of weighted members of problem b; ``last`` None: any of them."""
        x, v, tx, tv = self.x[b], self.v[b], self.tx[b], self.tv[b]
        points = [(w, x[i], v[i]) for w, i in zip(weights, members, strict=True)]
        points += [(-w, a, value) for w, a, value in zip(self.mass[b], tx, tv, strict=True)]
        squared = 0.0  # ‖Σ s_z κ⊗(z, ·)‖² of the signed measure D − Q
        for s, a, value in points:
            for r, other, second in points:
                mixed = (1 - self.share) + self.share * float(value @ second)
                squared += s * r * self.textbook(a, other) * mixed
        bound = self.radius * math.sqrt(max(self.textbook(a, a) for a in tx))
        trace = sum(w * w * self.textbook(x[i], x[i]) for w, i in zip(weights, members, strict=True))
        complexity = bound * math.sqrt(v.shape[-1] * trace)
        interference = sum(
            self.own[b, q] * self.support[b, q] * self._conflict(b, q, members, weights)
            for q in range(self.support.shape[1])
        )
        bias = math.sqrt(max(squared, 0.0))
        reader = sum(self.own[b, q] * self._reader(b, q, members, weights, last) for q in range(self.support.shape[1]))
        p = PENALTIES
        total = p.bias * bias + p.complexity * complexity + p.interference * interference + p.reader * reader
        return bias, complexity, interference, reader, total

    def _reader(self, b, q, members, weights, last):
        """L of R9 at a query, output by output."""
        counted, answers, target = range(3), [], []
        for y in counted:
            shown = sum(w * self.v[b, i, y] for w, i in zip(weights, members, strict=True))
            at_end = shown if last is None else self.v[b, last, y]
            knows = READER.knowledge_weight * self.knows[b, q, y]
            answers.append(READER.bias_of("abc")[y] + knows + READER.follow * shown + READER.recency * at_end)
            target.append(knows + math.log(self.tv[b, q, y]) - math.log(self.prior[b, q, y]))
        normaliser, mass = math.log(sum(map(math.exp, answers))), sum(map(math.exp, target))
        return sum(-math.exp(target[y]) / mass * (answers[y] - normaliser) for y in counted)

    def _conflict(self, b, q, members, weights):
        pulls = [w * max(self.textbook(self.x[b, i], self.tx[b, q]), 0) for w, i in zip(weights, members, strict=True)]
        if sum(pulls) == 0:  # nothing is attended to: the read-out is 0
            return math.hypot(*self.tv[b, q])
        gaps = [math.dist(self.v[b, i], self.tv[b, q]) for i in members]
        return sum(a * gap for a, gap in zip(pulls, gaps, strict=True)) / sum(pulls)

    def uniform(self, b, members):
        return self.terms(b, members, [1 / len(members)] * len(members) if len(members) else [])


def case(seed, device, dtype, name="gaussian", queries=1, *, b=3, size=7, share=0.4, v=None):
    kernel, textbook = KERNELS[name]
    rng = np.random.default_rng(seed)
    m = queries if queries > 1 else 6
    raw = {
        "x": rng.normal(size=(b, size, 4)) / 2,
        "v": np.eye(3)[rng.integers(3, size=(b, size))],
        "tx": rng.normal(size=(b, m, 4)) / 2,
        "tv": rng.dirichlet(np.ones(3), size=(b, m)),
        "own": rng.dirichlet(np.ones(queries), size=b) if queries > 1 else np.eye(m)[[0] * b],
        "nearby": rng.dirichlet(np.ones(m), size=b),
        "support": rng.random((b, queries)),
        "prior": rng.dirichlet(np.ones(3), size=(b, queries)),
        "knows": np.log(rng.dirichlet(np.ones(3), size=(b, queries))),
    }
    held = {key: torch.as_tensor(value, device=device, dtype=dtype) for key, value in raw.items()}
    held["v"] = held["v"] if v is None else v
    task = torch.full((b, queries), -1, device=device)
    masses = (held["own"], held["nearby"], held["support"])
    target = Target(held["tx"], held["tv"], *masses, task, queries, 0.3, held["prior"], held["knows"])
    reader = ReaderLoss.build(target, READER, "abc")
    blocks = compute_gram_blocks(kernel, held["x"], held["v"], target, 1.5)
    objective = Objective.build(blocks, share, PENALTIES, reader)
    exact = {key: value.cpu().double().numpy() for key, value in held.items()}
    mass = 0.7 * exact["own"] + 0.3 * exact.pop("nearby")
    return Case(objective, textbook, mass=mass, share=share, radius=1.5, **exact)


def sets(seed, case, k):
    """A random set for each problem, of sizes from 0 to k, with its pads in random places."""
    rng = np.random.default_rng(seed)
    b, size = case.x.shape[:2]
    chosen = np.array([rng.permutation(size)[:k] for _ in range(b)])
    chosen[rng.random((b, k)) < 0.3] = -1
    return chosen


def members(row):
    return [i for i in row if i >= 0]


def as_index(chosen, case):
    return torch.as_tensor(chosen, device=case.objective.gram.device)


def stack(terms):
    columns = [terms.bias, terms.complexity, terms.interference, terms.reader, terms.total]
    return torch.stack(columns, -1).cpu().double().numpy()


def assert_close(actual, expected, dtype):
    rtol, atol = (1e-4, 2e-4) if dtype is torch.float32 else (1e-9, 1e-9)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@every_kernel
@every_target
@pytest.mark.parametrize("seed", range(3))
def test_terms_equal_the_brute_force(name, queries, seed, device, dtype):
    problem = case(seed, device, dtype, name, queries)
    for k in (1, 3, 7):
        chosen = sets(seed + k, problem, k)
        found = stack(problem.objective.terms(problem.objective.state(as_index(chosen, problem))))
        assert_close(found, [problem.uniform(b, members(row)) for b, row in enumerate(chosen)], dtype)


@every_kernel
@every_target
@pytest.mark.parametrize("seed", range(3))
def test_growing_sets_are_those_of_the_members_with_each_candidate(name, queries, seed, device, dtype):
    problem = case(seed, device, dtype, name, queries)
    order = np.array([np.random.default_rng(seed + b).permutation(7) for b in range(3)])
    for begin in (0, 2):
        growing = GrowingSets(problem.objective, as_index(order[:, :begin], problem))
        for size in range(begin, 5):
            found = stack(problem.objective.terms(growing.sums))
            total, bias = (values.cpu().numpy() for values in problem.objective.evaluate(growing.sums))
            for b, row in enumerate(order):
                for i in row[size:]:
                    expected = problem.uniform(b, [*row[:size], i])
                    assert_close(found[b, i], expected, dtype)
                    assert_close([bias[b, i], total[b, i]], [expected[0], expected[4]], dtype)
            growing.add(as_index(order[:, size, None], problem))


@every_target
def test_r9_computed_once_an_output_is_that_of_each_candidate(queries, monkeypatch, device, dtype):
    """Against the textbook, where some candidates have no output."""
    monkeypatch.setattr(objective_module, "MANY", 0)
    problem = case(1, device, dtype, queries=queries)
    blank = problem.objective.outputs.clone()
    blank[:, 3] = 0
    problem = case(1, device, dtype, queries=queries, v=blank)
    assert problem.objective.code.amax() == 3 and (problem.objective.code[:, 3] == 3).all()
    order = np.array([[3, 0, 5, 1, 6, 2, 4]] * 3)
    for begin in (0, 2):
        growing = GrowingSets(problem.objective, as_index(order[:, :begin], problem))
        for size in range(begin, 5):
            assert growing.sums.shown.shape[1:] == (4, 3)
            total, _ = problem.objective.evaluate(growing.sums)
            for b, row in enumerate(order):
                expected = [problem.uniform(b, [*row[:size], i])[4] for i in row[size:]]
                assert_close(total[b, row[size:]].cpu().numpy(), expected, dtype)
            growing.add(as_index(order[:, size, None], problem))


@pytest.mark.parametrize("v", [torch.full((2, 9, 2), 0.5), torch.eye(9)[None], torch.tensor([[[2.0, 0.0]] * 9])])
def test_what_is_no_label_or_one_of_as_many_as_candidates_has_no_code(v, monkeypatch):
    monkeypatch.setattr(objective_module, "MANY", 0)
    assert objective_module.find_codes(v) is None


def test_few_candidates_are_looked_at_one_by_one(device, dtype):
    assert case(0, device, dtype).objective.code is None


@every_kernel
@every_target
@pytest.mark.parametrize("places", [slice(0, 4), slice(1, 3)])
def test_swaps_are_the_sets_with_a_candidate_in_place_of_a_member(name, queries, places, device, dtype):
    problem = case(3, device, dtype, name, queries)
    chosen = [[0, 1, -1, 4], [5, 3, 2, 1], [-1, 2, -1, 6]]
    sums = sum_swaps(problem.objective, as_index(chosen, problem), places)
    total, bias = (values.cpu().numpy() for values in problem.objective.evaluate(sums))
    for b, row in enumerate(chosen):
        for place in range(*places.indices(4)):
            stay = members([*row[:place], *row[place + 1 :]])
            for i in set(range(7)) - set(stay) if row[place] >= 0 else ():  # a pad is no place
                expected = problem.uniform(b, [*stay, i])
                found = [bias[b, place - places.start, i], total[b, place - places.start, i]]
                assert_close(found, [expected[0], expected[4]], dtype)


@every_kernel
@every_target
@pytest.mark.parametrize("seed", range(3))
def test_weighted_terms_equal_the_brute_force(name, queries, seed, device, dtype):
    problem = case(seed, device, dtype, name, queries)
    chosen = sets(seed, problem, 5)
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(5), size=(3, 6)) * (chosen >= 0)[:, None, :]
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    held = torch.as_tensor(weights, device=device, dtype=dtype)
    last = np.array([rng.choice(np.flatnonzero(row >= 0), size=6) if (row >= 0).any() else [-1] * 6 for row in chosen])
    found = stack(weighted_terms(problem.objective, as_index(chosen, problem), held, as_index(last, problem)))
    for b, row in enumerate(chosen):
        for p in range(6):
            inside = [w for w, i in zip(weights[b, p], row, strict=True) if i >= 0]
            at_end = row[last[b, p]] if members(row) else None
            assert_close(found[b, p], problem.terms(b, members(row), inside, at_end), dtype)


WEIGHTINGS = [(1.3, 0.2, 0.4, 0.7), (1.0, 0.0, 0.0, 0.0), (0.0, 0.3, 0.0, 0.9), (2.0, 0.0, 0.6, 0.0)]


@every_target
@pytest.mark.parametrize("shares", WEIGHTINGS)
def test_exchanged_places_are_brute_force_of_the_weighted_set(shares, queries, device, dtype):
    """J by plain Python of each order, for weights of terms of which some are 0."""
    problem = case(14, device, dtype, "polynomial", queries)
    names = ("bias", "complexity", "interference", "reader")
    objective = replace(problem.objective, weights=ObjectiveWeights(**dict(zip(names, shares, strict=True))))
    rng = np.random.default_rng(15)
    arranged = np.stack([rng.permutation(7)[:4] for _ in range(3)])
    omega = rng.dirichlet(np.ones(4))
    pairs = [(0, 0), *itertools.combinations(range(4), 2)]
    held = torch.as_tensor(omega, device=device, dtype=objective.sum_dtype)
    index = as_index(arranged, problem)
    found = evaluate_place_swaps(objective, index, held, torch.tensor(pairs, device=device))
    orders = [[j if p == i else i if p == j else p for p in range(4)] for i, j in pairs]
    by_member = torch.stack([held[torch.tensor(order).argsort()] for order in orders]).expand(3, -1, -1)
    last = torch.tensor([order[-1] for order in orders], device=device).expand(3, -1)
    same = evaluate_weighted(objective, index, by_member.to(dtype), last)
    for b in range(3):
        for p, order in enumerate(orders):
            row = [int(arranged[b, i]) for i in order]
            terms = problem.terms(b, row, list(omega), row[-1])
            expected = [np.dot(shares, terms[:4]), terms[0]]
            assert_close([found[0][b, p].cpu(), found[1][b, p].cpu()], expected, dtype)
            assert_close([same[0][b, p].cpu(), same[1][b, p].cpu()], expected, dtype)


@every_kernel
@every_target
def test_uniformly_weighted_terms_are_the_terms_of_the_set(name, queries, device, dtype):
    problem = case(4, device, dtype, name, queries)
    chosen = as_index(sets(4, problem, 5), problem)
    inside = (chosen >= 0).to(dtype)
    weights = inside / inside.sum(-1, keepdim=True).clamp_min(1)
    nobody = torch.full_like(chosen[:, :1], -1)
    weighted = stack(weighted_terms(problem.objective, chosen, weights[:, None, :], nobody))[:, 0]
    plain = stack(problem.objective.terms(problem.objective.state(chosen)))
    assert_close(weighted[:, :3], plain[:, :3], dtype)  # L alone depends on what stands last


@every_kernel
@every_target
def test_the_empty_set_predicts_nothing(name, queries, device, dtype):
    problem = case(5, device, dtype, name, queries)
    for k in (0, 3):
        chosen = as_index(np.full((3, k), -1), problem)
        terms = problem.objective.terms(problem.objective.state(chosen))
        assert_close(stack(terms), [problem.uniform(b, []) for b in range(3)], dtype)
        sizes = problem.support * np.linalg.norm(problem.tv[:, : problem.support.shape[1]], axis=-1)
        assert_close(terms.interference.cpu(), (problem.own[:, : sizes.shape[1]] * sizes).sum(-1), dtype)
        assert terms.complexity.tolist() == [0.0] * 3


def test_pads_change_nothing_wherever_they_stand(device, dtype):
    problem = case(6, device, dtype)
    plain = stack(problem.objective.terms(problem.objective.state(as_index([[0, 1], [3, 2], [6, 4]], problem))))
    padded = as_index([[-1, 0, 1, -1], [3, -1, -1, 2], [6, 4, -1, -1]], problem)
    assert_close(stack(problem.objective.terms(problem.objective.state(padded))), plain, dtype)
    weights = torch.where(padded >= 0, 0.5, 0.0).to(dtype)[:, None, :]
    last = as_index([[2], [3], [1]], problem)
    expected = [problem.terms(b, row, [0.5, 0.5], row[1]) for b, row in enumerate([[0, 1], [3, 2], [6, 4]])]
    assert_close(stack(weighted_terms(problem.objective, padded, weights, last))[:, 0], expected, dtype)


@every_target
@pytest.mark.parametrize("keep", [[2, 0], [True, False, True], []], ids=["indices", "mask", "none"])
def test_rows_are_the_kept_problems_alone(queries, keep, device, dtype):
    problem = case(7, device, dtype, queries=queries)
    chosen = as_index(sets(7, problem, 3), problem)
    index = torch.tensor(keep, device=device, dtype=torch.long if not keep else None)
    part = problem.objective.subset(index)
    whole = stack(problem.objective.terms(problem.objective.state(chosen)))
    assert_close(stack(part.terms(part.state(chosen[index]))), whole[index.cpu().numpy()], dtype)


@every_kernel
@every_target
@pytest.mark.parametrize("b", [1, 3])
def test_j_alone_is_that_of_the_terms_for_parts_of_the_problems_too(name, queries, b, device, dtype):
    """The linear kernel leaves some sets without attention, in some problems or in all."""
    problem = case(16, device, dtype, name, queries, b=b)
    chosen = as_index(sets(16, problem, 3).clip(0), problem)
    for objective, held in [
        (problem.objective, chosen),
        (problem.objective.subset(torch.tensor([0], device=device)), chosen[:1]),
        (problem.objective.subset(torch.arange(b, device=device).flip(0)), chosen.flip(0)),
    ]:
        for sums in (objective.state(held), GrowingSets(objective, held[:, :1]).sums):
            total, bias = objective.evaluate(sums)
            terms = objective.terms(sums)
            assert_close(total.cpu(), terms.total.cpu().double().numpy(), dtype)
            assert_close(bias.cpu(), terms.bias.cpu().double().numpy(), dtype)


@every_target
def test_the_norm_of_a_target_of_many_points_is_its_double_sum(queries, monkeypatch, device, dtype):
    """By tiles, of which none is whole."""
    monkeypatch.setattr("kdprompt.objective.gram.TILE", 4)
    tiled = case(17, device, dtype, "polynomial", max(queries, 6))
    monkeypatch.setattr("kdprompt.objective.gram.TILE", 1024)
    whole = case(17, device, dtype, "polynomial", max(queries, 6))
    for b in range(3):
        points = list(zip(tiled.mass[b], tiled.tx[b], tiled.tv[b], strict=True))
        norm = sum(
            w * u * tiled.textbook(a, c) * (0.6 + 0.4 * float(r @ s)) for w, a, r in points for u, c, s in points
        )
        for objective in (tiled.objective, whole.objective):
            assert float(objective.target_norm[b]) == pytest.approx(norm, rel=1e-5 if dtype is torch.float32 else 1e-12)


def test_j_is_the_weighted_sum_of_its_terms(device, dtype):
    problem = case(8, device, dtype)
    found = stack(problem.objective.terms(GrowingSets(problem.objective, as_index([[0], [1], [2]], problem)).sums))
    weights = [PENALTIES.bias, PENALTIES.complexity, PENALTIES.interference, PENALTIES.reader]
    assert_close(found[..., 4], found[..., :4] @ weights, dtype)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_covers_the_error_of_j_also_where_the_mmd_vanishes(seed, device, dtype):
    """Q is a mixture of the candidates themselves, so the set with its weights has MMD 0 exactly."""
    rng = np.random.default_rng(seed)
    held = torch.as_tensor(rng.normal(size=(4, 6, 5)), device=device, dtype=dtype)
    values = torch.as_tensor(np.eye(2)[rng.integers(2, size=(4, 6))], device=device, dtype=dtype)
    mass = torch.full((4, 6), 1 / 6, device=device, dtype=dtype)
    none = torch.zeros(4, 6, device=device, dtype=dtype)
    target = Target(held, values, mass, mass, none, none.long(), 6)
    objective = Objective.build(compute_gram_blocks(Gaussian(0.6), held, values, target, 1.0), 0.5, ObjectiveWeights())
    chosen = torch.arange(6, device=device).expand(4, 6)
    whole, part = (objective.terms(objective.state(chosen[:, :k])) for k in (6, 3))
    assert (whole.total <= objective.rounding(whole.total, whole.bias)).all()
    assert (objective.rounding(whole.total, whole.bias) < 1e-2).all()
    assert (part.total > 10 * objective.rounding(part.total, part.bias)).all()


@pytest.mark.parametrize("divisor", [1.0, 3.0, [[2.0], [1.0], [5.0]]], ids=["one", "three", "each its own"])
@pytest.mark.parametrize("places", [(), (2,)], ids=["candidates", "places and candidates"])
def test_what_cannot_be_told_from_the_best_set_is_within_the_rounding_of_gram_entries(places, divisor, device, dtype):
    """An error e of MMD² moves J by weight·e/(MMD + √e); e is 32 roundings of the largest entry, over the members."""
    problem = case(9, device, dtype, "polynomial")  # κ(x, x) differs from one candidate to the next
    objective, rng = problem.objective, np.random.default_rng(10)
    bias = rng.random((3, *places, 7)) * (rng.random((3, *places, 7)) < 0.5)  # zero for half of the sets
    total = bias + rng.random((3, *places, 7)) / 100
    barred = rng.random(total.shape) < 0.3
    total[barred] = np.inf
    several = isinstance(divisor, list)
    given = divisor
    if several:
        given = torch.as_tensor(np.reshape(divisor, (3, 1, *[1 for _ in places])), device=device, dtype=dtype)
    held = [torch.as_tensor(values, device=device, dtype=dtype) for values in (total, bias)]
    found = objective.find_limit(*held, given)
    assert found.shape == (3, 1)
    for b in range(3):
        largest = max(
            problem.textbook(x, x) * (1 - 0.4 + 0.4 * float(v @ v))
            for x, v in zip(problem.x[b], problem.v[b], strict=True)
        )
        error = 32 * torch.finfo(dtype).eps * largest / (divisor[b][0] if several else divisor)
        limits = total[b] + PENALTIES.bias * error / (bias[b] + math.sqrt(error))
        assert float(found[b]) == pytest.approx(limits.min(), rel=4 * torch.finfo(dtype).eps * 8)


@every_kernel
def test_the_rounding_of_a_problem_is_its_own(name, device, dtype):
    problem = case(11, device, dtype, name)
    chosen = as_index(sets(11, problem, 3), problem)
    terms = problem.objective.terms(problem.objective.state(chosen))
    whole = problem.objective.rounding(terms.total, terms.bias)
    for b in range(3):
        part = problem.objective.subset(torch.tensor([b], device=device))
        own = part.terms(part.state(chosen[b : b + 1]))
        alone = part.rounding(own.total, own.bias)
        assert alone.shape == (1,) and float(alone) == pytest.approx(float(whole[b]), rel=1e-3)


@every_kernel
def test_rounding_is_its_formula(name, device, dtype):
    """An error e of MMD², 32 roundings of ‖μ_Q‖² + κ⊗max, moves J by weight·e/(MMD + √e); J itself has as many."""
    problem, unit = case(12, device, dtype, name), 32 * torch.finfo(dtype).eps
    rng = np.random.default_rng(13)
    bias, total = rng.random((3, 4)) * np.array([0.0, 1e-6, 1.0, 30.0]), rng.random((3, 4)) * 30
    held = [torch.as_tensor(values, device=device, dtype=dtype) for values in (bias, total)]
    found = problem.objective.rounding(held[1], held[0])
    alone = problem.objective.rounding(held[1][:, 0], held[0][:, 0])
    for b in range(3):
        points = list(zip(problem.mass[b], problem.tx[b], problem.tv[b], strict=True))
        norm = sum(
            w * u * problem.textbook(a, c) * (0.6 + 0.4 * float(r @ s)) for w, a, r in points for u, c, s in points
        )
        largest = max(
            problem.textbook(a, a) * (0.6 + 0.4 * float(r @ r)) for a, r in zip(problem.x[b], problem.v[b], strict=True)
        )
        error = unit * (norm + largest)
        for i in range(4):
            expected = PENALTIES.bias * error / (bias[b, i] + math.sqrt(error)) + unit * max(total[b, i], 1.0)
            assert float(found[b, i]) == pytest.approx(expected, rel=1e-3)
        assert float(alone[b]) == pytest.approx(float(found[b, 0]), rel=1e-6)
