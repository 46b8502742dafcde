"""The command that tests the tests: what it changes, and which tests are to notice."""

import mutate
from mutate import ROOT, find_annotations, find_tests, list_modules


def test_every_changed_module_has_tests_that_are_there():
    modules = list_modules()
    assert {"kdprompt/theory/kernels.py", "kdprompt/search/ordering.py", "kdprompt/objective/objective.py"} <= set(
        modules
    )
    assert all((ROOT / name).exists() for module in modules for name in (module, *find_tests(module)))
    assert all(any(module.startswith(target) for module in modules) for target in mutate.TESTS)


def test_annotations_are_found():
    source = "def f(x: int | None, *, y: float = 1 - 2) -> str:\n    z: int = 3 + x\n"
    lines = source.splitlines()
    found = [lines[begin[0] - 1][begin[1] : end[1]] for begin, end in find_annotations(source)]
    assert sorted(found) == ["float", "int", "int | None", "str"]
