"""The harness end to end: selectors, resumption, tables, page, command, with a real small LM."""

import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import pytest
import torch
from typer.testing import CliRunner

from kdprompt import DamagedFileError, DistillationSelector, PromptTemplate, Settings
from kdprompt.checksums import seal, unseal
from kdprompt.cli.app import app
from kdprompt.evaluate import (
    LabelReader,
    Plan,
    QueryBatch,
    ShuffledSelector,
    Store,
    TextReader,
    apply_suite,
    count_prompts,
    join_results,
    make_selector,
    make_selectors,
    read_results,
    run,
    summarise,
    write_results_text,
)
from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.evaluate.statistics import compare, correct_by_holm
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Query
from kdprompt.report import write_markdown, write_page
from kdprompt.resources import support_desk, support_desk_queries

QUERIES = 6  # of the data set


class Echo:
    """Answers with the output of the demonstration nearest to the query, and remembers what it was asked."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.fails_at = -1

    def __call__(self, prompt: str) -> str:
        if len(self.prompts) == self.fails_at:
            raise KeyboardInterrupt
        self.prompts.append(prompt)
        outputs = re.findall(r"Output: (.+)", prompt)
        return f"{outputs[-1] if outputs else 'nothing'}\nInput: and so on"


def plan(dataset, embed, reader, *names: str, ks=(2,)) -> Plan:
    return Plan([dataset], [make_selector(name) for name in names], ks, reader, embed)


def cells_of(work: Plan, folder):
    with Store(folder) as store:
        return list(run(work, store))


def query_batch(dataset, embed) -> QueryBatch:
    queries = tuple(case.query for case in dataset.test)
    return QueryBatch(queries, embed([query.text for query in queries]))


def ids(chosen) -> list[list[str]]:
    return [[d.id for d in shown] for shown in chosen]


# -- selectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kdprompt", "kdprompt:traffic=true"])
def test_kdprompt_is_the_selector_itself(name, dataset, embed):
    benchmark, q = dataset.to_benchmark_pool(embed), query_batch(dataset, embed)
    queries = None if name == "kdprompt" else benchmark.traffic
    selector = DistillationSelector.from_examples(dataset.pool, embed.embedder, queries=queries, settings=Settings(k=3))
    expected = [selection.ids for selection in selector.select_batch([query.text for query in q.queries])]
    assert ids(make_selector(name).prepare(benchmark, 3)(q)) == [list(row) for row in expected]


def test_settings_of_kdprompt_may_be_pinned(dataset, embed):
    benchmark, q = dataset.to_benchmark_pool(embed), query_batch(dataset, embed)
    pinned = make_selector("kdprompt:share=0;interference=1;temperature=0.3;order=nearest-first")
    assert pinned.settings.objective.output_share == 0
    assert pinned.settings.objective.weights.interference == 1
    assert pinned.settings.objective.kernel.temperature == 0.3 and len(pinned.prepare(benchmark, 3)(q)[0]) == 3


def test_a_profile_of_a_reader_is_read_from_its_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "follow": 6.5, "recency": 0.4}')
    selector = make_selector(f"kdprompt:profile={path};lexical_share=0.2")
    assert selector.settings.objective.profile.follow == 6.5 and selector.settings.search.lexical_share == 0.2
    path.write_text('{"name": "mine", "follow": -1}')
    with pytest.raises(ValueError, match=r"mine.json is no profile of a reader: follow: .*greater than or equal to 0"):
        make_selector(f"kdprompt:profile={path}")
    assert make_selector("kdprompt-reader:max_answers=900").max_answers == 900
    with pytest.raises(ValueError, match="for kdprompt-reader alone"):
        make_selector("kdprompt:max_answers=900")


def test_langchain_selectors_choose_from_the_same_pool(dataset, embed):
    benchmark, q = dataset.to_benchmark_pool(embed), query_batch(dataset, embed)
    ours = make_selector("nearest-first").prepare(benchmark, 4)(q)
    assert ids(make_selector("langchain-similarity").prepare(benchmark, 4)(q)) == ids(ours)
    theirs = make_selector("langchain-mmr").prepare(benchmark, 4)(q)
    assert all(len(set(row)) == 4 for row in ids(theirs)) and ids(theirs) != ids(ours)


def test_shuffled_shows_the_same_in_another_order(dataset, embed):
    benchmark, q = dataset.to_benchmark_pool(embed), query_batch(dataset, embed)
    shuffled = make_selector("shuffled(5):nearest-last")
    assert shuffled.draws == 5 and make_selector("shuffled:kdprompt").draws == 20
    plain, drawn = (ids(item.prepare(benchmark, 6)(q)) for item in (make_selector("nearest-last"), shuffled))
    assert [sorted(row) for row in drawn] == [sorted(row) for row in plain] and drawn != plain
    assert drawn == ids(shuffled.prepare(benchmark, 6)(q))


def test_static_selectors_show_one_prompt(dataset, embed):
    benchmark, q = dataset.to_benchmark_pool(embed), query_batch(dataset, embed)
    for name in ("kdprompt-static", "herding", "random"):
        found = ids(make_selector(name).prepare(benchmark, 4)(q))
        assert len(found) == QUERIES and all(row == found[0] and len(row) == 4 for row in found), name
    assert make_selector("random").draws == 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nearest", "no selector 'nearest'; there are bm25"),
        ("mmr:lambda=1", "no option 'lambda'; there are .'trade_off'."),
        ("kdprompt:shares=1", "no option 'shares' here; it has"),
        ("kdprompt:share", "name=value"),
        ("kdprompt:order=best", "order must be one of"),
        ("kdprompt:traffic=no", "traffic must be true or false, got 'no'"),
        ("shuffled:", "needs a number of orders and a selector"),
        ("langchain-mmr:k=3", "takes no options"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(spec, message):
    with pytest.raises(ValueError, match=message):
        make_selector(spec)


def test_a_group_stands_for_all_of_a_kind():
    found = [one.name for one in make_selectors(["zero-shot", "static", "all"])]
    assert found[:2] == ["zero-shot", "kdprompt-static"] and len(found) == len(set(found)) == 17
    assert {"kdprompt", "kite", "set-bsr", "vote-k", "kernel-thinning", "random"} <= set(found)
    assert [one.name for one in make_selectors(["kdprompt-auto"])] == ["kdprompt-auto"]


# -- resumption ---------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_where_it_was(dataset, embed, tmp_path):
    echo = Echo()
    work = plan(dataset, embed, TextReader(echo, name="echo"), "kdprompt", "nearest-last", "zero-shot", ks=(1, 2))
    assert count_prompts(work) == 3 * 2 * QUERIES
    echo.fails_at = 8
    with pytest.raises(KeyboardInterrupt):
        cells_of(work, tmp_path)
    echo.fails_at = -1
    with next(tmp_path.glob("answers*.jsonl")).open("a") as file:
        file.write('{"key": "half a li')  # what a killed process leaves
    assert len(Store(tmp_path)) == 8
    cells = cells_of(work, tmp_path)
    assert len(echo.prompts) == len(set(echo.prompts)), "a prompt was asked twice"
    asked_before = len(echo.prompts)
    assert [c.score for c in cells_of(work, tmp_path)] == [c.score for c in cells] and len(echo.prompts) == asked_before
    other = plan(dataset, embed, TextReader(echo, name="another"), "zero-shot")
    cells_of(other, tmp_path)
    assert len(echo.prompts) == asked_before + QUERIES, "another reader's answers are its own"


def test_cells_hold_what_was_shown(dataset, embed, tmp_path):
    echo = Echo()
    reader = TextReader(echo, name="echo", count_tokens=lambda text: len(text.split()))
    done: list[int] = []
    work = plan(dataset, embed, reader, "nearest-last", "zero-shot", "random", ks=(3,))
    with Store(tmp_path) as store:
        cells = {cell.selector: cell for cell in run(work, store, lambda n, _: done.append(n))}
    assert sum(done) == count_prompts(work) == QUERIES * 12
    near = dataset.to_benchmark_pool(embed)
    similarity = query_batch(dataset, embed).q @ near.x.T
    expected = [
        near.pool[int(row.argmax())].output == c.output for row, c in zip(similarity, dataset.test, strict=True)
    ]
    assert cells["nearest-last"].score == [float(right) for right in expected]
    assert cells["zero-shot"].shown == [0.0] * QUERIES and cells["zero-shot"].score == [0.0] * QUERIES
    assert cells["zero-shot"].tokens == [len(f"Input: {c.query.text}\nOutput:".split()) for c in dataset.test]
    assert len(cells["random"].draws) == 10 and cells["random"].shown == [3.0] * QUERIES
    assert sum(cells["random"].score) / QUERIES == pytest.approx(sum(cells["random"].draws) / 10, abs=1e-4)
    assert cells["nearest-last"].log_loss == [] and cells["nearest-last"].calibration_error is None
    assert all(cell.latency.p50 <= cell.latency.p99 for cell in cells.values())


def test_prompts_come_in_the_order_that_shares_most(dataset, embed, tmp_path):
    echo = Echo()
    cells = cells_of(plan(dataset, embed, TextReader(echo, name="echo"), "shuffled(8):nearest-last", ks=(3,)), tmp_path)
    assert echo.prompts == sorted(set(echo.prompts))
    draws = make_selector("shuffled(8):nearest-last")
    texts: set[str] = set()
    for draw in range(8):
        chosen = draws.prepare(dataset.to_benchmark_pool(embed, draw), 3)(query_batch(dataset, embed))
        texts |= {
            PromptTemplate().text(shown, case.query.text) for shown, case in zip(chosen, dataset.test, strict=True)
        }
    assert set(echo.prompts) == texts and len(cells[0].draws) == 8


def test_what_is_shown_in_random_orders_is_chosen_once(dataset, embed, tmp_path):
    calls = []

    @dataclass(frozen=True)
    class Counted:
        name: str = "counted"
        draws: int = 1

        def prepare(self, benchmark, k):
            calls.append(benchmark.seed)
            return make_selector("nearest-last").prepare(benchmark, k)

    work = Plan(
        [dataset], [Counted(), ShuffledSelector("shuffled", Counted(), 6)], [3], TextReader(Echo(), name="echo"), embed
    )
    plain, mixed = cells_of(work, tmp_path)
    assert calls == [0] and len(mixed.draws) == 6 and mixed.latency.p50 == pytest.approx(plain.latency.p50)
    assert mixed.tokens == pytest.approx(plain.tokens)


def test_one_prompt_in_random_orders_has_one_order_a_draw(dataset, embed):
    q = query_batch(dataset, embed)
    drawn = [
        ids(make_selector("shuffled(3):herding").prepare(dataset.to_benchmark_pool(embed, seed), 6)(q))
        for seed in range(3)
    ]
    assert all(row == rows[0] for rows in drawn for row in rows)
    assert len({tuple(rows[0]) for rows in drawn}) == 3 and len({frozenset(rows[0]) for rows in drawn}) == 1


def test_off_task_demonstrations_are_counted_in_untagged_pools(embed, tmp_path):
    desk = support_desk()
    parts = []
    for name in ("support", "tone"):
        members = [d for d in desk if d.task == name]
        cases = tuple(Case(Query(text=d.input), str(d.output)) for d in members[:4])
        parts.append(Dataset(name, Pool(members[4:]), (), (), cases))
    for told, clean in (("nothing", False), ("tags", True), ("outputs", True)):
        work = Plan(
            apply_suite(parts, f"mixed={told}"),
            [make_selector("kdprompt")],
            [4],
            TextReader(Echo(), name="echo"),
            embed,
        )
        off_task = sum(sum(cell.off_task) for cell in cells_of(work, tmp_path / told))
        assert (off_task == 0) if clean else off_task >= 0
    near = Plan(
        apply_suite(parts, "mixed=tags"), [make_selector("nearest-last")], [8], TextReader(Echo(), name="echo"), embed
    )
    assert sum(sum(cell.off_task) for cell in cells_of(near, tmp_path / "near")) > 0


def test_readers_say_what_they_cannot_use():
    with pytest.raises(TypeError, match="must be callable or have invoke"):
        TextReader(3)
    with pytest.raises(TypeError, match="must answer with text, got int"):
        list(TextReader(lambda prompt: 3).answers(["x"], None))
    reader = TextReader(lambda prompt: " Card delivery, I think\nmore", name="x")
    assert [each.text for each in reader.answers(["x"], ["card", "card delivery"])] == ["card delivery"]
    assert [each.text for each in reader.answers(["x"], None)] == ["Card delivery, I think"]


def test_langchain_models_are_readers():
    from langchain_core.language_models import FakeListLLM, GenericFakeChatModel
    from langchain_core.messages import AIMessage

    assert next(TextReader(FakeListLLM(responses=["yes"])).answers(["x"], ["yes", "no"])).text == "yes"
    blocks = [AIMessage(content=[{"type": "text", "text": "no"}]), AIMessage(content="yes")]
    chat = TextReader(GenericFakeChatModel(messages=iter(blocks)))
    assert [each.text for each in chat.answers(["x", "x"], ["yes", "no"])] == ["no", "yes"]


# -- tables and page ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(dataset, embed, small_lm, tmp_path_factory):
    work = plan(dataset, embed, LabelReader(small_lm), "kdprompt", "nearest-last", "random", "shuffled(3):kdprompt")
    return summarise(cells_of(work, tmp_path_factory.mktemp("run")), "kdprompt", {"reader": "<b>small & real</b>"})


@pytest.mark.llm
@pytest.mark.slow
def test_tables_hold_paired_statistics(results, dataset):
    (table,) = results.tables
    assert table.queries == QUERIES and table.rows[0].selector == "kdprompt"
    cells = {cell.selector: torch.tensor(cell.score) for cell in results.cells}
    others = [row for row in table.rows if row.selector != "kdprompt"]
    pairs = [compare(cells["kdprompt"], cells[row.selector]) for row in others]
    for row, pair, p in zip(others, pairs, correct_by_holm([pair.p for pair in pairs]), strict=True):
        found = row.against
        assert found is not None and found.p == pytest.approx(p)
        assert (found.difference, found.low, found.high) == pytest.approx((pair.difference, pair.low, pair.high))
        assert found.wins + found.ties + found.losses == QUERIES
    for row in others:
        if len(row.draws) > 1:
            own = table.rows[0].score
            expected = sum((own > d + 1e-4) + 0.5 * (abs(own - d) <= 1e-4) for d in row.draws) / len(row.draws)
            assert row.percentile == pytest.approx(expected)
    assert [row.percentile is None for row in table.rows] == [True, True, False, False]
    assert table.rows[0].against is None and all(row.log_loss > 0 for row in table.rows)
    assert type(results).model_validate_json(results.model_dump_json()) == results


def echoed(dataset, embed, folder, *names: str, ks=(2,), split="test"):
    reader = TextReader(Echo(), name="echo")
    work = replace(plan(dataset, embed, reader, *names, ks=ks), split=split)
    return summarise(cells_of(work, folder), names[0], {"reader": "echo", "split": split, "command": " ".join(names)})


def test_runs_are_joined_and_the_later_cell_stands(dataset, embed, tmp_path):
    whole = echoed(dataset, embed, tmp_path, "nearest-last", "bm25", "mmr", ks=(1, 2))
    parts = [
        echoed(dataset, embed, tmp_path, "nearest-last", "bm25"),
        echoed(dataset, embed, tmp_path, "nearest-last", "mmr", ks=(1, 2)),
        echoed(dataset, embed, tmp_path, "bm25", ks=(1,)),
    ]
    found = join_results(parts)
    assert found.about["command"] == "nearest-last bm25\nnearest-last mmr\nbm25"
    assert {t.k: sorted(row.model_dump_json() for row in t.rows) for t in found.tables} == {
        t.k: sorted(row.model_dump_json() for row in t.rows) for t in whole.tables
    }
    changed = parts[2].cells[0].model_copy(update={"score": [0.5] * QUERIES})
    later = join_results([*parts, parts[2].model_copy(update={"cells": [changed]})], "bm25")
    assert [row.score for t in later.tables if t.k == 1 for row in t.rows if row.selector == "bm25"] == [0.5]
    assert all(table.reference == "bm25" for table in later.tables)


def test_runs_that_do_not_belong_together_are_refused(dataset, embed, tmp_path):
    one = echoed(dataset, embed, tmp_path, "nearest-last")
    with pytest.raises(ValueError, match="the same split, got 'test' and 'dev'"):
        join_results([one, echoed(dataset, embed, tmp_path, "nearest-last", split="dev")])
    short = one.cells[0].model_copy(update={"score": [1.0]})
    with pytest.raises(ValueError, match=f"got {QUERIES} and 1 of the data set 'desk'"):
        join_results([one, one.model_copy(update={"cells": [short]})])
    with pytest.raises(ValueError, match=r"one of the selectors \['nearest-last'\], got 'kdprompt'"):
        join_results([one], "kdprompt")


def test_the_command_joins_files(dataset, embed, tmp_path):
    for k in (1, 2):
        result = echoed(dataset, embed, tmp_path, "nearest-last", "bm25", ks=(k,))
        (tmp_path / f"k{k}.json").write_text(result.model_dump_json())
    files = [str(tmp_path / f"k{k}.json") for k in (1, 2)]
    result = CliRunner().invoke(app, ["tables", *files, "--output", str(tmp_path / "both"), "--reference", "bm25"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "both" / "results.json").read_text())
    assert [(t["k"], t["reference"]) for t in found["tables"]] == [(1, "bm25"), (2, "bm25")]
    assert "| **bm25** | " in (tmp_path / "both" / "results.md").read_text()
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no.json is no results.json of kdprompt bench"):
        CliRunner().invoke(app, ["tables", str(tmp_path / "no.json"), "--output", "x"], catch_exceptions=False)


class Sources(HTMLParser):
    """Everything that a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = {"src", "href", "xlink:href", "data", "srcset"}
        self.loaded += [str(v) for k, v in attrs if k in names and not str(v).startswith("#")]
        self.loaded += [tag] if tag in ("script", "link", "iframe", "object") else []

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.llm
@pytest.mark.slow
def test_markdown_sets_data_sets_side_by_side(results, tmp_path):
    other = results.model_copy(
        update={
            "tables": [
                *results.tables,
                results.tables[0].model_copy(update={"dataset": "second", "rows": results.tables[0].rows[:2]}),
            ]
        }
    )
    write_markdown(other, tmp_path / "results.md")
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| selector | desk | second | mean | one output | tokens |" in lines
    table = [line.split(" | ") for line in lines if line.startswith("| ")][2:]
    assert [len(cells) for cells in table] == [6] * len(results.tables[0].rows)
    row = results.tables[0].rows[1]
    shown = next(cells for cells in table if cells[0] == f"| {row.selector}")
    assert shown[1] == shown[2] and shown[1].startswith(f"{100 * row.score:.1f}, {row.log_loss:.2f} (")
    assert next(cells for cells in table if "random" in cells[0])[2] == "", "what was not run stays empty"


@pytest.mark.llm
@pytest.mark.slow
def test_the_page_is_whole_in_itself(results, tmp_path):
    write_page(results, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    parser = Sources()
    parser.feed(page)
    assert parser.loaded == [] and "@import" not in page and page.count("<svg") == 2
    text = " ".join(parser.text)
    for row in results.tables[0].rows:
        assert row.selector in text and f"{row.score:.3f}" in text
    assert "<b>small & real</b>" in text, "what users write is escaped"
    write_page(results, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "page.html").read_bytes()


# -- the command --------------------------------------------------------------------------------------------------


@pytest.mark.llm
@pytest.mark.slow
def test_bench_on_files_of_ones_own(tmp_path, small_lm, dataset):
    rows = [dict(d.fields) for d in dataset.pool]
    queries = support_desk_queries()
    for part, chosen in (("pool", rows), ("dev", queries[4:]), ("test", queries[:4])):
        (tmp_path / f"own.{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    command = ["bench", "--data", str(tmp_path / "own"), "--output", str(tmp_path / "out"), "--k", "2"]
    command += ["--selector", "kdprompt", "--selector", "nearest-last", "--limit", "3"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    assert "own, clean, k = 2, 3 queries" in result.output and "nearest-last" in result.output
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["about"]["reader"] == "SmolLM2-135M-Instruct/normalised" and len(found["cells"]) == 2
    assert (tmp_path / "out" / "report.html").stat().st_size > 5_000
    assert "| **kdprompt** | " in (tmp_path / "out" / "results.md").read_text()
    text = queries[0]["input"]
    assert any(text in json.dumps(cell, ensure_ascii=False) for cell in found["cells"])
    again = CliRunner().invoke(app, [*command, "--details", "0"], env={"COLUMNS": "140"})
    assert again.exit_code == 0 and "answers are known from earlier runs" in again.output
    for name in ("results.json", "results.md", "report.html"):
        assert text not in (tmp_path / "out" / name).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere/at-all"], "no such file"),
        ([], "nothing to run on"),
        (["--data", "x", "--selector", "best"], "no selector 'best'"),
        (["--data", "x", "--reference", "bm25"], "none of the selectors"),
        (["--data", "x", "--metric", "bleu"], "--metric must be one of"),
    ],
)
def test_bench_says_what_is_wrong(tmp_path, arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        CliRunner().invoke(app, ["bench", "--output", str(tmp_path), *arguments], catch_exceptions=False)


def test_half_a_sign_in_an_answer_is_written_as_its_escape(dataset, embed, tmp_path):
    """Files have no lone surrogates: the run ended when its results were written."""
    reader = TextReader(lambda prompt: "\ud800", name="half")
    cells = cells_of(plan(dataset, embed, reader, "nearest-last"), tmp_path)
    assert {answered.answer for answered in cells[0].answered} == {"\\ud800"}
    path = tmp_path / "results.json"
    path.write_text(write_results_text(summarise(cells, "nearest-last")), encoding="utf-8")
    assert read_results(path).cells == cells
    assert cells_of(plan(dataset, embed, reader, "nearest-last"), tmp_path) == cells


@pytest.mark.parametrize("change", [{"p50": float("nan")}, {"p99": -5.0}, {"prepare": "x"}])
def test_durations_of_a_selection_that_cannot_be_are_named_in_a_line(change, dataset, embed, tmp_path):
    work = plan(dataset, embed, TextReader(Echo(), name="echo"), "nearest-last")
    cells_of(work, tmp_path)
    (path,) = (tmp_path / "selections").iterdir()
    saved = unseal(json.loads(path.read_bytes()))
    path.write_text(json.dumps(seal({**saved, "selection": {**saved["selection"], **change}})), encoding="utf-8")
    (name,) = change
    with pytest.raises(DamagedFileError, match=rf"{path.name} does not fit the data set: {name}: Input.*Delete it"):
        cells_of(work, tmp_path)
