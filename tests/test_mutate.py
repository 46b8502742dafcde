"""The command that tests the tests: what it changes, and which tests are to notice."""

import sys
from collections import Counter
from types import ModuleType, SimpleNamespace

import pytest

import mutants
import mutate
from mutants import ROOT, Mutant, apply, differ, find_silent, list_codes, list_mutants
from mutate import KILLED, SURVIVED, describe, find_tests, list_modules, sort_tests


def test_every_changed_module_has_tests_that_are_there():
    modules = list_modules()
    assert {"kdprompt/theory/kernels.py", "kdprompt/search/ordering.py", "kdprompt/objective/objective.py"} <= set(
        modules
    )
    assert all((ROOT / name).exists() for module in modules for name in (module, *find_tests(module)))
    assert all(any(module.startswith(target) for module in modules) for target in mutate.TESTS)


def test_silent_places_are_found():
    source = (
        "def f(x: int | None, *, y: float = 1 - 2) -> str:\n"
        "    z: int = 3 + x\n"
        "    é = 'ü'; raise ValueError(f'{1 + z}')\n"
        "    return zip(x, z, strict=True)\n"
    )
    lines = source.splitlines()
    found = [lines[begin[0] - 1][begin[1] : end[1]] for begin, end in find_silent(source)]
    assert sorted(found) == ["f'{1 + z}'", "float", "int", "int | None", "str", "strict=True"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("return x + 1", "return x - 1", True),
        ("return x + 1", "return x + 1.0", True),
        ("return x + 1", "return   x + 1  # why", False),
        ("return [y + 1 for y in x]", "return [y + 2 for y in x]", True),
        ("return (1, 0.0)", "return (1, -0.0)", True),
    ],
)
def test_changes_that_do_nothing_are_told_from_others(before, after, expected):
    first, second = (list_codes("kdprompt/made_up.py", f"def f(x):\n    {body}\n") for body in (before, after))
    assert differ(first, second) == expected
    assert list_codes("kdprompt/made_up.py", "def f(x):\n    return x +\n") is None


def test_a_loaded_module_is_given_changed_code_wherever_its_functions_were_taken(monkeypatch):
    name, path = "made_up", str(ROOT / "made_up.py")
    source = (
        "import functools\n"
        "def f(x):\n    inner = lambda: x + 1\n    return inner()\n"
        "class C:\n    @functools.cached_property\n    def p(self):\n        return 1 + 1\n"
    )
    module = ModuleType(name)
    module.__file__ = path
    exec(compile(source, path, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    taken = module.f
    mutants.patch("made_up.py", source.replace("x + 1", "x - 1").replace("1 + 1", "1 + 6"))
    assert (taken(5), module.C().p) == (4, 7)


def test_tests_are_sorted_by_what_they_are_likely_to_notice_soon():
    seconds = {"a[1]": 0.02, "a[2]": 0.01, "b": 0.1, "c[1]": 0.2, "slow": 9.0}
    tests = [SimpleNamespace(nodeid=name) for name in ("slow", "a[1]", "a[2]", "b", "c[1]")]

    def names(kills, variants=None):
        return [test.nodeid for test in sort_tests(tests, seconds, Counter(kills), variants)]

    assert names({}) == ["a[2]", "b", "c[1]", "a[1]", "slow"]
    assert names({"c": 2, "b": 1}, 1) == ["c[1]", "b", "a[2]", "slow"]


def test_shares_have_intervals():
    ends = Counter({("m.py", KILLED): 9, ("m.py", SURVIVED): 1, ("n.py", SURVIVED): 4})
    assert describe("m.py", ends) == "m.py: 9 of 10 killed, 90% (60% to 98%)"  # by the formula of Wilson (1927)
    assert describe("", ends).startswith("all: 9 of 14 killed, 64%")


def test_mutants_stand_in_functions_and_are_python():
    pytest.importorskip("cosmic_ray")
    module = "kdprompt/theory/bounds.py"
    source = (ROOT / module).read_text(encoding="utf-8")
    lines = source.splitlines()
    found = list(list_mutants(module))
    assert len(found) > 100 and not any("@dataclass" in lines[mutant.line - 1] for mutant in found)
    at = next(i for i, line in enumerate(lines, start=1) if "if m < 1" in line)
    mutant = Mutant(module, "core/ReplaceComparisonOperator_Lt_LtE", 0, at)
    assert any(other.line == at and other.operator == mutant.operator for other in found)
    assert "<=" in "".join(set(apply(mutant, source).splitlines()) - set(lines))
