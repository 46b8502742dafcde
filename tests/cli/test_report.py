"""``kdprompt report``: a page of one prompt, from examples or from a stored selector; mistakes are found first."""

import json

import pytest

import support
from kdprompt import DistillationSelector, Settings
from kdprompt.errors import QueryError

EXAMPLES = [{"input": f"{word} is late {i}", "output": word} for word in ("train", "plane") for i in range(6)]


def invoke(*arguments):
    return support.invoke("report", *arguments)


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES))
    return path


@pytest.mark.parametrize("stored", [False, True])
def test_the_page_is_that_of_the_selection(stored, pool, tmp_path, embedder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page, query = tmp_path / "page.html", "the train does not come"
    selector = DistillationSelector.from_examples(EXAMPLES, embedder, settings=Settings(k=3))
    if stored:
        selector.save(pool)
    said = invoke("--pool", pool, "--query", query, "--k", 3, "--device", "cpu", "--output", page).output
    assert "wrote the page of 3 demonstrations" in " ".join(said.split())
    source = page.read_text(encoding="utf-8")
    for shown in selector.select(query).demonstrations:
        assert shown.input in source
    invoke("--pool", pool, "--k", 2, "--device", "cpu", "--output", page)
    assert "One prompt for the query distribution" in page.read_text(encoding="utf-8")


def test_a_prompt_is_limited_as_select_limits_it(pool, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = tmp_path / "page.html"
    asked = ("--pool", pool, "--query", "my order is late", "--k", 2, "--device", "cpu", "--output", page)
    said = invoke(*asked, "--min-similarity", 0.99, "--order", "nearest-last").output
    assert "wrote the page of 0 demonstrations" in " ".join(said.split())
    assert "no example fits" in page.read_text(encoding="utf-8")
    pages = []
    for options in ((), (), ("--profile", "gemma-3-270m")):
        invoke(*asked, *options)
        pages.append(page.read_text(encoding="utf-8"))
    assert pages[0] == pages[1] != pages[2], "another reader is expected to answer otherwise"


def test_mistakes_are_found_before_the_work(pool, tmp_path):
    with pytest.raises(OSError, match="is a folder"):
        invoke("--pool", pool, "--query", "x", "--output", tmp_path)
    with pytest.raises(ValueError, match="--k must be"):
        invoke("--pool", pool, "--query", "x", "--k", "many", "--output", tmp_path / "page.html")
    with pytest.raises(QueryError, match="did you mean 'train'"):
        invoke("--pool", pool, "--query", "x", "--permit", "trian", "--output", tmp_path / "page.html")
