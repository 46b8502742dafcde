"""Inputs that once broke something: each is tried again, as ``tools/fuzz.py`` tried it."""

import json
import random
import reprlib
from pathlib import Path

import pytest

import fuzz as fuzzer
from fuzz import fuzz, fuzz_mutated, keep
from fuzz_inputs import WRITTEN
from fuzz_mutate import Mutator, shrink
from fuzz_targets import TARGETS, Target, is_text

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


@pytest.mark.parametrize("name", TARGETS)
def test_some_changed_inputs_of_every_target(name, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzer, "SEEDS", 10)
    TARGETS[name].prepare(tmp_path)
    tried, faults = fuzz_mutated(TARGETS[name], 60, 60)
    assert tried == 60 and faults == []


def test_inputs_written_by_hand_are_inputs_of_a_target():
    assert all(TARGETS[name].fits(value) for name, values in WRITTEN.items() for value in values)


def test_changed_inputs_are_the_same_for_a_seed_and_differ_from_each_other():
    seeds = [[{"input": "where is my card?", "output": ["x", 1.5]}, {"input": "b", "id": 3}], [[]]]
    before = json.dumps(seeds)
    first, again = Mutator(seeds, random.Random(3)), Mutator(seeds, random.Random(3))
    drawn = [reprlib.repr(first.draw()) for _ in range(300)]
    assert drawn == [reprlib.repr(again.draw()) for _ in range(300)] and json.dumps(seeds) == before
    assert len(set(drawn)) > 150  # of small values many are alike


@pytest.mark.parametrize("value", [{"a": [1, {"b": "xxyxx"}]}, [["q", "y"]], "aayaa"])
def test_what_fails_is_made_as_small_as_it_can_be(value):
    assert shrink(value, lambda smaller: "y" in repr(smaller)) == "y"
    assert shrink([3, [1, 2], 4], lambda smaller: isinstance(smaller, list)) == []


@pytest.mark.parametrize("find", [fuzz, fuzz_mutated])
def test_a_fault_is_found_made_small_and_kept(find, tmp_path):
    def promise(value):
        assert "{{" not in value

    tried, ((value, error),) = find(
        target := Target("made-up", TARGETS["tokens"].inputs, promise, fits=is_text), 5000, 60
    )
    assert value == "{{" and isinstance(error, AssertionError) and tried > 0
    assert json.loads(keep(target, value, tmp_path).read_text()) == {"target": "made-up", "input": "{{"}


def test_an_input_that_takes_too_long_is_a_fault(monkeypatch):
    monkeypatch.setattr(fuzzer, "LONGEST", 0.05)
    monkeypatch.setattr(fuzzer, "SEEDS", 5)

    def promise(value):
        while "{{" in value:
            pass

    target = Target("made-up", TARGETS["tokens"].inputs, promise, fits=lambda value: value in ("{{", "}}"))
    target.inputs = target.inputs.map(lambda _: "{{")
    _, ((value, error),) = fuzz_mutated(target, 5, 60)
    assert value == "{{" and isinstance(error, TimeoutError)
