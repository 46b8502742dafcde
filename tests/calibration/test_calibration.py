"""Calibration: what is pinned stays, what is held out stays out, and the settings it keeps are the better ones."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdprompt import (
    CallableEmbedder,
    DistillationSelector,
    ObjectiveWeights,
    Pool,
)
from kdprompt.calibration import held_out, regression_fit
from kdprompt.calibration.calibration import (
    NEIGHBOURHOODS,
    OUTPUT_SHARES,
    READER_WEIGHTS,
    TOLERANCES,
    calibrate,
)
from kdprompt.calibration.held_out import HeldOutRows, LeftOutRows, encode_rows
from kdprompt.calibration.pseudo_queries import PseudoQueries
from kdprompt.objective.gram import compute_gram_blocks
from kdprompt.objective.objective import Objective
from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.objective.regression import KernelRegression, RidgePart
from kdprompt.objective.ridge_estimate import predict_by_ridge
from kdprompt.objective.target import estimate_query_target
from kdprompt.pool.neighbours import find_neighbours
from kdprompt.pool.pool_tensors import build_pool_tensors
from kdprompt.search.search import greedy_search
from kdprompt.theory.bandwidth import fit_by_leave_one_out
from kdprompt.theory.kernels import Gaussian, Laplace
from support import change_settings, fit_ridge_plainly, make_settings

WIDTH = 8
SETTINGS = make_settings(k=4, shortlist=24)  # a short shortlist: these pools are small


def world(seed=0, *, n=160, classes=4, spread=0.35, flipped=0.0, outputs="labels", tasks=None):
    """Clustered inputs whose outputs follow their cluster, but for a share that is drawn anew."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, WIDTH))
    cluster = rng.integers(classes, size=n)
    vectors = centres[cluster] + spread * rng.normal(size=(n, WIDTH)) * np.sqrt(WIDTH) / 2
    wrong = rng.random(n) < flipped
    label = np.where(wrong, rng.integers(classes, size=n), cluster)
    records = []
    for i in range(n):
        record = {"id": f"{i:04d}", "input": f"text {i}"}
        record |= {"labels": {"output": f"label {label[i]}"}, "text": {"output": f"answer {i}"}, "none": {}}[outputs]
        record |= {} if tasks is None else {"task": tasks[i % len(tasks)]}
        records.append(record)
    return records, torch.tensor(vectors), torch.tensor(centres[label] + 0.3 * rng.normal(size=(n, WIDTH)))


def featured(records, vectors, answers=None, mode="auto"):
    rows = torch.ones(len(records), WIDTH) if answers is None else answers
    known = {record.get("output") or "": row for record, row in zip(records, rows, strict=True)}
    return build_pool_tensors(
        Pool.from_records(records), vectors, lambda texts: torch.stack([known[t] for t in texts]), mode
    )


def calibrated(seed=0, settings=None, device="cpu", dtype=torch.float64, **more):
    records, vectors, _ = world(seed, **more)
    return calibrate(featured(records, vectors.to(device, dtype)), settings or SETTINGS)


# -- what is pinned, what is tried --------------------------------------------------------------------------------

PINS = {
    "kernel": Laplace(0.7),
    "output_share": 0.25,
    "neighbourhood": 0.3,
    "weights": ObjectiveWeights(1.0, 0.02, 0.4),
}


@pytest.mark.parametrize("name", PINS)
def test_a_pinned_setting_stays_and_the_others_are_tried(name):
    found = calibrated(settings=make_settings(k=4, shortlist=24, **{name: PINS[name]}))
    assert (
        {getattr(trial.parameters, name) for trial in found.trials} == {getattr(found.parameters, name)} == {PINS[name]}
    )
    for other in PINS.keys() - {name}:
        assert len({getattr(trial.parameters, other) for trial in found.trials}) > 1


def test_every_combination_is_tried_once_and_the_chosen_is_one_of_them():
    found = calibrated()
    tried = [
        (p.kernel, p.output_share, p.neighbourhood, p.weights.reader) for p in (t.parameters for t in found.trials)
    ]
    assert len(set(tried)) == len(tried) == 3 * len(OUTPUT_SHARES) * len(NEIGHBOURHOODS) * len(READER_WEIGHTS)
    assert {t.parameters.weights.interference for t in found.trials} == {0.0}
    assert {t.parameters.kernel.temperature / found.regression.kernel.temperature for t in found.trials} == {
        1.0,
        2.0,
        4.0,
    }
    assert found.chosen in found.trials
    assert found.source == f"calibrated on 40 pool examples held out as pseudo-queries, {len(tried)} settings tried"
    assert found.pseudo_queries == 40


@pytest.mark.parametrize("seed", range(3))
def test_k_auto_calibrates_the_tolerance(seed):
    found = calibrated(seed, settings=make_settings(k="auto", k_max=6), flipped=0.2)
    assert {trial.parameters.tolerance for trial in found.trials} == set(TOLERANCES)
    assert len(found.trials) == 3 * len(OUTPUT_SHARES) * len(NEIGHBOURHOODS) * len(READER_WEIGHTS) + len(TOLERANCES) - 1
    assert found.chosen in found.trials
    best = min(trial.loss for trial in found.trials if trial.parameters.kernel == found.parameters.kernel)
    assert found.chosen.loss <= best + (found.chosen.interval[1] - found.chosen.interval[0]) / 1.96
    pinned = calibrated(seed, settings=make_settings(k="auto", k_max=6, tolerance=0.1), flipped=0.2)
    assert {trial.parameters.tolerance for trial in pinned.trials} == {0.1} and pinned.parameters.tolerance == 0.1


def test_all_pinned_leaves_nothing_to_try():
    found = calibrated(settings=make_settings(k=4, shortlist=24, **PINS))
    assert (found.trials, found.pseudo_queries, found.source) == ((), 0, "pinned by the settings")
    assert {name: getattr(found.parameters, name) for name in PINS} == PINS


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"n": 60}, "a pool of 60 is too small to calibrate on"),
        ({"n": 1}, "a pool of 1 is too small to calibrate on"),
        ({"outputs": "none"}, "the pool has no outputs to calibrate on"),
        (
            {"settings": make_settings(k=4, calibrate=False, shortlist=24)},
            "calibration is switched off",
        ),
    ],
)
def test_without_calibration_the_defaults_stand_with_a_reason(more, reason):
    found = calibrated(**more)
    assert found.source.startswith("defaults") and found.source.endswith(reason)
    assert (found.trials, found.pseudo_queries) == ((), 0)
    chosen = found.parameters
    has_labels = more.get("outputs") != "none" and more.get("n") != 1
    weights = ObjectiveWeights(reader=0.25) if has_labels else ObjectiveWeights()
    assert (chosen.output_share, chosen.neighbourhood, chosen.weights) == (0.5, 0.0, weights)
    assert isinstance(chosen.kernel, Gaussian)
    pins = calibrated(**{**more, "settings": make_settings(k=4, calibrate=False, shortlist=24, **PINS)})
    assert {name: getattr(pins.parameters, name) for name in PINS} == PINS


@pytest.mark.parametrize("outputs", ["labels", "text"])
def test_outputs_that_are_named_but_absent_are_no_outputs(outputs):
    records, vectors, _ = world(outputs="none")
    selector = DistillationSelector.from_examples(
        records,
        CallableEmbedder(lambda texts: torch.ones(len(texts), WIDTH)),
        settings=make_settings(k=4, outputs=outputs),
        vectors=vectors,
    )
    assert len(selector.select("query")) == 4


# -- determinism --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_calibration_bit_for_bit(device, dtype):
    first = calibrated(3, device=device, dtype=dtype)
    assert calibrated(3, device=device, dtype=dtype) == first


def test_another_seed_holds_out_other_examples():
    settings = [change_settings(SETTINGS, seed=seed) for seed in (0, 1)]
    losses = [[trial.loss for trial in calibrated(3, each, flipped=0.4).trials] for each in settings]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("outputs", ["labels", "text"])
def test_the_order_of_the_pool_and_duplicates_in_it_change_no_bit(outputs):
    records, vectors, answers = world(4, outputs=outputs, n=120)
    order = random.Random(0).sample(range(120), 120)
    copies = [*range(120), *range(0, 120, 7)]
    one = calibrate(featured(records, vectors, answers, outputs), SETTINGS)
    for rows in (order, copies):
        again = [records[i] if j < 120 else {**records[i], "id": f"~{j}"} for j, i in enumerate(rows)]
        two = calibrate(featured(again, vectors[rows], answers[rows], outputs), SETTINGS)
        assert repr(vars(two)) == repr(vars(one))  # NaN is not equal to itself


def test_the_random_state_of_others_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    calibrated()
    assert torch.equal(torch.get_rng_state(), before)


# -- what is held out ---------------------------------------------------------------------------------------------


def hold_out(features, settings, rows):
    apart = HeldOutRows.apart(features, rows, settings.search.shortlist)
    return PseudoQueries.build(features, settings, KernelRegression(Gaussian(0.3), 0.1), apart)


@pytest.mark.parametrize("tasks", [None, ("left", "right")])
def test_held_out_examples_and_their_texts_are_candidates_of_none(tasks):
    records, vectors, _ = world(5, tasks=tasks)
    rows = torch.arange(0, 160, 4)
    # Row 1 has the text of row 0 in capitals: not held out itself, but no candidate of row 0.
    records[1]["input"] = records[0]["input"].upper()
    features = featured(records, vectors)
    task = hold_out(features, make_settings(k=4, shortlist=160), rows)
    for i, row in enumerate(rows.tolist()):
        candidates = task.x[i][task.constraints.valid[i]]
        where = (candidates[:, None, :] == features.x[None]).all(-1).nonzero()[:, 1].tolist()
        held = set(rows.tolist()) | ({1} if row == 0 else set())
        same = [j for j in range(160) if tasks is None or features.task[j] == features.task[row]]
        assert sorted(where) == [j for j in same if j not in held]


def test_the_outputs_of_held_out_examples_are_hidden_from_their_estimates():
    records, vectors, _ = world(6)
    rows = torch.arange(0, 160, 4)
    swapped = [dict(record) for record in records]
    for a, b in zip(rows.tolist(), [*rows.tolist()[1:], 0], strict=True):
        swapped[a]["output"] = records[b]["output"]  # held-out outputs change places; the prior stays
    one, two = (featured(given, vectors) for given in (records, swapped))
    assert not torch.equal(one.label[rows], two.label[rows])
    first, second = (hold_out(features, SETTINGS, rows) for features in (one, two))
    assert torch.equal(first.target.v, second.target.v) and torch.equal(first.v, second.v)


def test_with_traffic_the_examples_near_it_are_held_out():
    """One half of the pool is predictable, the other is not; the loss is that of the half that the traffic is in."""
    rng = np.random.default_rng(0)
    side = np.arange(200) % 2
    vectors = rng.normal(size=(200, WIDTH)) * 0.3
    vectors[:, 0] += np.where(side == 0, 3, -3)
    vectors[:, 1] += np.where(np.arange(200) % 4 < 2, 2, -2)
    label = np.where(side == 0, np.arange(200) % 4 < 2, rng.random(200) < 0.5)
    records = [{"id": f"{i:03d}", "input": f"text {i}", "output": f"{label[i]}"} for i in range(200)]
    queries = torch.tensor(rng.normal(size=(20, WIDTH)) * 0.3)
    losses = []
    for place in (3.0, -3.0):
        traffic = queries.clone()
        traffic[:, 0] += place
        traffic = torch.nn.functional.normalize(traffic, dim=-1)
        losses.append(calibrate(featured(records, torch.tensor(vectors)), SETTINGS, traffic).chosen.loss)
    assert losses[0] < 0.05 and losses[1] > 0.3


def test_traffic_that_repeats_itself_holds_out_as_many():
    features = featured(*world(3)[:2])
    once = calibrate(features, SETTINGS, features.x[:1])
    often = calibrate(features, SETTINGS, features.x[:1].expand(500, -1))
    assert once.pseudo_queries == often.pseudo_queries == 40 and once.trials == often.trials


# -- what the numbers are -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", ["labels", "text"])
def test_the_regression_is_the_leave_one_out_optimum_over_neighbours_of_the_own_task(outputs):
    records, vectors, answers = world(7, outputs=outputs, n=70, tasks=("left", "right"), flipped=0.3)
    records[9]["input"] = records[7]["input"].upper()  # one text: neither helps the other
    features = featured(records, vectors, answers, outputs)
    found = calibrate(features, make_settings(k=4, shortlist=16)).regression
    x = features.x.numpy()
    near, values = [], []
    for i in range(70):
        others = [j for j in range(70) if j != i and j % 2 == i % 2 and {i, j} != {7, 9}]
        others = sorted(others, key=lambda j: -float(x[i] @ x[j]))[:16]
        near.append(x[others] @ x[i])
        values.append(features.v[others])
    similarities, values = torch.tensor(np.array(near)), torch.stack(values)
    prior = features.v.mean(0)
    expected = fit_by_leave_one_out(similarities, values, features.v, prior, labels=outputs == "labels")
    assert found.kernel.temperature == expected.temperature
    assert found.shrinkage == pytest.approx(expected.shrinkage, rel=1e-12)


def held_out_trial(outputs):
    """One option tried on held-out rows: features, rows, what it chose, and how it was scored."""
    records, vectors, answers = world(8, outputs=outputs, flipped=0.3)
    features = featured(records, vectors, answers, outputs)
    found = calibrate(features, SETTINGS)
    rows = torch.arange(0, 160, 3)
    apart = HeldOutRows.apart(features, rows, SETTINGS.search.shortlist)
    pseudo = PseudoQueries.build(features, SETTINGS, found.regression, apart)
    option = found.trials[len(found.trials) // 2].parameters
    (result,) = pseudo.try_all([option], 4, adaptive=False)
    target = replace(pseudo.target, neighbourhood=option.neighbourhood)
    blocks = compute_gram_blocks(option.kernel, pseudo.x, pseudo.v, target, pseudo.value_radius)
    reader = ReaderLoss.build(target, option.profile, pseudo.outputs) if outputs == "labels" else None
    objective = Objective.build(blocks, option.output_share, option.weights, reader)
    chosen = greedy_search(objective, pseudo.constraints, 4).chosen
    return features, rows, pseudo, option, chosen, result


def assert_scored(expected, scored, losses):
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)
    assert scored.loss == pytest.approx(np.mean(expected), abs=1e-12)
    half = 1.96 * np.std(expected, ddof=1) / len(expected) ** 0.5
    assert scored.interval == pytest.approx((scored.loss - half, scored.loss + half), abs=1e-12)


def test_labels_are_scored_by_what_the_reader_is_expected_to_lose():
    features, rows, pseudo, option, chosen, result = held_out_trial("labels")
    scored, losses, preference = result
    expected, wrong = [], []
    for i, row in enumerate(rows.tolist()):
        shares = pseudo.v[i][chosen[i]].numpy().mean(0)
        mass = np.exp((option.profile.follow + option.profile.recency) * shares)
        true = int(features.v[row].argmax())
        expected.append(-np.log(mass[true] / mass.sum()))
        top = np.flatnonzero(shares >= shares.max() - 1e-9)
        wrong.append(1 - (true in top) / len(top))
    assert_scored(expected, scored, losses)
    assert scored.error == pytest.approx(np.mean(wrong), abs=1e-12)
    assert preference == option.weights.reader and result.mean_loss == pytest.approx(np.mean(expected))


def test_free_text_is_scored_by_the_distance_of_the_nearest_output_shown():
    features, rows, pseudo, _, chosen, (scored, losses, preference) = held_out_trial("text")
    expected = []
    for i, row in enumerate(rows.tolist()):
        true = features.v[row].numpy()
        shown = pseudo.v[i][chosen[i]].numpy()
        expected.append(min([*(((output - true) ** 2).sum() for output in shown), (true**2).sum()]))
    assert_scored(expected, scored, losses)
    assert scored.error is None
    of_all = [((pseudo.v[i][chosen[i]] - features.v[row]) ** 2).sum(-1).mean() for i, row in enumerate(rows.tolist())]
    assert preference == pytest.approx(float(np.mean(of_all)), rel=1e-6)


def test_labels_drawn_at_random_are_told_from_those_that_the_inputs_speak_for():
    records, vectors, _ = world(n=800, spread=0.2, flipped=0.4)
    clean, _, _ = world(n=800, spread=0.2)
    features = featured(records, vectors)
    calibration = calibrate(features, SETTINGS)
    part = calibration.regression.ridge
    assert part.noise == pytest.approx(0.4, abs=0.12)
    wrong = sum(a["output"] != b["output"] for a, b in zip(records, clean, strict=True)) / 800
    said = re.search(r"about (\d+) % of the labels seem to be wrong", calibration.source)
    assert int(said[1]) / 100 == pytest.approx(wrong, abs=0.1)
    neighbours = find_neighbours(features, encode_rows(features, torch.arange(800)), SETTINGS.search.shortlist)
    estimate = estimate_query_target(features, neighbours, calibration.regression).v[:, 0]
    believed = part.believe(features.v, estimate)
    for row in range(0, 800, 40):
        joint = [
            float(estimate[row, c]) * ((1 - part.noise) * float(features.v[row, c]) + part.noise / 4) for c in range(4)
        ]
        assert believed[row].tolist() == pytest.approx([value / sum(joint) for value in joint], abs=1e-9)
    names = sorted({record["output"] for record in clean})
    true = torch.tensor([names.index(record["output"]) for record in clean])  # rows stand in the order of ids
    assert (believed.argmax(-1) == true).double().mean() > 0.95 > (features.label == true).double().mean()


def test_noise_is_found_in_fewer_rows_of_a_large_pool(monkeypatch):
    records, vectors, _ = world(n=800, spread=0.2, flipped=0.4)
    features = featured(records, vectors)
    rows_of = []
    build = regression_fit._LabelCases.build

    def note(pool, regression, left_out):
        rows, neighbours = left_out.rows, left_out.neighbours
        rows_of.append(len(rows))
        expected = find_neighbours(pool, encode_rows(pool, rows), SETTINGS.search.shortlist)
        assert torch.equal(neighbours.index, expected.index) and torch.equal(neighbours.valid, expected.valid)
        assert torch.equal(neighbours.q, expected.q)
        return build(pool, regression, left_out)

    monkeypatch.setattr(regression_fit._LabelCases, "build", note)
    for pairs in (regression_fit.PAIRS_FOR_NOISE, 600 * 800, 0):
        monkeypatch.setattr(regression_fit, "PAIRS_FOR_NOISE", pairs)
        assert calibrate(features, SETTINGS).regression.ridge.noise == pytest.approx(0.4, abs=0.12)
    assert rows_of == [512, 800, 512, 600, 512], "the third time the first 512 serve both"


def test_pseudo_queries_of_a_large_pool_are_looked_up_once_with_the_rows_that_are_left_out(monkeypatch):
    """Each with the neighbours that it has without them, and none of them is a neighbour."""
    records, vectors, _ = world(n=800, spread=0.2, flipped=0.2)
    features = featured(records, vectors)
    monkeypatch.setattr(held_out, "LARGE", 799)
    found, looked_up = [], []
    build, find = PseudoQueries.build, held_out.find_neighbours
    monkeypatch.setattr(PseudoQueries, "build", lambda *given: found.append(given[3]) or build(*given))
    monkeypatch.setattr(held_out, "find_neighbours", lambda *a, **k: looked_up.append(len(a[1])) or find(*a, **k))
    calibration = calibrate(features, SETTINGS)
    assert looked_up == [512, 288] and calibration.pseudo_queries == 192 and len(calibration.trials) == 54
    assert calibration.regression.ridge.noise == pytest.approx(0.2, abs=0.1)
    (pseudo,) = found
    similarity = (features.x[pseudo.rows].double() @ features.x.double().T).index_fill(1, pseudo.rows, -2)
    for row, index, valid in zip(similarity, pseudo.neighbours.index, pseudo.neighbours.valid, strict=True):
        assert bool(valid.all()) and sorted(row.topk(len(index)).indices.tolist()) == index.tolist()
    again = LeftOutRows.draw(features, SETTINGS.search.shortlist, torch.Generator().manual_seed(SETTINGS.seed), 192)
    assert torch.equal(again.order[:192], pseudo.rows) and torch.equal(again.take(600).rows, again.order[:600])


@pytest.mark.parametrize(("n", "flipped"), [(800, 0.0), (120, 0.3)], ids=["no noise", "too few to tell"])
def test_labels_are_believed_where_no_noise_is_found(n, flipped):
    records, vectors, _ = world(n=n, spread=0.2, flipped=flipped)
    features = featured(records, vectors)
    calibration = calibrate(features, SETTINGS)
    part = calibration.regression.ridge
    assert part.noise == 0 and "wrong" not in calibration.source
    assert part.believe(features.v, features.v * 0.1 + 0.3) is features.v


def test_the_ridge_regression_joins_by_the_likelihood_of_what_was_left_out():
    """Against a plain fit without each example, for a pool whose outputs follow one direction of the embedding."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(160, 6))
    outputs = ["b" if row[0] + 0.5 * rng.normal() > 0 else "a" for row in vectors]
    records = [{"input": f"text {i}", "output": output} for i, output in enumerate(outputs)]
    features = featured(records, torch.tensor(vectors))
    part = calibrate(features, SETTINGS).regression.ridge
    assert part is not None and part.weight > 0
    order = torch.arange(len(features))
    scores = predict_by_ridge(features, encode_rows(features, order), part.penalty)
    x, v = features.x.double().numpy(), features.v.double().numpy()
    for i in range(0, 160, 20):
        others = (order != i).numpy()
        expected = fit_ridge_plainly(x[others], v[others], part.penalty, x[i])
        np.testing.assert_allclose(scores[i].double(), expected, atol=1e-6)


def linear_world(rng, *, noise):
    """Inputs around clusters, and embedded outputs that follow the input everywhere alike but for a noise."""
    records, vectors, _ = world(5, outputs="text", spread=0.6)
    vectors[9] = vectors[8]
    answers = vectors / vectors.norm(dim=-1, keepdim=True) @ torch.tensor(rng.normal(size=(WIDTH, WIDTH)))
    answers = answers + noise * torch.tensor(rng.normal(size=answers.shape))
    records[7] |= {"output": None}
    records[9]["input"] = records[8]["input"].upper()  # one text: neither helps the other
    return featured(records, vectors, answers, "text")


def test_two_regressions_of_embedded_outputs_are_weighed_by_least_squares():
    """Against a regression solved without each example's text, and weights on a grid, in NumPy."""
    features = linear_world(np.random.default_rng(4), noise=0.4)
    found = calibrate(features, SETTINGS).regression
    part = found.ridge
    assert part.weight > 0 and part.penalty in regression_fit.VALUE_PENALTIES and part.fitted_to == "text"
    neighbours = find_neighbours(features, encode_rows(features, torch.arange(160)), 24)
    kernel = estimate_query_target(features, neighbours, replace(found, ridge=None)).v[:, 0].numpy()
    x, v, known = features.x.numpy(), features.v.numpy(), features.label.numpy() >= 0
    text = features.text.numpy()

    def regress(penalty):
        rows = []
        for i in range(160):
            others = known & (text != text[i])
            rows.append(fit_ridge_plainly(x[others], v[others], penalty, x[i]))
        return np.array(rows)

    def loss(of_kernel, of_ridge, ridge):
        return ((v - of_kernel * kernel - of_ridge * ridge)[known] ** 2).sum()

    ridges = {penalty: regress(penalty) for penalty in regression_fit.VALUE_PENALTIES}
    reached = loss(part.exponent, part.weight, ridges[part.penalty])
    grid = np.linspace(0, 1.2, 25)
    assert reached <= min(loss(a, b, ridge) for ridge in ridges.values() for a in grid for b in grid)
    assert reached < 0.95 * loss(1, 0, ridges[part.penalty])
    joined = estimate_query_target(features, neighbours, found)
    np.testing.assert_allclose(joined.expected[:, 0], ridges[part.penalty], atol=1e-9)
    by_hand = part.exponent * kernel + part.weight * ridges[part.penalty]
    np.testing.assert_allclose(joined.v[:, 0], by_hand, atol=1e-9)


@pytest.mark.parametrize("output_mode", ["text", "labels"])
def test_what_the_ridge_regression_alone_says_is_kept_of_embedded_outputs_only(output_mode):
    records, vectors, answers = world(8, outputs=output_mode, flipped=0.3)
    features = featured(records, vectors, answers, output_mode)
    neighbours = find_neighbours(features, encode_rows(features, torch.arange(4)), 24)
    plain = replace(calibrate(features, SETTINGS).regression, ridge=None)
    by_neighbours = estimate_query_target(features, neighbours, plain)
    assert by_neighbours.expected is None
    for fitted_to in ("labels", "text"):
        ridge = RidgePart(1.0, 0.5, 0.5, fitted_to=fitted_to)
        target = estimate_query_target(features, neighbours, replace(plain, ridge=ridge))
        assert (target.expected is None) == (output_mode == "labels" or fitted_to == "labels")
        assert torch.equal(target.v, by_neighbours.v) == (fitted_to != output_mode), "a pool whose outputs changed"


def test_a_ridge_regression_that_tells_nothing_joins_no_embedded_outputs():
    """Each text stands twice, a little apart, with its own output: neighbours say all that there is to say."""
    rng = np.random.default_rng(6)
    vectors = np.repeat(rng.normal(size=(80, WIDTH)), 2, axis=0)
    vectors += 1e-3 * rng.normal(size=vectors.shape)
    answers = torch.tensor(np.repeat(rng.normal(size=(80, WIDTH)), 2, axis=0))
    records = [{"id": f"{i:04d}", "input": f"text {i}", "output": f"answer {i}"} for i in range(160)]
    assert calibrate(featured(records, torch.tensor(vectors), answers, "text"), SETTINGS).regression.ridge is None


@pytest.mark.parametrize("known", [1, 3, 7])
def test_few_outputs_are_no_reason_for_a_ridge_regression(known):
    records, vectors, answers = world(5, outputs="text", n=60)
    for record in records[known:]:
        record["output"] = None
    assert calibrate(featured(records, vectors, answers, "text"), SETTINGS).regression.ridge is None


def test_where_outputs_follow_neighbours_the_estimate_is_at_least_as_likely_with_the_ridge_regression():
    features = featured(*world(8, flipped=0.3)[:2])
    with_ridge = calibrate(features, SETTINGS).regression
    rows = torch.arange(0, 160, 2)
    neighbours = find_neighbours(features, encode_rows(features, rows), 24)

    def loss(regression):
        estimate = estimate_query_target(features, neighbours, regression).v[:, 0]
        return float(-(features.v[rows] * estimate.clamp_min(1e-12).log()).sum(-1).mean())

    assert loss(with_ridge) <= loss(replace(with_ridge, ridge=None)) + 0.02


# -- static prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 4, 6])
def test_a_static_prompt_weighs_interference_by_what_it_can_show(k):
    records, vectors, _ = world(1, n=160, classes=6, flipped=0.2)
    features = featured(records, vectors)
    found = calibrate(features, make_settings(k=k, shortlist=24)).static_parameters
    shares = np.sort(np.bincount(features.label))[::-1] / 160
    assert found.weights == ObjectiveWeights(interference=pytest.approx(shares[:k].sum()))
    distances = ((features.x[:, None] - features.x[None]) ** 2).sum(-1)[*torch.triu_indices(160, 160, 1)]
    assert found.kernel.temperature == pytest.approx(float(distances.median()) / 16, rel=0.02)


def test_tagged_tasks_are_each_measured_by_their_own_outputs():
    records, vectors, _ = world(2, n=160, classes=3, tasks=("left", "right"))
    assert (
        calibrate(featured(records, vectors), make_settings(k=3, shortlist=24)).static_parameters.weights.interference
        == 1.0
    )


def test_free_text_is_never_beyond_a_prompt():
    records, vectors, answers = world(3, outputs="text")
    found = calibrate(featured(records, vectors, answers, "text"), SETTINGS).static_parameters
    assert found.weights == ObjectiveWeights(interference=1.0)


def test_pins_hold_for_static_prompts_too():
    pins = {name: value for name, value in PINS.items() if name != "neighbourhood"}
    found = calibrated(settings=make_settings(k=4, shortlist=24, **pins)).static_parameters
    assert {name: getattr(found, name) for name in pins} == pins
    loose = calibrated(settings=make_settings(k=4, shortlist=24, weights=PINS["weights"])).static_parameters
    assert loose.weights == PINS["weights"] and isinstance(loose.kernel, Gaussian)


@pytest.mark.parametrize("flipped", [0.0, 0.5])
def test_every_interval_contains_its_loss(flipped):
    found = calibrated(9, flipped=flipped)
    for trial in found.trials:
        low, high = trial.interval
        assert low <= trial.loss <= high and trial.loss >= 0 and 0 <= trial.error <= 1
        assert (low < high) == (0 < trial.loss)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_small_where_outputs_follow_inputs_and_at_chance_where_they_do_not(seed):
    assert calibrated(seed, spread=0.15).chosen.error < 0.03
    assert calibrated(seed, spread=0.15).chosen.loss < 0.2 < 0.6 < calibrated(seed, flipped=1.0).chosen.loss


def test_with_flipped_outputs_joint_kernel_and_penalty_lose_less_than_neither():
    """Never worse than neither by more than a standard error (a near-tie), and better over the seeds together."""
    chosen, neither = [], []
    for seed in range(4):
        found = calibrated(seed, SETTINGS, n=400, flipped=0.3)
        pinned = change_settings(SETTINGS, output_share=0.0, weights=ObjectiveWeights(interference=0.0))
        plain = calibrated(seed, pinned, n=400, flipped=0.3).trials
        assert len(plain) == 3 * len(NEIGHBOURHOODS)
        best = min(plain, key=lambda trial: trial.loss)
        assert found.chosen.loss <= best.loss + (best.interval[1] - best.interval[0]) / (2 * 1.96)
        chosen.append(found.chosen.loss)
        neither.append(best.loss)
    assert sum(chosen) < sum(neither)


@pytest.mark.parametrize("seed", range(3))
def test_the_chosen_is_within_one_paired_standard_error_of_the_smallest_loss(seed):
    found = calibrated(seed, flipped=0.4)
    best = min(found.trials, key=lambda trial: trial.loss)
    error = (best.interval[1] - best.interval[0] + found.chosen.interval[1] - found.chosen.interval[0]) / (2 * 1.96)
    assert found.chosen.loss <= best.loss + error
    assert found.chosen.parameters.weights.reader <= best.parameters.weights.reader


@pytest.mark.parametrize("seed", range(3))
def test_for_free_text_a_near_tie_of_the_smallest_squared_distance_is_chosen(seed):
    records, vectors, answers = world(seed, outputs="text", flipped=0.3)
    found = calibrate(featured(records, vectors, answers, "text"), SETTINGS)
    best = min(found.trials, key=lambda trial: trial.loss)
    error = (best.interval[1] - best.interval[0] + found.chosen.interval[1] - found.chosen.interval[0]) / (2 * 1.96)
    assert best.loss <= found.chosen.loss <= best.loss + error
    assert found.chosen.loss < max(trial.loss for trial in found.trials)


# -- in a selector ------------------------------------------------------------------------------------------------


def test_a_selector_keeps_its_calibration_when_examples_come_until_it_is_asked():
    records, vectors, _ = world(1, n=160)
    lookup = dict(zip((record["input"] for record in records), vectors, strict=True))
    embedder = CallableEmbedder(lambda texts: torch.stack([lookup[text] for text in texts]))
    selector = DistillationSelector.from_examples(records[:120], embedder, settings=SETTINGS)
    before = selector.calibration
    selector.add_examples(records[120:])
    selector.remove(records[0]["id"])
    assert selector.calibration is before and before.pseudo_queries == 30
    after = selector.calibrate()
    assert selector.calibration is after and after.pseudo_queries == 39
    assert after == calibrate(featured(records[1:], vectors[1:]), SETTINGS)
