"""The package's public names: all of its modules', importable from ``kdprompt.theory``."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from kdprompt import theory

MODULES = sorted(path.stem for path in Path(theory.__file__).parent.glob("[a-z]*.py"))
NOT_REEXPORTED = {"SHRINKAGES", "TEMPERATURES", "check_positive"}
FLAT_MODULE = (  # the names of kdprompt.theory when it was one file
    "Guarantee OrderSensitivity bias complexity distilled_weights generalisation_bound interference "
    "interference_by_task order_sensitivity query_sample_error read_out read_out_shift risk_bound"
).split()


@pytest.mark.parametrize("name", MODULES)
def test_the_public_names_of_every_module_are_those_of_the_package(name):
    module = import_module(f"kdprompt.theory.{name}")
    assert module.__doc__ and module.__all__
    for public in set(module.__all__) - NOT_REEXPORTED:
        assert public in theory.__all__ and getattr(theory, public) is getattr(module, public), public


def test_the_package_lists_each_name_once_and_keeps_those_of_the_flat_module():
    assert len(set(theory.__all__)) == len(theory.__all__)
    assert set(FLAT_MODULE) <= set(theory.__all__)


def test_mmd_is_the_function_and_its_module_can_still_be_read():
    script = (
        "from kdprompt.theory.mmd import mmd, mmd_squared\n"
        "from kdprompt.theory import mmd as exported\n"
        "print(exported is mmd, callable(mmd_squared))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "True"], done.stderr
