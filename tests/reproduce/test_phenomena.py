"""The phenomena: exact where theory is exact, measured on a real small LM, and the page that shows them."""

import json
import math
import re

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from kdprompt.cli.app import app
from kdprompt.reproduce import (
    LanguageModelSetup,
    fit_line,
    measure_bias_and_mmd,
    measure_gap_and_length,
    rank_correlation,
)
from kdprompt.reproduce.phenomenon import judge_above, judge_below, judge_equal


def test_r2_has_slope_one_on_synthetic_attention():
    found = measure_bias_and_mmd(problems=50)
    assert found.figures["slope"] == pytest.approx(1, abs=1e-9) and found.figures["R²"] == pytest.approx(1, abs=1e-9)
    assert np.allclose(found.x, found.y, rtol=1e-9)
    assert [verdict.word for verdict in found.verdicts] == ["holds"]


def test_the_generalisation_gap_falls_at_least_as_the_law_says():
    found = measure_gap_and_length(draws=200)
    assert all(value > 0 for value in found.y) and found.figures["slope"] <= -0.45 and found.figures["R²"] > 0.9
    assert [verdict.word for verdict in found.verdicts] == ["holds"]
    bound = [3 / math.sqrt(n) for n in found.x]
    assert all(gap < limit for gap, limit in zip(found.y, bound, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_rank_correlation_is_scipys_and_its_interval_holds_it(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 6, size=60).astype(float)  # with ties
    y = x + rng.normal(size=60) * 3
    found = rank_correlation(x.tolist(), y.tolist())
    assert found["Spearman"] == pytest.approx(float(spearmanr(x, y).statistic))
    assert found["low"] < found["Spearman"] < found["high"]
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])["Spearman"] == 0


def spearman(x, y):
    """The definition: the correlation of ranks, each rank by counting, ties at their mean."""
    ranks = [[sum(b < a for b in side) + (sum(b == a for b in side) - 1) / 2 for a in side] for side in (x, y)]
    a, b = ([rank - sum(side) / len(side) for rank in side] for side in ranks)
    scale = math.sqrt(sum(u * u for u in a) * sum(v * v for v in b))
    return sum(u * v for u, v in zip(a, b, strict=True)) / scale if scale else 0.0


def test_rank_correlation_and_its_interval_are_those_of_a_naive_bootstrap():
    rng = np.random.default_rng(7)
    x = rng.integers(0, 5, size=25).astype(float).tolist()
    y = (np.array(x) + rng.normal(size=25) * 2).round(1).tolist()
    found = rank_correlation(x, y, seed=3)
    assert found["Spearman"] == pytest.approx(spearman(x, y), abs=1e-12)
    samples = [rng.integers(0, 25, size=25) for _ in range(2000)]
    naive = sorted(spearman([x[i] for i in sample], [y[i] for i in sample]) for sample in samples)
    error = 4 * math.sqrt(2 * 0.025 * 0.975 / 2000)  # both sides are sampled
    for end, level in ((found["low"], 0.025), (found["high"], 0.975)):
        below, above = (naive[min(1999, max(0, round(1999 * (level + sign * error))))] for sign in (-1, 1))
        assert below <= end <= above
    assert found == rank_correlation(x, y, seed=3) != rank_correlation(x, y, seed=4)


@pytest.mark.parametrize(("x", "y"), [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [5.0, 5.0])])
def test_what_does_not_vary_has_no_correlation(x, y):
    assert rank_correlation(x, y) == {"Spearman": 0.0, "low": 0.0, "high": 0.0}


def test_the_line_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = 3 - 2 * x + rng.normal(size=40)
    slope, intercept = np.linalg.lstsq(np.stack([x, np.ones(40)], 1), y, rcond=None)[0]
    left = np.square(y - slope * x - intercept).sum()
    half = 2.02439416391197 * np.sqrt(left / 38 / np.square(x - x.mean()).sum())  # Student's t, 38 degrees, 97.5 %
    expected = {
        "slope": slope,
        "low": slope - half,
        "high": slope + half,
        "R²": 1 - left / np.square(y - y.mean()).sum(),
    }
    assert fit_line(x.tolist(), y.tolist()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.1, 0.3, "holds", "does not hold"),
        (-0.3, -0.1, "does not hold", "holds"),
        (-0.1, 0.3, "undecided", "undecided"),
        (0.0, 0.3, "undecided", "undecided"),
    ],
)
def test_a_claim_is_judged_by_the_whole_interval(low, high, above, below):
    found = {"Spearman": 0.1, "low": low, "high": high}
    assert judge_above("claim", found).word == above and judge_below("claim", found).word == below
    shifted = {"slope": 0.1, "low": low - 0.5, "high": high - 0.5}
    assert judge_above("claim", shifted, bound=-0.5).word == above
    assert judge_below("claim", shifted, bound=-0.5).word == below


def test_a_verdict_says_what_was_measured():
    verdict = judge_above("it is", {"Spearman": 0.1, "low": -0.1, "high": 0.3})
    assert str(verdict) == "it is: undecided, 0.10 [-0.10, 0.30]"


def test_what_is_exact_is_judged_by_its_value():
    assert judge_equal("slope is 1", {"slope": 1 + 1e-9, "low": 0.9, "high": 1.1}, expected=1).word == "holds"
    assert judge_equal("slope is 1", {"slope": 1.01, "low": 0.9, "high": 1.1}, expected=1).word == "does not hold"


@pytest.mark.llm
@pytest.mark.slow
def test_reproduce_writes_a_page_with_numbers_beside_it(tmp_path, small_lm, embedder):
    command = ["reproduce", "--output", str(tmp_path), "--prompts", "10"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    found, page = (json.loads((tmp_path / "phenomena.json").read_text()), (tmp_path / "phenomena.html").read_text())
    names = [item["name"] for item in found["phenomena"]]
    assert (
        len(names) == 2 + 2 * 5 and "bias and loss, support, the model's keys" in names and found["about"]["seed"] == 0
    )
    for item in found["phenomena"]:
        assert len(item["x"]) == len(item["y"]) > 0 and all(math.isfinite(v) for v in [*item["x"], *item["y"]])
        assert all(math.isfinite(value) for value in item["figures"].values())
        assert item["verdicts"] and all(verdict["word"] in page for verdict in item["verdicts"])
    pulled = next(item for item in found["phenomena"] if item["name"] == "interference, support")
    assert pulled["figures"]["correlation of R6 on the heads with the share"] > 0.5
    assert page.count("data:image/svg+xml") == len(names) and not re.search(r"(src|href)=.https?:|<script|<link", page)


@pytest.mark.llm
def test_the_loss_is_that_of_the_true_label(small_lm, embedder):
    from kdprompt.cli.reproduce import _datasets
    from kdprompt.evaluate import EmbeddingCache

    support, _ = _datasets(None)
    setup = LanguageModelSetup(small_lm, support, EmbeddingCache(embedder, name="minilm"))
    prompt, *_ = setup.draw_prompts(3, 2)
    shown, case = setup.demonstrations(prompt.rows), prompt.case
    scores = small_lm.label_scores(setup.template.text(shown, case.query.text), support.labels).double()
    expected = -float(scores.log_softmax(-1)[support.labels.index(case.output)])
    assert setup.loss(shown, case) == pytest.approx(expected, rel=1e-5)
    assert setup.draw_prompts(3, 2) == setup.draw_prompts(3, 2)
