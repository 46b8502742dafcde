"""What a console shows: a line for each of the objects that people meet, and nothing of pydantic's."""

import inspect
import pydoc

import pytest
from pydantic import BaseModel
from rich.pretty import pretty_repr

import kdprompt
from kdprompt import (
    CallableEmbedder,
    Demonstration,
    DistillationSelector,
    Explanation,
    Gaussian,
    NearestLast,
    ObjectiveSettings,
    Pool,
    Query,
    Quota,
    Schema,
    SearchSettings,
    Selection,
    Settings,
)
from langchain_kdprompt import DistillationExampleSelector

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


# -- dir and help -------------------------------------------------------------------------------------------------

MOST_USED = [
    DistillationSelector, Selection, Explanation, Query, Demonstration, Pool, Settings, SearchSettings, Schema,
    DistillationExampleSelector,
]  # fmt: skip
OF_PYDANTIC = {name for name in dir(BaseModel) if not name.startswith("_")} - {"schema"}  # LangChain's has one, too


def public(names):
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("owner", MOST_USED, ids=lambda owner: owner.__name__)
def test_help_is_short_and_every_name_in_it_is_documented(owner):
    page = pydoc.plain(pydoc.render_doc(owner))
    assert len(page.splitlines()) <= 250 and "__pydantic" not in page and "Deprecated" not in page
    assert len(public(dir(owner))) <= 24 and not public(dir(owner)) & OF_PYDANTIC
    undocumented = [
        name
        for name in public(dir(owner))
        if callable(member := inspect.getattr_static(owner, name)) or isinstance(member, property | classmethod)
        if not (inspect.getdoc(member) or "").strip()
    ]
    assert undocumented == []


def test_dir_of_a_record_names_its_fields_and_little_else(selector):
    asked = Query(text="a")
    assert public(dir(asked)) == {"text", "task", "outputs", "own", "model_copy", "model_dump", "model_dump_json"}
    settings = public(dir(Settings()))
    assert set(Settings.model_fields) <= settings and not settings & {"shortlist", "penalties", "most", "construct"}
    assert asked.model_dump()["text"] == "a" and Query.model_validate({"text": "a"}) == asked
    with pytest.warns(DeprecationWarning):
        assert Settings().shortlist == 64


def test_dir_of_a_selection_names_its_numbers_and_computes_none(selector):
    found = selector.select("1 and 2")
    assert {"terms", "notes", "chosen", "demonstrations", "to_text"} <= set(dir(found))
    assert not found.holds("terms")
    assert found.terms.total <= found.empty_terms.total and found.holds("terms")
