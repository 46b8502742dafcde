"""Tables made again from the cells of the repository's benchmark files: the rows that the files hold."""

import json
import math
from pathlib import Path

import pytest

from kdprompt.evaluate import Results, join_results

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DENSITY = 0.05844507  # of the standard normal distribution at its 2.5 % quantile


def allowed(values):
    """Five standard errors of the difference of two bootstraps of 10,000 samples, and a step of the mean."""
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / len(values)
    step = 1 / len(values) if len(set(values)) <= 3 else 0.0
    return 5 * math.sqrt(2 * 0.025 * 0.975 / 10_000) * deviation / DENSITY + step + 1e-9


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.json")), ids=lambda path: path.stem)
def test_files_of_the_repository_hold_figures_and_no_text_of_the_data_sets(path):
    cells = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
    assert not any(cell.get("answered") for cell in cells)


@pytest.mark.parametrize("name", ["mixed", "noise", "orders", "static-k4"])
def test_rows_are_those_of_the_file_and_intervals_differ_by_their_sampling_alone(name):
    results = Results.model_validate_json((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))
    again = join_results([results])
    scores = {(cell.dataset, cell.suite, cell.k, cell.selector): cell.score for cell in results.cells}
    for before, after in zip(results.tables, again.tables, strict=True):
        key = before.dataset, before.suite, before.k
        reference = scores[(*key, before.reference)]
        sampled = {"low", "high", "against", "loss_against"}
        for old, new in zip(before.rows, after.rows, strict=True):
            assert new.model_dump(exclude=sampled) == old.model_dump(exclude=sampled)
            pairs = [(old, new, scores[(*key, old.selector)])]
            if old.against is not None:
                assert new.against is not None and new.against.p == pytest.approx(old.against.p, rel=1e-12)
                for count in ("difference", "wins", "ties", "losses"):
                    assert getattr(new.against, count) == getattr(old.against, count)
                differences = [a - b for a, b in zip(reference, pairs[0][2], strict=True)]
                pairs.append((old.against, new.against, differences))
            for first, second, values in pairs:
                assert second.low == pytest.approx(first.low, abs=allowed(values))
                assert second.high == pytest.approx(first.high, abs=allowed(values))
