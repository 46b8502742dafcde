"""Bisection of a batch that failed: how many calls, whose fault, and who gets an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprompt.fault_search import FaultSearch, answer_all, may_be_general


class Service:
    """Doubles numbers; fails where a bad one is among them, or always; counts calls."""

    def __init__(self, bad=(), error=RuntimeError, down=False):
        self.bad, self.error, self.down = set(bad), error, down
        self.calls = []

    def __call__(self, items):
        self.calls.append(list(items))
        if self.down or self.bad & set(items):
            raise self.error("somewhere in it")
        return [2 * item for item in items]


def search_whole(service, n, parts=1):
    """Serves n items in parts and bisects what failed, as the micro-batcher does; answers and faults by item."""
    answers, failed, answered = {}, [], False
    for part in range(parts):
        items = list(range(n))[part::parts]
        try:
            answers.update(zip(items, service(items), strict=True))
            answered = True
        except Exception as error:
            failed.append((items, error))
    search = FaultSearch(failed, answered=answered, is_transient=lambda error: False)
    for places in search:
        try:
            answers.update(zip(places, service(places), strict=True))
            search.report(None)
        except Exception as error:
            search.report(error)
    return answers, search.faults


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ConnectionError])
@pytest.mark.parametrize("bad", range(64))
def test_one_of_64_in_two_batches_costs_8_calls_at_most(bad, error):
    service = Service([bad], error)
    answers, faults = search_whole(service, 64, parts=2)
    assert set(faults) == {bad} and answers == {i: 2 * i for i in range(64) if i != bad}
    assert len(service.calls) <= 8


@pytest.mark.parametrize("bad", range(32))
def test_one_of_32_in_one_batch_costs_8_calls_at_most(bad):
    service = Service([bad])
    answers, faults = search_whole(service, 32)
    assert set(faults) == {bad} and len(answers) == 31 and len(service.calls) <= 8


@pytest.mark.parametrize(("n", "parts"), [(1, 1), (2, 1), (32, 1), (64, 2), (200, 1)])
def test_a_service_that_is_down_is_called_three_times_at_most(n, parts):
    service = Service(down=True)
    answers, faults = search_whole(service, n, parts)
    assert not answers and set(faults) == set(range(n)) and len(service.calls) <= 3


def test_items_that_are_all_at_fault_are_not_called_one_by_one():
    service = Service(down=True, error=ValueError)
    assert len(search_whole(service, 64)[1]) == 64 and len(service.calls) <= 13


def test_what_failed_once_by_accident_is_nobodys_fault():
    class Hiccup(Service):
        def __call__(self, items):
            self.down = not self.calls
            return super().__call__(items)

    service = Hiccup()
    answers, faults = search_whole(service, 32)
    assert answers == {i: 2 * i for i in range(32)} and not faults and len(service.calls) <= 8


@given(st.integers(1, 90), st.sets(st.integers(0, 89), max_size=4), st.integers(1, 3))
def test_every_item_gets_its_answer_or_its_error(n, bad, parts):
    bad = {item for item in bad if item < n}
    service = Service(bad, ValueError)
    answers, faults = search_whole(service, n, parts)
    assert set(answers) | set(faults) == set(range(n)) and not set(answers) & set(faults)
    assert bad <= set(faults)
    if len(bad) <= 2 < n - len(bad):
        assert set(faults) == bad


def test_no_call_is_larger_than_its_size():
    service = Service([0, 30], ValueError)
    search = FaultSearch([(list(range(16)), ValueError()), (list(range(16, 32)), ValueError())], size=16)
    search.is_transient = lambda error: False
    for places in search:
        try:
            service(places)
            search.report(None)
        except ValueError as error:
            search.report(error)
    assert set(search.faults) == {0, 30} and max(map(len, service.calls)) <= 16


def test_one_item_is_tried_again_where_its_error_may_pass():
    service, pauses = Service(down=True, error=ConnectionError), []
    answers, faults = answer_all(service, [7], ConnectionError("first"), lambda error, count: pauses.append(count))
    assert not answers and set(faults) == {0} and len(service.calls) == 2 and pauses == [1, 2]
    service = Service()
    assert answer_all(service, [7], ConnectionError("first"), lambda error, count: None) == ({0: 14}, {})


def test_an_item_whose_error_stays_is_not_tried_again():
    service = Service([7], ValueError)
    _, faults = answer_all(service, [7], ValueError("x"), lambda *_: None)
    assert set(faults) == {0} and not service.calls


@pytest.mark.parametrize("bad", range(0, 64, 3))
def test_a_search_for_the_fault_alone_stops_when_it_is_found(bad):
    service = Service([bad])
    _, faults = answer_all(service, list(range(64)), RuntimeError("x"), lambda *_: None)
    assert set(faults) == {bad} and len(service.calls) <= 7


def test_errors_of_values_speak_of_the_items():
    assert may_be_general(ConnectionError()) and may_be_general(RuntimeError())
    assert not may_be_general(ValueError()) and not may_be_general(KeyError())
