"""Inputs that once broke something: each is tried again, as ``tools/fuzz.py`` tried it."""

import json
from pathlib import Path

import pytest

from fuzz import fuzz, keep
from fuzz_targets import TARGETS, Target

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_an_input_that_broke_something_breaks_nothing(path, tmp_path):
    kept = json.loads(path.read_text(encoding="ascii"))
    target = TARGETS[kept["target"]]
    target.prepare(tmp_path)
    target.check(kept["input"])


@pytest.mark.parametrize("name", TARGETS)
def test_some_inputs_of_every_target(name, tmp_path):
    TARGETS[name].prepare(tmp_path)
    tried, faults = fuzz(TARGETS[name], 20, 60)
    assert tried >= 20 and faults == []


def test_a_fault_is_found_made_small_and_kept(tmp_path):
    def promise(value):
        assert "{{" not in value

    tried, ((value, error),) = fuzz(target := Target("made-up", TARGETS["tokens"].inputs, promise), 5000, 60)
    assert value == "{{" and isinstance(error, AssertionError) and tried > 0
    assert json.loads(keep(target, value, tmp_path).read_text()) == {"target": "made-up", "input": "{{"}
