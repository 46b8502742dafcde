"""Drift: alarms at their level where nothing changed, surely where much did, and proposals that cover what is new."""

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from kdprompt.cli.app import app
from kdprompt.diagnose import measure_drift


def cloud(n, centre, seed, d=8):
    at = torch.nn.functional.one_hot(torch.tensor(centre), d).float()
    noise = 0.25 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(at + noise, dim=-1)


def test_alarms_without_drift_keep_their_level():
    alarms = sum(
        measure_drift(cloud(60, 0, 2 * i), cloud(30, 0, 2 * i + 1), level=0.1, permutations=99, count=0).alarm
        for i in range(100)
    )
    assert alarms <= 20, "more would come by chance once in a thousand times"


def test_a_mixed_in_kind_raises_the_alarm_and_is_proposed():
    window = torch.cat([cloud(80, 0, 1), cloud(12, 1, 2), cloud(8, 2, 3)])
    found = measure_drift(cloud(300, 0, 0), window, count=8)
    assert found.alarm and "has drifted" in str(found)
    assert all(i >= 80 for i in found.label_next) and len(set(found.label_next)) == 8
    assert {i >= 92 for i in found.label_next} == {True, False}, "both new kinds are among the proposals"
    assert not measure_drift(cloud(300, 0, 0), cloud(100, 0, 1)).alarm


def test_the_witness_is_its_formula():
    reference, window = cloud(9, 0, 0), cloud(5, 1, 1)
    found = measure_drift(reference, window, permutations=99)
    both = torch.cat([reference, window]).double()
    squared = sorted(float((a - b) @ (a - b)) for i, a in enumerate(both) for b in both[i + 1 :])
    temperature = squared[(len(squared) - 1) // 2]

    def kappa(a, b):
        return math.exp(-float((a - b).double() @ (a - b).double()) / (2 * temperature))

    for i, q in enumerate(window):
        own = sum(kappa(q, b) for j, b in enumerate(window) if j != i) / 4
        assert float(found.witness[i]) == pytest.approx(own - sum(kappa(q, a) for a in reference) / 9, abs=1e-4)
        assert float(found.similarity[i]) == pytest.approx(max(float(q @ a) for a in reference), abs=1e-5)


def test_no_more_is_proposed_than_there_is():
    found = measure_drift(cloud(9, 0, 0), cloud(5, 1, 1), count=20)
    assert sorted(found.label_next) == [0, 1, 2, 3, 4]
    assert measure_drift(cloud(9, 0, 0), cloud(5, 1, 1), count=0).label_next == ()


def test_large_samples_are_thinned():
    found = measure_drift(cloud(3000, 0, 0), cloud(2100, 0, 1), permutations=20)
    assert (found.test.n, found.test.m, len(found.witness)) == (2048, 2048, 2100) and not found.alarm


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(ValueError, match="at least 2 texts in the window, got 1"):
        measure_drift(cloud(9, 0, 0), cloud(1, 0, 1))
    with pytest.raises(ValueError, match=r"got 0\.001 with 99 permutations"):
        measure_drift(cloud(9, 0, 0), cloud(9, 0, 1), level=0.001, permutations=99)


def test_the_command_says_it_and_exits_with_1_on_an_alarm(tmp_path, embedder):
    def write(name, texts):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps({"input": text}) for text in texts), encoding="utf-8")
        return str(path)

    places = ("Rome", "Oslo", "Lima", "Cairo", "Delhi", "Seoul", "Quito", "Minsk")
    old = write("old.jsonl", [f"What is the weather in {place} on day {day}?" for place in places for day in range(5)])
    new = write("new.jsonl", [f"How do I cook {dish} for ten guests?" for dish in ("rice", "fish", "soup", "beans")])
    alarm = CliRunner().invoke(app, ["drift", old, new, "--json", "--count", "2"])
    assert alarm.exit_code == 1, alarm.output
    report = json.loads(alarm.stdout)
    assert report["alarm"] and report["p_value"] <= 0.05
    assert len(report["label_next"]) == 2 and "cook" in report["label_next"][0]["text"]
    half = write("half.jsonl", [f"What is the weather in {place} on day 3?" for place in places])
    quiet = CliRunner().invoke(app, ["drift", old, half], env={"COLUMNS": "100"})
    assert quiet.exit_code == 0 and "No drift is seen" in quiet.output and "Label next" in quiet.output
