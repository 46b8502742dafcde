"""A selection's numbers are computed when somebody looks, once, and nobody sees a selection without them."""

import copy
import gc
import json
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from pydantic import BaseModel, ValidationError

from kdprompt import CallableEmbedder, DistillationSelector, Selection, Settings
from kdprompt.selection import late_accounts
from kdprompt.selection.late_fields import STORED

LATE = set(Selection.model_fields) - {"query", "weights", "prefix_length"}


def make_selector(count=40):
    generator = torch.Generator().manual_seed(0)
    texts = [f"text {i}" for i in range(count + 8)]
    vectors = dict(zip(texts, torch.randn(count + 8, 6, generator=generator), strict=True))
    embedder = CallableEmbedder(lambda asked: torch.stack([vectors[text] for text in asked]))
    records = [{"input": text, "output": "abc"[i % 3]} for i, text in enumerate(texts[:count])]
    return DistillationSelector.from_examples(records, embedder, settings=Settings(k=4)), texts[count:]


@pytest.fixture(scope="module")
def asked():
    return make_selector()


def is_computed(selection):
    return set(STORED.__get__(selection)) == set(Selection.model_fields)


@pytest.fixture
def passes(monkeypatch):
    """How many prompts each pass of the accounting was asked for."""
    counted, compute = [], late_accounts.compute_fields

    def count(context, prompts):
        counted.append(len(prompts.queries))
        return compute(context, prompts)

    monkeypatch.setattr(late_accounts, "compute_fields", count)
    return counted


def test_the_prompt_is_there_before_its_numbers(asked):
    selector, queries = asked
    selection = selector.select(queries[0])
    assert selection.query.text == queries[0] and len(selection) == 4 and len(selection.ids) == 4
    assert [example["input"] for example in selection.examples] == [d.input for d in selection.demonstrations]
    assert queries[0] in selection.to_text() and selection.to_messages() and selection.origin is not None
    assert set(STORED.__get__(selection)) == {"query", "weights", "prefix_length"}
    shown = selection.demonstrations
    assert tuple(chosen.demonstration for chosen in selection.chosen) == shown == selection.demonstrations


LOOKS = {
    **{name: lambda selection, name=name: getattr(selection, name) for name in sorted(LATE)},
    "repr": repr,
    "vars": vars,
    "iterate": dict,
    "compare": lambda selection: selection == 0 or selection == selection.model_construct(),
    "dump": lambda selection: selection.model_dump(),
    "json": lambda selection: selection.model_dump_json(),
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "change": lambda selection: selection.model_copy(update={"notes": ()}),
    "share": lambda selection: selection.cacheable_share,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_whatever_looks_finds_all_of_it(asked, look):
    selector, queries = asked
    selection = selector.select(queries[0])
    assert not is_computed(selection)
    look(selection)
    assert is_computed(selection)


def test_copies_and_stored_ones_have_what_the_first_would_show(asked):
    selector, queries = asked

    def select():
        return selector.select(queries[1])

    whole = select()
    assert whole.terms.total < whole.empty_terms.total
    copies = (
        select(),
        pickle.loads(pickle.dumps(select())),
        copy.deepcopy(select()),
        Selection.model_validate_json(select().model_dump_json()),
        select().model_copy(),
    )
    for other in copies:
        assert other == whole and whole == other
        assert json.loads(other.model_dump_json()) == json.loads(whole.model_dump_json())
    changed = select().model_copy(update={"notes": ("a note",)})
    assert changed.notes == ("a note",) and changed.terms == whole.terms and changed != whole
    shorter = select().model_copy(update={"chosen": whole.chosen[:2]})
    assert len(shorter) == 2 and shorter.ids == whole.ids[:2]


def test_a_selection_inside_another_record_is_stored_whole(asked):
    class Holder(BaseModel):
        selection: Selection

    selector, queries = asked
    stored = Holder(selection=selector.select(queries[2])).model_dump(mode="json")["selection"]
    assert stored["terms"]["total"] == selector.select(queries[2]).terms.total and len(stored["chosen"]) == 4


def test_a_batch_is_accounted_for_once_by_whoever_looks(asked, passes):
    selector, queries = asked
    selections = selector.select_batch(queries)
    assert passes == []
    start = threading.Barrier(len(selections))

    def look(selection):
        start.wait()
        return selection.terms, selection.chosen

    with ThreadPoolExecutor(len(selections)) as pool:
        seen = list(pool.map(look, selections))
    assert passes == [len(queries)]
    for (terms, chosen), selection, query in zip(seen, selections, queries, strict=True):
        assert terms is selection.terms and chosen is selection.chosen
        assert terms.total == pytest.approx(selector.select(query).terms.total, abs=1e-12)


def test_many_threads_that_look_at_one_selection_see_the_same(asked, passes):
    selector, queries = asked
    selection = selector.select(queries[3])
    start = threading.Barrier(8)

    def look(_):
        start.wait()
        return selection.evidence, selection.notes, selection.bounds

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(look, range(8)))
    assert passes == [1]
    assert all(a is b for other in seen for a, b in zip(other, seen[0], strict=True))


def test_the_numbers_are_those_of_the_pool_as_it_was():
    selector, queries = make_selector()
    late, first = selector.select(queries[0]), selector.select(queries[0])
    assert first.terms.total < first.empty_terms.total
    selector.remove(late.ids[:2])
    selector.update(late.ids[2], {"input": "text 41", "output": "c"})
    assert late.chosen == first.chosen and late == first


def test_what_was_looked_at_lets_go_of_the_others_of_its_batch(asked):
    selector, queries = asked
    selections = selector.select_batch(queries)
    batch = weakref.ref(selections[0]._source._batch)
    selections = selections[:1]
    assert selections[0].terms.total > 0
    gc.collect()
    assert batch() is None


def test_an_error_is_raised_where_somebody_looks_and_does_not_stay(asked, monkeypatch):
    selector, queries = asked
    selection = selector.select(queries[0])
    with monkeypatch.context() as broken:
        broken.setattr(late_accounts, "compute_fields", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _ = selection.terms
        with pytest.raises(ZeroDivisionError):
            selection.model_dump()
    assert selection.terms.total > 0


def test_it_stays_frozen_and_knows_no_other_names(asked):
    selector, queries = asked
    selection = selector.select(queries[0])
    for name in ("terms", "query"):
        with pytest.raises(ValidationError):
            setattr(selection, name, None)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = selection.nothing
