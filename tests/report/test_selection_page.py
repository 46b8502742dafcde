"""The page of a selection: whole in itself, escaped, with the numbers of the selection and nothing that runs."""

import base64
import hashlib
import re

import html5lib
import pytest

from kdprompt import CallableEmbedder, DistillationSelector, PromptTemplate, Selection, Settings
from kdprompt.pool.jinja_template import JinjaTemplate
from kdprompt.report.charts import Scale, format_number, witness_class
from kdprompt.report.page import render_template

HOSTILE = """</title></style></pre><script>document.title='x'</script><img src=x onerror="document.title='x'">{{ 7 }}"""
EXAMPLES = [
    {"input": f"{a} and {b} {HOSTILE if b == 2 else ''}", "output": f"odd {HOSTILE}" if a % 2 else "even", "task": "t"}
    for a in range(5)
    for b in range(5)
]


def embed(texts):
    """The numbers of an input; of an output, its length."""
    return [[float(t[0]) + 1, float(t[6]) + 0.5, 1.0] if t[0].isdigit() else [len(t), 1.0, 0.0] for t in texts]


EMBEDDER = CallableEmbedder(embed)


def build(**settings):
    settings = Settings(**{"k": 4, **settings})
    return DistillationSelector.from_examples(EXAMPLES, EMBEDDER, settings=settings)


@pytest.fixture(scope="module")
def selector():
    return build()


@pytest.fixture(scope="module")
def selection(selector):
    return selector.select(f"3 and 1 {HOSTILE}")


def page_of(selection, tmp_path, **how):
    selection.to_html(tmp_path / "page.html", **how)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def tree_of(source):
    """The page as a browser reads it; strict: an error of HTML raises."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(source)


def words_of(tree):
    return " ".join("".join(tree.find("body").itertext()).split())


def assert_harmless(tree):
    tags = {element.tag for element in tree.iter() if isinstance(element.tag, str)}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "link", "base"}
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert not str(name).startswith("on") and name != "style", (element.tag, name)
            if name in ("href", "src"):
                assert value.startswith("#"), value


@pytest.mark.parametrize("kind", ["query", "static", "stored", "empty", "text", "none"])
def test_every_kind_of_selection_has_a_page_that_is_valid_and_harmless(kind, tmp_path, selector, selection):
    made = {
        "query": lambda: selection,
        "static": lambda: selector.select_static(),
        "stored": lambda: Selection.model_validate_json(selection.model_dump_json()),
        "empty": lambda: build(k=0).select("3 and 1"),
        "text": lambda: build(outputs="text").select("3 and 1"),
        "none": lambda: build(outputs="none").select("3 and 1"),
    }[kind]()
    tree = tree_of(page_of(made, tmp_path))
    assert_harmless(tree)
    words = words_of(tree)
    for member in made.chosen:
        assert " ".join(member.demonstration.input.split()) in words
    assert f"J of this prompt (lower is better){format_number(made.terms.total)}" in words
    assert ("Map of the pool" in words) == (kind != "stored")
    assert ("What the pool knows of each output" in words) == (kind in ("query", "static", "stored", "empty"))


def test_the_numbers_are_those_of_the_selection(tmp_path, selection):
    words = words_of(tree_of(page_of(selection, tmp_path)))
    for member in selection.chosen:
        numbers = (f"{100 * member.attention:.0f} %", *(format_number(v) for v in (member.gain, member.marginal)))
        for number in numbers:
            assert number in words
    for item in selection.evidence:
        assert f"{100 * item.expected:.0f} %" in words and f"{100 * item.target:.0f} %" in words
    for note in selection.notes:
        assert note in words
    assert len(selection.chosen) == 4 and f"{selection.tokens} tokens" in words


def test_the_prompt_is_written_whole_by_the_template(tmp_path, selection):
    template = PromptTemplate("Q: {input}\nA: {output}", "Q: {input}\nA:", "\n--\n", "Answer <b>well</b>.")
    tree = tree_of(page_of(selection, tmp_path, template=template))
    prompts = ["".join(element.itertext()) for element in tree.iter("pre")]
    assert prompts[0] == selection.to_text(template) and len(prompts) == 2
    nearest = template.text([], selection.query.text)
    assert prompts[1].startswith("Answer <b>well</b>.") and prompts[1].endswith(nearest.split("\n--\n")[-1])


def test_a_jinja_template_is_shown_whole(tmp_path, selection):
    source = "{% for e in examples %}* {{ e.input }} = {{ e.output }}\n{% endfor %}> {{ input }}"
    template = JinjaTemplate(source=source)
    tree = tree_of(page_of(selection, tmp_path, template=template))
    assert "".join(next(tree.iter("pre")).itertext()) == selection.to_text(template)


def test_a_stored_selection_says_what_is_missing(tmp_path, selection):
    stored = Selection.model_validate_json(selection.model_dump_json())
    source = page_of(stored, tmp_path)
    assert "not at hand" in source and "nearest neighbours, nearest last" not in source.lower()


def test_the_policy_permits_the_page_style_alone(tmp_path, selection):
    tree = tree_of(page_of(selection, tmp_path))
    (policy,) = [m.get("content") for m in tree.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    (style,) = list(tree.iter("style"))
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "http" not in policy


# -- colours --------------------------------------------------------------------------------------------------------


def luminance(colour):
    colour = "".join(2 * sign for sign in colour[1:]) if len(colour) == 4 else colour[1:]
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_ground_have_contrast(scheme, selection, tmp_path):
    style = next(tree_of(page_of(selection, tmp_path)).iter("style")).text
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]+)", schemes[0 if scheme == "light" else 1]))
    for ground in ("ground", "mark"):
        for ink in ("ink", "dim", "accent", "good", "bad"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for extreme in ("p3", "n3", "accent"):
        assert contrast(colours[extreme], colours["ground"]) >= 3, extreme


# -- card, plot and numbers ---------------------------------------------------------------------------------------


def test_a_notebook_gets_a_card(selection, selector):
    card = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parseFragment(selection._repr_html_())
    assert_harmless(card)
    assert "4 demonstrations" in "".join(card.itertext()) and len(list(card.iter("tr"))) == 5
    explanation = selector.explain(f"3 and 1 {HOSTILE}")
    assert explanation._repr_html_() == selection._repr_html_()


def test_an_explanation_writes_the_page_of_its_selection(tmp_path, selector, selection):
    selector.explain(f"3 and 1 {HOSTILE}").to_html(tmp_path / "other.html")
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == page_of(selection, tmp_path)


@pytest.mark.parametrize("kind", ["query", "static", "stored", "text"])
def test_a_plot_shows_the_contributions_and_the_falls_of_j(kind, tmp_path, selector, selection):
    made = {
        "query": lambda: selection,
        "static": lambda: selector.select_static(),
        "stored": lambda: Selection.model_validate_json(selection.model_dump_json()),
        "text": lambda: build(outputs="text").select("3 and 1 $x$"),
    }[kind]()
    figure = made.plot()
    figure.savefig(tmp_path / "plot.png")
    axes = [axes for part in figure.subfigs for axes in part.axes]
    assert len(axes) == 4 and (tmp_path / "plot.png").stat().st_size > 10_000
    assert [bar.get_width() for bar in axes[2].patches] == [member.marginal for member in reversed(made.chosen)]
    falls = axes[3].lines[0].get_ydata()
    assert falls[0] == made.empty_terms.total and falls[-1] == pytest.approx(made.terms.total)


def test_scales_and_numbers():
    scale = Scale.over([2.0, 4.0], 100, 0, margin=0.0)
    assert (scale(2.0), scale(3.0), scale(4.0)) == (100, 50, 0)
    assert [tick.label for tick in scale.ticks()] == ["2", "2.5", "3", "3.5", "4"]
    assert Scale.over([1.0], 0, 10)(1.0) == 5
    assert [witness_class(v, 1.0) for v in (-1, -0.2, -0.001, 0, 0.001, 0.2, 1)] == [
        "n3", "n1", "z0", "z0", "z0", "p1", "p3",
    ]  # fmt: skip
    assert witness_class(0.0, 0.0) == "z0" and format_number(-1.5, 1) == "−1.5"


def test_templates_fail_where_a_name_is_missing():
    with pytest.raises(Exception, match="undefined"):
        render_template("selection", title="x", about=None)


STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202eright\u202c\r\n"


def test_signs_that_steer_a_terminal_stand_as_escapes_in_page_card_and_words(tmp_path):
    rows = [{**row, "input": f"{row['input']} {STEERING}", "output": f"{row['output']} {STEERING}"} for row in EXAMPLES]
    selector = DistillationSelector.from_examples(rows, EMBEDDER, settings=Settings(k=4))
    explanation = selector.explain(f"3 and 1 {STEERING}")
    selection = explanation.selection
    shown = (
        page_of(selection, tmp_path),
        selection._repr_html_(),
        str(explanation),
        repr(selection),
        repr(explanation),
    )
    for text in shown:
        assert not re.search("[^\t\n\x20-\x7e\xa0-\u2029\u2030-\U0010ffff]", text), ascii(text)
    for text in shown[:3]:
        assert "\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x7f\\u202eright" in text
