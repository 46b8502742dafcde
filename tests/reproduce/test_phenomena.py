"""The phenomena: exact where theory is exact, measured on a real small LM, and the page that shows them."""

import json
import math
import re

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from kdprompt.cli.app import app
from kdprompt.reproduce import phenomena
from kdprompt.reproduce.phenomena import bias_and_mmd, gap_and_length, rank_correlation


def test_r2_has_slope_one_on_synthetic_attention():
    found = bias_and_mmd(problems=50)
    assert found.figures["slope"] == pytest.approx(1, abs=1e-9) and found.figures["R²"] == pytest.approx(1, abs=1e-9)
    assert np.allclose(found.x, found.y, rtol=1e-9)


def test_the_generalisation_gap_falls_at_least_as_the_law_says():
    found = gap_and_length(draws=200)
    assert all(value > 0 for value in found.y) and found.figures["slope"] <= -0.45 and found.figures["R²"] > 0.9
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


@pytest.mark.llm
@pytest.mark.slow
def test_reproduce_writes_a_page_with_numbers_beside_it(tmp_path, small_lm, embedder):
    command = ["reproduce", "--output", str(tmp_path), "--prompts", "10"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "phenomena.json").read_text())
    names = [item["name"] for item in found["phenomena"]]
    assert (
        len(names) == 2 + 2 * 5 and "bias and loss, support, the model's keys" in names and found["about"]["seed"] == 0
    )
    for item in found["phenomena"]:
        assert len(item["x"]) == len(item["y"]) > 0 and all(math.isfinite(v) for v in [*item["x"], *item["y"]])
        assert all(math.isfinite(value) for value in item["figures"].values())
    pulled = next(item for item in found["phenomena"] if item["name"] == "interference, support")
    assert pulled["figures"]["correlation of R6 on the heads with the share"] > 0.5
    page = (tmp_path / "phenomena.html").read_text()
    assert page.count("<svg") == len(names) and not re.search(r"(src|href)=.https?:|<script|<link", page)


@pytest.mark.llm
def test_a_reading_scores_the_true_label(small_lm, embedder):
    from kdprompt.cli.reproduce import _datasets
    from kdprompt.evaluate import EmbeddingCache

    support, _ = _datasets(None)
    reading = phenomena.Reading(small_lm, support, EmbeddingCache(embedder, name="minilm"))
    (rows, case), *_ = reading.draws(3, 2)
    shown = reading.shown(rows)
    scores = small_lm.label_scores(reading.template.text(shown, case.query.text), support.labels).double()
    expected = -float(scores.log_softmax(-1)[support.labels.index(case.output)])
    assert reading.loss(shown, case) == pytest.approx(expected, rel=1e-5)
    assert reading.draws(3, 2) == reading.draws(3, 2)
