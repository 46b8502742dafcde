"""The road of ``select()`` is the one that docs/design.md names, and no call on it climbs."""

import re
from pathlib import Path

import pytest

from import_graph import find_circles, read_order, room_of
from select_road import ROAD, trace_select

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def road():
    return trace_select()


def test_a_call_enters_the_files_in_the_order_of_reading(road):
    entered, _ = road
    assert tuple(module for module in entered if module in ROAD) == ROAD and len(ROAD) <= 9


def test_no_call_goes_to_a_room_that_stands_later(road):
    _, calls = road
    place = {room: i for i, room in enumerate(read_order(ROOT))}
    between = [(room_of(a), room_of(b)) for a, b in calls if room_of(a) != room_of(b)]
    assert len(between) > 20 and [(a, b) for a, b in between if place[b] > place[a]] == []


def test_the_design_page_names_the_same_files():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = page.partition("## The road of `select()`")[2].partition("\n## ")[0]
    named = re.findall(r"^\d\. \[`(kdprompt/[\w/]+)\.py`\]", section, flags=re.MULTILINE)
    assert [name.replace("/", ".") for name in named] == list(ROAD)


def test_circles_are_grouped():
    graph = {"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c", "a"}, "e": {"a"}}
    assert find_circles(graph) == [{"a", "b"}, {"c", "d"}]
