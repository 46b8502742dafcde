"""The flow of the house: imports go one way, importing is cheap, and modules and functions stay small."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import kdprompt

PACKAGE = Path(kdprompt.__file__).parent
INTEGRATIONS = PACKAGE.parent / "integrations"

# Each room imports only from rooms before it. A new module gets its place here first.
ROOMS = (
    "errors",
    "batching",
    "data",
    "resources",
    "embedding",
    "kernels",
    "temperature",
    "mmd",
    "two_sample",
    "bounds",
    "theory",
    "features",
    "target",
    "objective",
    "search",
    "ordering",
    "prompt",
    "reading",
    "settings",
    "pseudo",
    "calibration",
    "choice",
    "corpus",
    "examination",
    "static",
    "selection",
    "reader_calibration",
    "audit",
    "record",
    "explanation",
    "storage",
    "selector",
    "probe",
    "evaluate",
    "diagnose",
    "report",
    "cli",
)
OUTSIDE = ("probe", "evaluate", "diagnose", "report", "cli")  # these use public names alone

FUNCTION_LINES = 45  # without the docstring
MODULE_LINES = 400


def sources(folder=PACKAGE):
    return sorted(folder.rglob("*.py"))


def label(path):
    return str(path.relative_to(PACKAGE.parent)) if isinstance(path, Path) else str(path)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source, package="kdprompt"):
    """(room, name) of everything that a source imports from the package, wherever in it; room "" is the package."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module
            found += [(module, alias.name) for alias in node.names]
    inside = [(module, name) for module, name in found if module == "kdprompt" or module.startswith("kdprompt.")]
    return [(module.removeprefix("kdprompt").removeprefix(".").split(".")[0], name) for module, name in inside]


def against_the_flow(room, source):
    """What a room imports from itself as another room, from later rooms, or from the package as a whole."""
    before = ROOMS[: ROOMS.index(room)]
    core = room not in OUTSIDE
    return [(r, n) for r, n in imports(source) if r not in before and (core or r not in ("", room))]


# -- the flow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sources(), ids=label)
def test_every_module_has_its_place(path):
    assert room_of(path) in ROOMS or room_of(path) == "__init__"


@pytest.mark.parametrize("path", [path for path in sources() if room_of(path) in ROOMS], ids=label)
def test_a_room_imports_only_from_rooms_before_it(path):
    assert against_the_flow(room_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from kdprompt.selector import DistillationSelector",
        "import kdprompt.selector",
        "from kdprompt import DistillationSelector",
        "import kdprompt",
        "from .objective import Objective",
        "from . import Settings",
        "def f():\n    from kdprompt.objective.objective import Objective",
        "from kdprompt.theory.kernels import Gaussian",
        "from kdprompt.nowhere import x",
    ],
)
def test_an_import_against_the_flow_is_noticed(source):
    assert against_the_flow("kernels", source)
    assert not against_the_flow(
        "kernels", "import torch\nfrom kdprompt.errors import PoolError\nfrom .data import Pool"
    )


@pytest.mark.parametrize(
    "path",
    [path for path in sources() if room_of(path) in OUTSIDE] + sources(INTEGRATIONS),
    ids=label,
)
def test_what_stands_outside_uses_public_names_alone(path):
    for room, name in imports(path.read_text(encoding="utf-8"), package=""):
        if room not in OUTSIDE and name:
            assert name in import_module(f"kdprompt.{room}".rstrip(".")).__all__, f"{room}.{name}"


# -- the surface --------------------------------------------------------------------------------------------------


def test_every_public_name_resolves_and_is_listed():
    assert len(kdprompt.__all__) > 20 and len(set(kdprompt.__all__)) == len(kdprompt.__all__)
    for name in kdprompt.__all__:
        assert getattr(kdprompt, name) is not None
    assert set(kdprompt.__all__) <= set(dir(kdprompt))
    with pytest.raises(AttributeError, match="nowhere"):
        kdprompt.nowhere  # noqa: B018


@pytest.mark.parametrize("room", [room_of(path) for path in PACKAGE.glob("[a-z]*.py")])
def test_every_room_says_what_is_public_and_has_it(room):
    module = import_module(f"kdprompt.{room}")
    assert module.__doc__ and module.__all__
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_public_names_are_public_in_their_rooms():
    for name in kdprompt.__all__:
        module = sys.modules[getattr(kdprompt, name).__module__]
        assert name in module.__all__, (name, module)


# -- importing is cheap -------------------------------------------------------------------------------------------


def python(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_loads_no_heavy_library():
    heavy = "('sentence_transformers', 'transformers', 'langchain_core', 'typer', 'rich')"
    loaded = python(
        "import sys, kdprompt\n"
        "print('torch' in sys.modules)\n"
        "kdprompt.DistillationSelector\n"
        "print('torch' in sys.modules)\n"
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    assert loaded == ["False", "True"]


def test_importing_takes_little_time_beside_torch():
    timed = (
        "import time, torch\n"
        "start = time.perf_counter()\n"
        "import kdprompt\n"
        "print(time.perf_counter() - start)\n"
        "kdprompt.DistillationSelector\n"
        "print(time.perf_counter() - start)"
    )
    runs = [[float(seconds) for seconds in python(timed)] for _ in range(3)]
    package, selector = (min(column) for column in zip(*runs, strict=True))
    assert package < 0.3, f"import kdprompt took {package:.2f} s"
    assert selector < 1.5, f"kdprompt.DistillationSelector took {selector:.2f} s"


# -- size ---------------------------------------------------------------------------------------------------------


def body_lines(node):
    """Lines of a function from its signature on, its docstring not counted."""
    first = node.body[0]
    doc = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        doc = first.end_lineno - first.lineno + 1
    return node.end_lineno - node.lineno + 1 - doc


@pytest.mark.parametrize("path", sources() + sources(INTEGRATIONS), ids=label)
def test_modules_and_functions_stay_small(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MODULE_LINES
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {node.name: body_lines(node) for node in functions if body_lines(node) > FUNCTION_LINES} == {}
