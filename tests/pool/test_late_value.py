"""Values that are computed when somebody looks."""

import copy
import pickle

import pytest
import torch

from kdprompt.pool.late_value import LateValue
from support import run_together


def test_a_value_is_made_once_whichever_of_many_threads_looks_first():
    made, seen = [], []

    def make():
        made.append(object())
        return made[-1]

    late = LateValue(make)

    run_together(lambda _: seen.append(late.value), 8)
    assert len(made) == 1 and seen == made * 8


def test_an_error_reaches_whoever_looked_and_the_next_one_tries_again():
    answers = iter([ValueError("not yet"), 3])

    def make():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    late = LateValue(make)
    with pytest.raises(ValueError, match="not yet"):
        _ = late.value
    assert not late.is_made
    assert (late.value, late.is_made) == (3, True)


def test_copies_and_pickles_hold_the_value():
    late = LateValue(lambda: [1, 2])  # a lambda has no pickle
    assert pickle.loads(pickle.dumps(late)).value == copy.deepcopy(late).value == [1, 2]
    assert copy.copy(late).value is late.value


def test_what_is_kept_is_not_bound_to_the_inference_mode_of_who_looked_first():
    late = LateValue(lambda: torch.ones(2))
    with torch.inference_mode():
        assert not late.value.is_inference()
