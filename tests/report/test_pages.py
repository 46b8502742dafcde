"""The pages: whole in themselves, with every name escaped, and readable from the benchmark files of the repository."""

import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from kdprompt.evaluate import Cell, Results, summarise
from kdprompt.evaluate.cell import AnsweredPrompt, Latency
from kdprompt.report import write_markdown, write_page, write_phenomena
from kdprompt.reproduce import Phenomenon, Verdict

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HOSTILE = """<script>alert("1")</script> & 'co'"""


class Page(HTMLParser):
    """The tags of a page, and the text outside of figures and styles."""

    def __init__(self, path):
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.hidden: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in ("svg", "style"):
            self.hidden.append(tag)

    def handle_endtag(self, tag):
        if self.hidden and self.hidden[-1] == tag:
            self.hidden.pop()

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)


def read_pictures(path):
    """The figures inside a page, as SVG."""
    source = path.read_text(encoding="utf-8")
    return [b64decode(data).decode() for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", source)]


def results_of(selectors, dataset="desk"):
    cells = [
        Cell(
            dataset=dataset,
            suite="clean",
            selector=name,
            k=2,
            score=[1.0, 0.0, 1.0, float(i == 0)],
            log_loss=[],
            confidence=[],
            tokens=[10.0, 11.0, 12.0, 13.0],
            shown=[2.0] * 4,
            off_task=[0.0] * 4,
            draws=[0.75, 0.5] if i else [0.75],
            calibration_error=None,
            latency=Latency(p50=1, p99=2, prepare=3),
        )
        for i, name in enumerate(selectors)
    ]
    return summarise(cells, selectors[0], {"reader": HOSTILE, HOSTILE: "key"})


def test_names_are_escaped_in_the_benchmark_page(tmp_path):
    write_page(results_of([f"a {HOSTILE}", f"b {HOSTILE}"], dataset=HOSTILE), tmp_path / "page.html")
    source, page = (tmp_path / "page.html").read_text(encoding="utf-8"), Page(tmp_path / "page.html")
    assert "script" not in page.tags and "<script" not in source
    for text in (f"a {HOSTILE} against the others", f"b {HOSTILE}", f"{HOSTILE}, clean, k = 2, 4 queries"):
        assert text in page.text
    assert (
        page.text.count(HOSTILE) >= 7 and "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#39;co&#39;" in source
    )
    assert page.tags.count("svg") == 2


def test_names_are_escaped_in_the_page_of_phenomena(tmp_path):
    phenomenon = Phenomenon(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [1.0, 2.0], [3.0, 4.0], {HOSTILE: 0.12345})
    write_phenomena([phenomenon], tmp_path / "page.html", {HOSTILE: HOSTILE})
    page = Page(tmp_path / "page.html")
    assert "script" not in page.tags and page.text.count(HOSTILE) == 5
    assert f"Measured: {HOSTILE} 0.123; 2 points." in page.text


def test_every_claim_has_its_verdict_on_the_page_of_phenomena(tmp_path):
    verdicts = (Verdict("a is above 0", "holds", 0.5, 0.25, 0.75), Verdict("b is below 0", "undecided", 0, -0.5, 0.5))
    phenomenon = Phenomenon("name", "why", "x", "y", [1.0, 2.0], [3.0, 4.0], {}, verdicts)
    write_phenomena([phenomenon], tmp_path / "page.html")
    text = Page(tmp_path / "page.html").text
    assert "name a is above 0 holds 0.500 0.250 to 0.750" in text and "Undecided: b is below 0." in text


@pytest.mark.parametrize(
    ("x", "drawn"), [([0.0] * 5 + [1.0] * 5, True), ([0.0] * 9 + [1.0], False), ([float(i) for i in range(10)], False)]
)
def test_means_are_drawn_only_where_each_has_several_points(tmp_path, x, drawn):
    write_phenomena([Phenomenon("name", "why", "x", "y", x, [float(i) for i in range(10)])], tmp_path / "page.html")
    (picture,) = read_pictures(tmp_path / "page.html")
    assert ("mean, 95 % interval" in picture) is drawn


def test_a_row_holds_its_numbers(tmp_path):
    results = results_of(["first", "second"])
    write_page(results, tmp_path / "page.html")
    first, second = results.tables[0].rows
    text = Page(tmp_path / "page.html").text
    assert f"first 0.750 {first.low:.3f} – {first.high:.3f} 12 2.0 0.00 1.0 2.0 second" in text
    assert f"{second.against.points} above 75% of 2 draws 1 / 3 / 0 1" in text
    with pytest.raises(IsADirectoryError):
        write_page(results, tmp_path)


def test_a_query_is_shown_with_every_prompt_and_answer(tmp_path):
    cells = []
    for cell, answer in zip(results_of(["second", "first"]).cells, ("no", "yes"), strict=True):
        asked = [
            AnsweredPrompt(
                query=i, text=f"query {i}", output="yes", prompt=f"{cell.selector} asks {i}", answer=answer, score=1
            )
            for i in (2, 0)
        ]
        cells.append(cell.with_answers(asked))
    write_page(summarise(cells, "first"), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "first less the row, points" in page.text and "Prompts and answers of 2 queries" in page.text
    assert "True output: yes first: yes score 1 first asks 2 second: no score 1 second asks 2" in page.text
    assert page.text.index("query 0 (yes)") < page.text.index("query 2 (yes)") and page.tags.count("details") == 3


def test_one_selector_has_nobody_to_be_compared_with(tmp_path):
    write_page(results_of(["only"]), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "against the others" not in page.text and page.tags.count("svg") == 1


@pytest.mark.parametrize("name", ["mixed", "orders"])
def test_benchmark_files_of_the_repository_are_readable(tmp_path, name):
    results = Results.model_validate_json((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))
    write_page(results, tmp_path / "page.html")
    write_markdown(results, tmp_path / "page.md")
    page = Page(tmp_path / "page.html")
    assert page.tags.count("tr") == sum(1 + len(table.rows) for table in results.tables)
    markdown = (tmp_path / "page.md").read_text(encoding="utf-8")
    for table in results.tables:
        assert f"{table.dataset}, {table.suite}, k = {table.k}, {table.queries} queries" in page.text
        assert f"### {table.suite}, k = {table.k}" in markdown
        for row in table.rows:
            assert row.selector in page.text and row.selector in markdown


def test_the_page_of_phenomena_of_the_repository(tmp_path):
    record = json.loads((BENCHMARKS / "phenomena.json").read_text(encoding="utf-8"))
    phenomena = [Phenomenon(**fields) for fields in record["phenomena"]]
    write_phenomena(phenomena, tmp_path / "page.html", record["about"])
    page = Page(tmp_path / "page.html")
    assert page.tags.count("img") == len(phenomena)
    assert all(f"{name} {value:.3f}" in page.text for p in phenomena for name, value in p.figures.items())


def test_templates_are_part_of_the_package():
    names = {path.name for path in (files("kdprompt.report") / "templates").iterdir()}
    assert names >= {"base.html.jinja", "benchmark.html.jinja", "phenomena.html.jinja", "style.css.jinja"}


def test_names_are_text_in_markdown(tmp_path):
    """Read by a Markdown parser, every name is what it was, and a table has as many cells as columns."""
    from markdown_it import MarkdownIt

    names = ["a|b `c` $d$ *e* _f_ [g](h) <b>i</b> & ~~j~~ \\|", "first\nsecond", "# x", "\x1b[2J"]
    shown = [" ".join(name.split()).replace("\x1b", "\\x1b") for name in names]
    for name, text in zip(names, shown, strict=True):
        write_markdown(results_of([name, f"other {name}"], dataset=name), tmp_path / "page.md")
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse((tmp_path / "page.md").read_text())
        cells = [t.children for before, t in pairwise(tokens) if before.type in ("td_open", "th_open")]
        assert len(cells) == 3 * 5
        texts = ["".join(child.content for child in cell if child.type == "text") for cell in cells]
        assert texts[1] == text and texts[5] == text and texts[10] == f"other {text}"
        assert {child.type for cell in cells for child in cell} <= {"text", "strong_open", "strong_close"}


@pytest.mark.parametrize("name", ["$x^$", "$\\frac$ of 5 $", "a $ b", "\\$5"])
def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path, name):
    write_page(results_of([f"a {name}", f"b {name}"], dataset=name), tmp_path / "page.html")
    phenomenon = Phenomenon(name, name, name, name, [1.0, 2.0], [3.0, 4.0], {name: 0.1})
    write_phenomena([phenomenon], tmp_path / "phenomena.html", {})
    drawn = read_pictures(tmp_path / "phenomena.html")
    assert len(drawn) == 1 and all("<!-- " in picture for picture in drawn)
    assert all(name in Page(tmp_path / page).text for page in ("page.html", "phenomena.html"))
