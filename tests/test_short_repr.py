"""What a console shows: a line for each of the objects that people meet, and nothing of pydantic's."""

import pytest
from rich.pretty import pretty_repr

import kdprompt
from kdprompt import (
    CallableEmbedder,
    Demonstration,
    DistillationSelector,
    Gaussian,
    NearestLast,
    ObjectiveSettings,
    Quota,
    SearchSettings,
    Settings,
)

EXAMPLES = [{"input": f"{a} and {b}", "output": "odd" if a % 2 else "even"} for a in range(5) for b in range(4)]
EMBEDDER = CallableEmbedder(lambda texts: [[float(t[0]) + 1, float(t[-1]), 1.0] for t in texts])


@pytest.fixture(scope="module")
def selector():
    return DistillationSelector.from_examples(EXAMPLES, EMBEDDER, settings=Settings(k=4))


def test_settings_print_what_differs_from_the_defaults_and_make_themselves_again():
    settings = Settings(
        k=3, order=NearestLast(), quota=Quota(most=2), search=SearchSettings(shortlist=9),
        objective=ObjectiveSettings(kernel=Gaussian(0.5)),
    )  # fmt: skip
    assert repr(Settings()) == str(Settings()) == "Settings()"
    assert repr(settings).startswith("Settings(k=3, quota=Quota(most=2), order=NearestLast(")
    assert eval(repr(settings), {name: getattr(kdprompt, name) for name in kdprompt.__all__}) == settings


def test_required_fields_always_print():
    assert repr(Demonstration(id="1", input="a")) == "Demonstration(id='1', input='a', output=None, task=None)"


@pytest.mark.parametrize("long", [False, True])
def test_a_selection_is_one_line(selector, long):
    selection = selector.select("3 and " + "9" * (5000 if long else 1))
    line = repr(selection)
    assert len(line) < 250 and "\n" not in line
    assert line.startswith("Selection(query='3 and 9") and "demonstrations=4" in line and "J='" in line
    assert str(selection) == line and len(pretty_repr(selection)) < 400
    assert all(len(repr(member)) < 200 for member in selection.chosen)


def test_a_static_selection_says_so(selector):
    assert "query=None" in repr(selector.select_static())


def test_an_explanation_prints_short_and_says_where_the_rest_is(selector):
    explanation = selector.explain("3 and 1")
    assert len(repr(explanation)) < 350 and "print()" in repr(explanation)
    assert len(str(explanation).splitlines()) > 20


def test_a_selector_says_what_it_holds(selector):
    line = repr(selector)
    assert line.startswith("DistillationSelector(20 demonstrations, ") and line.endswith("Settings(k=4))")
    assert len(line) < 200 and len(repr(selector.calibration)) < 1500
