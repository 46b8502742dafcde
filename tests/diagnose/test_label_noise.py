"""Wrong outputs: the evidence against its definition by refitting, planted flips found, clean pools left in peace."""

import math

import pytest
import torch

from kdprompt.diagnose import find_wrong_outputs
from kdprompt.diagnose.label_noise import _fit_mixture, estimate_label_noise
from kdprompt.diagnose.left_out_evidence import LabelledInputs, NeighbourShares, RidgeScores
from kdprompt.diagnose.nearest_inputs import find_nearest_inputs
from kdprompt.pool.pool import Pool


def unit(n, d, seed):
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def blobs(n=600, classes=4, spread=0.4, seed=0):
    """Inputs around one centre a class; at a larger spread classes overlap."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (n,), generator=generator)
    noise = torch.randn(n, 12, generator=generator)
    return torch.nn.functional.normalize(unit(classes, 12, 7)[label] * 3**0.5 + spread * noise, dim=-1), label


def flip(label, classes, share, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(label), generator=generator)[: int(share * len(label))]
    changed = label.clone()
    changed[rows] = (label[rows] + 1 + torch.randint(classes - 1, (len(rows),), generator=generator)) % classes
    return changed, set(rows.tolist())


def alone(x, label, classes):
    return LabelledInputs(x, torch.arange(len(x)), label, classes)


# -- the evidence -------------------------------------------------------------------------------------------------


def refit(x, counts, left_out, penalty):
    """Ridge regression without one input, by its normal equations with an intercept, in float64."""
    kept = [i for i in range(len(x)) if i != left_out]
    points = torch.cat([x, torch.ones(len(x), 1)], -1).double()[kept]
    weight, values = counts.double()[kept].sum(-1), counts.double()[kept]
    penalties = torch.diag(torch.tensor([penalty] * x.shape[1] + [0.0], dtype=torch.float64))
    solution = torch.linalg.solve((points.T * weight) @ points + penalties, points.T @ values)
    return torch.cat([x[left_out].double(), torch.ones(1).double()]) @ solution


def test_the_ridge_scores_are_those_of_fits_without_the_input():
    x = unit(30, 5, 0)
    counts = torch.rand(30, 3, generator=torch.Generator().manual_seed(1))
    counts[4] = 0  # an input none of whose examples counts
    ridge = RidgeScores.fit(x, counts)
    for penalty in (0.3, 2.0):
        scores = ridge.score(penalty)
        for i in range(30):
            assert torch.allclose(scores[i].double(), refit(x, counts, i, penalty), atol=2e-5)


def test_the_neighbours_shares_are_those_of_a_plain_sum():
    x = unit(12, 4, 0)
    counts = torch.rand(12, 3, generator=torch.Generator().manual_seed(1))
    nearest = find_nearest_inputs(x, 5)
    shares = NeighbourShares.of(nearest, counts).estimate(0.4).exp()
    sums = []
    for i in range(12):
        near = sorted((j for j in range(12) if j != i), key=lambda j: -float(x[i] @ x[j]))[:5]
        sums.append(sum(math.exp((float(x[i] @ x[j]) - 1) / 0.4) * counts[j].double() for j in near))
    masses = sorted(float(each.sum()) for each in sums)
    extra = 0.03 * masses[5]  # torch's median is the lower of the middle two
    prior = counts.double().sum(0) / counts.double().sum()
    for i in range(12):
        expected = (sums[i] + extra * prior) / (sums[i].sum() + extra)
        assert torch.allclose(shares[i].double(), expected, atol=1e-5)


def test_evidence_on_some_inputs_is_that_on_all():
    x, label = blobs(n=300)
    counts = torch.nn.functional.one_hot(label, 4).float()
    rows = torch.tensor([7, 250, 7, 31])  # an input of two examples stands twice
    ridge, shares = RidgeScores.fit(x, counts), NeighbourShares.of(find_nearest_inputs(x, 8), counts)
    assert torch.allclose(ridge.score(1.0, rows), ridge.score(1.0)[rows], atol=1e-5)
    assert torch.allclose(shares.estimate(0.1, rows), shares.estimate(0.1)[rows], atol=1e-5)


def test_the_constants_of_the_mixture_have_no_slope_of_the_naive_likelihood():
    x, label = blobs(n=400, spread=0.8)
    changed, _ = flip(label, 4, 0.15)
    counts = torch.nn.functional.one_hot(changed, 4).float()
    evidence = (
        NeighbourShares.of(find_nearest_inputs(x, 8), counts).estimate(0.1),
        RidgeScores.fit(x, counts).score(1.0),
    )
    found = _fit_mixture(evidence, changed)
    constants = torch.tensor([found.a, found.b, found.noise], dtype=torch.float64, requires_grad=True)
    p = (constants[0] * evidence[0].double() + constants[1] * evidence[1].double()).softmax(-1)
    likelihood = (1 - constants[2]) * p[torch.arange(400), changed] + constants[2] / 4
    loss = -likelihood.log().mean()
    assert found.loss == pytest.approx(loss.item(), abs=1e-9)
    assert torch.autograd.grad(loss, constants)[0].abs().max() < 2e-3 and min(found.a, found.b, found.noise) > 0


# -- what is suspected --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_flipped_labels_are_found_and_set_right(seed):
    x, label = blobs(seed=seed)
    changed, flipped = flip(label, 4, 0.1, seed)
    found = estimate_label_noise(alone(x, changed, 4))
    suspects = set(found.rows.tolist())
    hits = len(suspects & flipped)
    assert 2 * hits / (len(suspects) + len(flipped)) > 0.9
    assert found.noise * 3 / 4 == pytest.approx(0.1, abs=0.03), "a quarter of what is drawn is drawn right"
    at = [i for i, row in enumerate(found.rows.tolist()) if row in flipped]
    right = found.suggested[at] == label[found.rows[at]]
    assert float(right.float().mean()) > 0.9
    order = found.probability[found.rows]
    assert (order.diff() <= 0).all() and order.min() > 0.2


@pytest.mark.parametrize("spread", [0.3, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_a_clean_pool_stays_silent_even_where_classes_overlap(spread, seed):
    x, label = blobs(spread=spread, seed=seed)
    found = estimate_label_noise(alone(x, label, 4))
    assert found.rows.tolist() == [] and found.noise == 0 and bool(found.judged.all())


def test_an_output_with_too_few_inputs_is_not_judged():
    x, label = blobs()
    changed, _ = flip(label, 4, 0.1)
    changed[:2] = 4
    found = estimate_label_noise(alone(x, changed, 5))
    assert found.judged.tolist() == [False, False] + [True] * 598
    assert found.probability[:2].tolist() == [0, 0] and not {0, 1} & set(found.rows.tolist())


@pytest.mark.parametrize(("n", "classes"), [(40, 4), (600, 1)])
def test_too_little_to_judge_is_no_suspicion(n, classes):
    x, label = blobs(n=n)
    found = estimate_label_noise(alone(x, label % classes, 4))
    assert len(found.rows) == 0 and not found.judged.any()


# -- of a pool ----------------------------------------------------------------------------------------------------


def test_each_task_of_a_pool_is_judged_by_itself():
    x, label = blobs(n=1200)
    tasks = ["left" if i % 2 else "right" for i in range(1200)]
    opposite = [int(label[i]) if tasks[i] == "left" else (int(label[i]) + 1) % 4 for i in range(1200)]
    changed, flipped = flip(torch.tensor(opposite), 4, 0.08)
    rows = [{"input": f"text {i}", "output": "abcd"[changed[i]], "task": tasks[i]} for i in range(1200)]
    found = find_wrong_outputs(Pool.from_records(rows), x)
    suspects = {suspect.example for suspect in found.suspects}
    assert 2 * len(suspects & flipped) / (len(suspects) + len(flipped)) > 0.9 and found.judged == 1200
    for suspect in found.suspects:
        assert suspect.output == "abcd"[changed[suspect.example]] != suspect.suggested and 0 < suspect.probability <= 1


def test_copies_of_an_example_do_not_vouch_for_one_another():
    x, label = blobs()
    changed, _ = flip(label, 4, 0.1)
    changed[:6] = (label[:6] + 1) % 4
    rows = torch.cat([torch.arange(600), torch.arange(6), torch.arange(6)]).tolist()  # the first six stand three times
    pool = Pool.from_records({"input": f"Text {i}", "output": "abcd"[changed[i]]} for i in rows)
    once = find_wrong_outputs(Pool(pool.demonstrations[:600]), x)
    thrice = find_wrong_outputs(pool, x[rows])
    assert {*range(6)} <= {suspect.example for suspect in once.suspects}
    first = {suspect.example for suspect in once.suspects}
    assert {suspect.example for suspect in thrice.suspects} == first | {*range(600, 612)}
    assert thrice.noise == once.noise and thrice.suspects[0].probability == once.suspects[0].probability


def test_outputs_that_are_no_labels_are_not_judged():
    x, _ = blobs()
    unlike = Pool.from_records({"input": f"text {i}", "output": f"answer {i}"} for i in range(600))
    without = Pool.from_records({"input": f"text {i}", "output": None} for i in range(600))
    for pool in (unlike, without):
        assert find_wrong_outputs(pool, x).judged == 0 and find_wrong_outputs(pool, x).suspects == ()


@pytest.mark.data
@pytest.mark.slow
def test_trec_with_a_tenth_flipped(data, embedder):
    records = data("trec", "pool")[:1500]
    names = sorted({record["output"] for record in records})
    label = torch.tensor([names.index(record["output"]) for record in records])
    changed, flipped = flip(label, len(names), 0.1)
    x = torch.as_tensor(embedder.embed_documents([record["input"] for record in records]))
    pool = Pool.from_records({"input": r["input"], "output": names[c]} for r, c in zip(records, changed, strict=True))
    suspects = {suspect.example for suspect in find_wrong_outputs(pool, x).suspects}
    assert 2 * len(suspects & flipped) / (len(suspects) + len(flipped)) > 0.7
