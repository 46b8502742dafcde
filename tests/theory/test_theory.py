"""The package's public names: all of its modules', importable from ``kdprompt.theory``."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from kdprompt import theory

MODULES = sorted(path.stem for path in Path(theory.__file__).parent.glob("[a-z]*.py"))
NOT_REEXPORTED = {
    "RidgeChange",
    "SHRINKAGES",
    "TEMPERATURES",
    "check_positive",
    "combine_squares",
    "log_softmax_of_few",
    "multiply_with_all",
    "widen",
}
FLAT_MODULE = (  # the names of kdprompt.theory when it was one file
    "Guarantee OrderSensitivity bias complexity distilled_weights generalisation_bound interference "
    "interference_by_task order_sensitivity query_sample_error read_out read_out_shift risk_bound"
).split()


@pytest.mark.parametrize("name", MODULES)
def test_the_package_has_the_public_names_of_every_module(name):
    module = import_module(f"kdprompt.theory.{name}")
    assert module.__doc__ and module.__all__
    assert set(module.__all__) - NOT_REEXPORTED <= set(theory.__all__)


def test_the_package_lists_each_name_once_and_keeps_those_of_the_flat_module():
    assert len(set(theory.__all__)) == len(theory.__all__)
    assert set(FLAT_MODULE) <= set(theory.__all__)


def test_a_name_of_the_package_is_that_of_its_module_the_function_mmd_included():
    """In a fresh interpreter: pytest loads modules with doctests a second time."""
    script = (
        "from importlib import import_module\n"
        "from kdprompt import theory\n"
        "from kdprompt.theory.mmd import mmd\n"
        "assert theory.mmd is mmd\n"
        f"modules = [import_module(f'kdprompt.theory.{{name}}') for name in {MODULES}]\n"
        "for name in theory.__all__:\n"
        "    sources = [vars(module)[name] for module in modules if name in module.__all__]\n"
        "    assert sources and all(source is getattr(theory, name) for source in sources), name\n"
        "print('same')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert run.stdout.split() == ["same"], run.stderr
