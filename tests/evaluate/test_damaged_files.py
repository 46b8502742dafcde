"""What a benchmark keeps on disk: damage is named with the remedy, a cut line is asked again, old files are read."""

import json
import math

import pytest

from kdprompt import DamagedFileError
from kdprompt.checksums import seal, unseal
from kdprompt.evaluate import Answer, Cell, Store, read_results, summarise, write_results_text
from kdprompt.evaluate.cell import Latency
from kdprompt.evaluate.metrics import measure_answer

ANSWERS = {f"prompt {i}": Answer(f"answer {i} \ud83d ä", (-0.5, -1.0 - i)) for i in range(4)}


class Reader:
    """Knows the answers; notes what it is asked."""

    name = "reader"

    def __init__(self):
        self.asked = []

    def answers(self, prompts, labels):
        for prompt in prompts:
            self.asked.append(prompt)
            yield ANSWERS[prompt]

    def count_tokens(self, text):
        return len(text)


def ask(folder):
    """The answers of a store, and what the reader was asked."""
    reader = Reader()
    with Store(folder) as store:
        found = list(store.answers(reader, list(ANSWERS), ["a", "b"]))
    assert found == list(ANSWERS.values())
    return reader.asked


def test_answers_are_kept_and_a_cut_line_is_asked_again(tmp_path):
    assert ask(tmp_path) == list(ANSWERS) and ask(tmp_path) == []
    (path,) = tmp_path.glob("answers*.jsonl")
    whole = path.read_bytes()
    for kept in range(4):
        start = whole.split(b"\n", kept)[-1]
        path.write_bytes(whole[: len(whole) - len(start) + 20])
        assert ask(tmp_path) == list(ANSWERS)[kept:]
        assert ask(tmp_path) == [], "what a run appends stands in a file of its own"
        for other in set(tmp_path.glob("answers*.jsonl")) - {path}:
            other.unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b"answer 1", b"answer 9"),
        lambda line: line.replace(b"-0.5", b"-0.6"),
        lambda line: line.replace(b'"checksum"', b'"checksun"'),
        lambda line: line.replace(b'"text"', b'"texu"'),
        lambda line: line[:30],
        lambda line: b"[1]",
        lambda line: b"[" * 100_000,
    ],
)
def test_a_damaged_line_is_named(change, tmp_path):
    ask(tmp_path)
    (path,) = tmp_path.glob("answers*.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[1] = change(lines[1])
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DamagedFileError, match=rf"{path.name}, line 2 is damaged.* Delete the line; its answer"):
        Store(tmp_path)


def test_answers_of_before_are_read(tmp_path):
    """They had no checksum, and a cut line might be followed by others."""
    key = Store.key(Reader(), "prompt 1", ["a", "b"])
    line = json.dumps({"key": key, "text": ANSWERS["prompt 1"].text, "log_probs": ANSWERS["prompt 1"].log_probs})
    (tmp_path / "answers-123.jsonl").write_text(f'{{"key": "half a li\n{line}\n')
    assert ask(tmp_path) == ["prompt 0", "prompt 2", "prompt 3"]


def test_a_damaged_selection_is_named(tmp_path):
    store = Store(tmp_path)
    store.save_selection("mine", {"ids": [["a"]], "p50": 1.0})
    assert store.load_selection("mine") == {"ids": [["a"]], "p50": 1.0} and store.load_selection("other") is None
    path = store.selection_path("mine")
    whole = path.read_bytes()
    store.selection_path("other").write_bytes(whole)
    for content in (b"", b"{", b"[]", b"{}", b'{"ids": []}', whole.replace(b'"a"', b'"b"'), b"[" * 100_000, b"\xff"):
        path.write_bytes(content)
        with pytest.raises(
            DamagedFileError, match=r"mine.json is damaged, or no selection .*Delete it; the selection is"
        ):
            store.load_selection("mine")
    with pytest.raises(DamagedFileError, match="it is the selection of 'mine'"):
        store.load_selection("other")


def make_results():
    numbers = {name: [1.0, 2.0] for name in ("log_loss", "tokens", "shown", "off_task")}
    numbers |= {name: [0.5, 1.0] for name in ("score", "confidence", "draws")}
    latency = Latency(p50=1.0, p99=2.0, prepare=0.5)
    cells = [
        Cell(
            dataset="ä",
            suite="clean",
            selector=name,
            k=2,
            calibration_error=None,
            latency=latency,
            reader="r",
            **numbers,
        )
        for name in ("one", "two")
    ]
    return summarise(cells, "one", {"reader": "r"})


def test_results_come_back_and_damage_is_named(tmp_path):
    path, results = tmp_path / "results.json", make_results()
    path.write_text(write_results_text(results), encoding="utf-8")
    assert read_results(path) == results == type(results).model_validate_json(path.read_bytes())
    whole = path.read_bytes()
    path.write_text(results.model_dump_json(), encoding="utf-8")  # as files of before were
    assert read_results(path) == results
    plain = json.loads(results.model_dump_json())
    one = plain["cells"][0]
    foreign = [
        {**plain, "tables": []},
        {**plain, "cells": []},
        {**plain, "cells": [{**one, "score": []}]},
        {**plain, "cells": [{**one, "tokens": [1.0]}]},
        {**plain, "cells": [{**one, "log_loss": [1.0]}]},
        {**plain, "cells": 1},
        {"about": {}},
    ]
    for text in ("\ud800", "\ud83d\ude00"):
        path.write_text(json.dumps(seal({**plain, "about": {"reader": text}})), encoding="utf-8")
        if text == "\ud800":
            with pytest.raises(DamagedFileError, match="surrogates not allowed"):
                read_results(path)
        else:
            assert read_results(path).about == {"reader": "😀"}
    contents = [b"", b"[]", b"[" * 100_000, b"\xff", whole[:-5], whole.replace(b"2.0", b"2.5", 1)]
    contents += [whole.replace(b"checksum", b"checksun"), json.dumps({**plain, "about": float("nan")}).encode()]
    for content in (*contents, *(json.dumps(each).encode() for each in foreign)):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"results.json is no results.json of kdprompt bench, or is damaged"):
            read_results(path)


NO_ANSWERS = [
    {"log_probs": [float("nan"), -1.0]},
    {"log_probs": [5.0, 5.0]},
    {"log_probs": [1e308, -1.0]},
    {"log_probs": [10**400, -1.0]},
    {"log_probs": [-(10**400), True]},
    {"log_probs": ["1", "2"]},
    {"log_probs": "12"},
    {"log_probs": {"a": -1.0, "b": -1.0}},
    {"log_probs": [float("-inf")] * 2},
    {"text": None},
]
OTHER_NUMBERS = [{"log_probs": [-1.0]}, {"log_probs": [-1.0, -1.0, -1.0]}, {"log_probs": []}]


def change_second_line(folder, change):
    """Changes an answer and its checksum with it."""
    (path,) = folder.glob("answers*.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps(seal({**unseal(json.loads(lines[1])), **change}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("change", NO_ANSWERS + OTHER_NUMBERS, ids=lambda change: repr(change)[:40])
def test_what_is_no_answer_is_named_though_its_checksum_is_right(change, tmp_path):
    ask(tmp_path)
    path = change_second_line(tmp_path, change)
    with pytest.raises(DamagedFileError, match=rf"{path.name}, line 2 is damaged.* Delete the line; its answer"):
        ask(tmp_path)


def test_impossible_labels_are_answers(tmp_path):
    ask(tmp_path)
    change_second_line(tmp_path, {"log_probs": [float("-inf"), 0.00001]})
    with Store(tmp_path) as store:
        (found,) = store.answers(Reader(), ["prompt 1"], ["a", "b"])
    assert found.log_probs == (-math.inf, 0.00001)
    assert measure_answer(found, "a", ["a", "b"], lambda answer, truth: 0.5) == (0.5, 1e4, 1.0)


@pytest.mark.parametrize("answer", [Answer("a", (-1.0,)), Answer("a", (math.nan, 0.0)), Answer(None)], ids=repr)
def test_a_reader_that_gives_no_answer_is_named_and_nothing_is_kept(answer, tmp_path):
    class Odd(Reader):
        def answers(self, prompts, labels):
            yield answer

    with Store(tmp_path) as store, pytest.raises(ValueError, match=r"an answer of the reader 'reader' cannot be used"):
        list(store.answers(Odd(), ["prompt 0"], ["a", "b"]))
    assert not list(tmp_path.glob("answers*.jsonl")) and ask(tmp_path) == list(ANSWERS)


@pytest.mark.parametrize("score", [5.0, -0.1, math.nan, None, "1"])
def test_a_metric_that_gives_no_score_is_named(score):
    with pytest.raises(ValueError, match=r"metric must give a number in \[0, 1\], got .* for the answer 'x' and the"):
        measure_answer(Answer("x"), "y", None, lambda answer, truth: score)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score", [5.0, 1.0]),
        ("score", [-1e308, -1e308]),
        ("log_loss", [1e308, 1e308]),
        ("log_loss", [-1.0, 1.0]),
        ("confidence", [1.5, 0.0]),
        ("tokens", [-5.0, 1.0]),
        ("shown", [10**400, 1.0]),
        ("off_task", [1e300, 1.0]),
        ("draws", [2.0]),
        ("one_output", [2.0, 0.0]),
        ("calibration_error", 5.0),
        ("k", -1),
        ("latency", {"p50": -1.0, "p99": 2.0, "prepare": 0.5}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_numbers_of_a_benchmark_that_cannot_be_are_named_though_the_checksum_is_right(name, value, tmp_path):
    plain = json.loads(make_results().model_dump_json())
    plain["cells"][1][name] = value
    path = tmp_path / "results.json"
    path.write_text(json.dumps(seal(plain)), encoding="utf-8")
    with pytest.raises(DamagedFileError, match=rf"results.json is no results.json .*cells\.1\.{name}.*Take a copy"):
        read_results(path)
