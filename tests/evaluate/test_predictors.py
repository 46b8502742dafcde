"""Rows without a language model against naive votes and scikit-learn, in tables of several readers."""

from collections import Counter

import pytest
import torch
from typer.testing import CliRunner

from kdprompt.cli.app import app
from kdprompt.evaluate import (
    Plan,
    QueryBatch,
    Results,
    Store,
    TextReader,
    make_selectors,
    run,
    summarise,
)
from kdprompt.evaluate.cell import NO_READER
from kdprompt.evaluate.predictors import Predictor

QUERIES = 6  # of the data set


def answers(spec, dataset, embed, k=5, labels=True):
    (predictor,) = make_selectors([spec])
    assert isinstance(predictor, Predictor) and predictor.name == spec
    queries = tuple(case.query for case in dataset.test)
    batch = QueryBatch(queries, embed([query.text for query in queries]))
    predict = predictor.fit(dataset.to_benchmark_pool(embed), k, dataset.labels if labels else None)
    return predict(batch)


def test_the_majority_is_that_of_what_is_shown(dataset, embed):
    benchmark = dataset.to_benchmark_pool(embed)
    queries = tuple(case.query for case in dataset.test)
    batch = QueryBatch(queries, embed([query.text for query in queries]))
    (selector,) = make_selectors(["nearest-last"])
    for shown, found in zip(
        selector.prepare(benchmark, 5)(batch), answers("majority:nearest-last", dataset, embed), strict=True
    ):
        outputs = [d.output for d in shown]
        most = max(Counter(outputs).values())
        assert found.text == next(o for o in reversed(outputs) if outputs.count(o) == most)
        expected = [(outputs.count(label) + 1 / len(dataset.labels)) / 6 for label in dataset.labels]
        assert torch.tensor(found.log_probs).exp().tolist() == pytest.approx(expected)


def test_the_vote_of_neighbours_is_weighted_by_their_cosine(dataset, embed):
    benchmark = dataset.to_benchmark_pool(embed)
    for case, found in zip(dataset.test, answers("nearest-vote:neighbours=7", dataset, embed), strict=True):
        cosine = (benchmark.x.double() @ embed([case.query.text])[0].double()).tolist()
        votes = Counter()
        for row in sorted(range(len(cosine)), key=lambda i: -cosine[i])[:7]:
            votes[benchmark.pool[row].output] += max(cosine[row], 0)
        assert found.text == votes.most_common(1)[0][0]
    without = answers("nearest-vote", dataset, embed, labels=False)
    assert all(answer.log_probs is None for answer in without)


@pytest.mark.parametrize("spec", ["nearest-vote:neighbours=1", "logistic-regression"])
def test_what_a_query_does_not_permit_is_not_answered(spec, dataset, embed):
    (predictor,) = make_selectors([spec])
    permitted = frozenset(dataset.labels[:2])
    queries = tuple(case.query.model_copy(update={"outputs": permitted}) for case in dataset.test)
    batch = QueryBatch(queries, embed([query.text for query in queries]))
    found = predictor.fit(dataset.to_benchmark_pool(embed), 5, dataset.labels)(batch)
    assert all(answer.text in permitted for answer in found)


def test_logistic_regression_learns_the_pool(dataset, embed):
    found = answers("logistic-regression", dataset, embed)
    assert sum(a.text == c.output for a, c in zip(found, dataset.test, strict=True)) >= QUERIES // 2
    for answer in found:
        probabilities = torch.tensor(answer.log_probs).exp()
        assert (
            float(probabilities.sum()) == pytest.approx(1)
            and dataset.labels[int(probabilities.argmax())] == answer.text
        )
    with pytest.raises(ValueError, match="logistic regression predicts labels"):
        answers("logistic-regression", dataset, embed, labels=False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("majority", "majority needs a selector"),
        ("majority:nearest", "no selector 'nearest'"),
        ("nearest-vote:neighbours=0", "whole number of at least 1, got 0"),
        ("nearest-vote:neighbours=true", "whole number of at least 1, got True"),
        ("majority:kdprompt-reader", "asks the model beforehand"),
        ("logistic-regression:C=1", "has no option 'C'"),
    ],
)
def test_a_wrong_row_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        make_selectors([spec])


def test_rows_without_a_reader_stand_in_the_tables_of_all(dataset, embed, tmp_path):
    asked = []

    def sure(prompt):
        asked.append(prompt)
        return prompt.rsplit("Output: ", 1)[1].split("\n")[0]

    cells = []
    for name, specs in (("a", ["nearest-last", "majority:nearest-last"]), ("b", ["nearest-last"])):
        plan = Plan([dataset], make_selectors(specs), [3], TextReader(sure, name=name), embed)
        with Store(tmp_path) as store:
            cells += list(run(plan, store))
    assert len(asked) == 2 * QUERIES, "no prompt for a row without a reader"
    assert [cell.reader for cell in cells] == ["a", NO_READER, "b"]
    results = summarise(cells, "nearest-last")
    assert [(t.reader, [row.selector for row in t.rows]) for t in results.tables] == [
        ("a", ["nearest-last", "majority:nearest-last"]),
        ("b", ["nearest-last", "majority:nearest-last"]),
    ]
    row = results.tables[0].rows[1]
    expected = sum(cells[0].score) / QUERIES - row.score
    assert row.against.difference == pytest.approx(expected), "the reference less the row"
    assert row.log_loss > 0 and row.loss_against is None, "a reader that writes has no log-loss"
    assert row.one_output is None and 0 <= results.tables[0].rows[0].one_output <= 1
    shown = [len({d.output for d in prompt}) for prompt in _shown(dataset, embed)]
    assert results.tables[0].rows[0].one_output == pytest.approx(shown.count(1) / QUERIES)


def _shown(dataset, embed):
    queries = tuple(case.query for case in dataset.test)
    batch = QueryBatch(queries, embed([query.text for query in queries]))
    return make_selectors(["nearest-last"])[0].prepare(dataset.to_benchmark_pool(embed), 3)(batch)


def test_differences_of_losses_are_the_reference_less_the_row(dataset, embed, tmp_path):
    plan = Plan([dataset], make_selectors(["majority:nearest-last"]), [3], TextReader(str, name="x"), embed)
    with Store(tmp_path) as store:
        (cell,) = run(plan, store)
    better, worse = (
        cell.model_copy(update={"reader": "x", "selector": name, "log_loss": [value] * QUERIES})
        for name, value in (("better", 0.2), ("worse", 0.7))
    )
    told = []
    (table,) = summarise([better, worse], "better", progress=lambda done, total: told.append((done, total))).tables
    assert told == [(1, 1)]
    assert table.rows[1].loss_against.difference == pytest.approx(-0.5) and table.rows[0].loss_against is None
    assert table.rows[1].loss_against.nats == "-0.50 [-0.50, -0.50]"


READERS = """
def first(prompt):
    return prompt.split("Output: ")[1].split("\\n")[0]


def last(prompt):
    return prompt.rsplit("Output: ", 1)[1].split("\\n")[0]
"""


def test_the_command_asks_several_readers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two_readers.py").write_text(READERS)
    for split, examples in (("pool", range(40)), ("dev", range(40, 44)), ("test", range(44, 52))):
        rows = [f'{{"input": "number {i}", "output": "{{\\"even\\": {str(i % 2 == 0).lower()}}}"}}' for i in examples]
        (tmp_path / f"even.{split}.jsonl").write_text("\n".join(rows))
    command = ["bench", "--data", "even", "--output", "out", "--k", "2"]
    for name in ("nearest-last", "nearest-vote:neighbours=3"):
        command += ["--selector", name]
    for name in ("first", "last"):
        command += ["--model", f"python:two_readers:{name}"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = Results.model_validate_json((tmp_path / "out" / "results.json").read_text())
    names = ["two_readers:first", "two_readers:last"]
    assert found.about["reader"] == ", ".join(names)
    assert [(t.reader, len(t.rows)) for t in found.tables] == [(name, 2) for name in names]
    assert "nearest-vote:neighbours=3" in (tmp_path / "out" / "results.md").read_text()
    only = CliRunner().invoke(app, [*command[:7], "--selector", "nearest-vote"])
    assert isinstance(only.exception, ValueError) and "add a selector" in str(only.exception)
