"""What a stored selection is found again by: every setting to any depth, and nothing that changes by itself."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest

from kdprompt import PromptTemplate, Quota, Settings
from kdprompt.evaluate import DistillationBenchmarkSelector, ShuffledSelector, make_selector, make_selectors
from kdprompt.evaluate.description import describe
from support import change_settings

PLAIN = make_selector("kdprompt:temperature=0.3")


def changed(**fields):
    return replace(PLAIN, settings=change_settings(PLAIN.settings, **fields))


@pytest.mark.parametrize(
    "other",
    [
        make_selector("kdprompt:temperature=0.31"),
        changed(seed=1),
        changed(near_duplicate=0.9),
        changed(budget=200),
        changed(quota=Quota(most=2)),
        changed(quota=Quota(most={"a": 2})),
        changed(template=PromptTemplate(separator="\n")),
        changed(count_tokens=len),
        replace(PLAIN, name="another"),
        ShuffledSelector("kdprompt", PLAIN),
    ],
)
def test_every_setting_is_part_of_it(other):
    assert json.dumps(describe(other)) != json.dumps(describe(PLAIN))


def test_options_of_functions_are_part_of_it():
    assert describe(make_selector("mmr:trade_off=0.9")) != describe(make_selector("mmr:trade_off=0.8"))
    assert describe(partial(max, key=len)) != describe(partial(max, key=abs)) != describe(max)


def test_a_setting_that_is_written_out_is_no_other_than_its_default():
    default = Settings()
    assert describe(DistillationBenchmarkSelector("x", Settings(**dict(default)))) == describe(
        DistillationBenchmarkSelector("x", default)
    )


def test_it_is_the_same_in_every_process():
    script = (
        "import json\nfrom kdprompt.evaluate import make_selectors\n"
        "from kdprompt.evaluate.description import describe\n"
        "print(json.dumps([describe(s) for s in make_selectors(['all'])]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    here = json.dumps([describe(selector) for selector in make_selectors(["all"])])
    assert done.stdout.strip() == here and " at 0x" not in here


def test_sets_have_one_order():
    words = [f"word {i}" for i in range(20)]
    assert describe(set(words)) == describe(frozenset(reversed(words)))
