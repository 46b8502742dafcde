"""The flow of the house: imports go one way, importing is cheap, and modules and functions stay small."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import kdprompt
from import_graph import find_circles, find_modules, merge_into_rooms, read_checkout, read_imports

PACKAGE = Path(kdprompt.__file__).parent
INTEGRATIONS = PACKAGE.parent / "integrations"

# Each room imports only from rooms before it. A new module gets its place here first.
ROOMS = (
    "errors",
    "printable",
    "defaults",
    "deprecation",
    "moved_modules",
    "paths",
    "atomic_write",
    "checksums",
    "tagged_union",
    "fault_search",
    "forked_workers",
    "short_repr",
    "pages",
    "observation",
    "theory",
    "pool",
    "objective",
    "search",
    "settings",
    "selection",
    "calibration",
    "readers",
    "tuning",
    "explanation",
    "storage",
    "editable_pool",
    "storable_selector",
    "micro_batching",
    "concurrent_queries",
    "selector",
    "measure_profile",
    "distributed",
    "resources",
    "probe",
    "evaluate",
    "reproduce",
    "diagnose",
    "report",
    "cli",
)
OUTSIDE = ("probe", "evaluate", "reproduce", "diagnose", "report", "cli")  # these use public names alone

FUNCTION_LINES = 40  # without the docstring
MODULE_LINES = 300


def sources(folder=PACKAGE):
    return sorted(folder.rglob("*.py"))


def label(path):
    return str(path.relative_to(PACKAGE.parent)) if isinstance(path, Path) else str(path)


def room_of_path(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source, package="kdprompt"):
    """(module, name) of everything that a source imports from the package, wherever in it; name "" is the module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module
            found += [(module, alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module == "kdprompt" or module.startswith("kdprompt.")]


def against_the_flow(room, source):
    """What a room imports from later rooms, or from the package as a whole."""
    before = ROOMS[: ROOMS.index(room) + 1]
    outside = room in OUTSIDE
    rooms = [(module.partition(".")[2].partition(".")[0], name) for module, name in imports(source)]
    return [(other, name) for other, name in rooms if other not in before and not (outside and other == "")]


# -- the flow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sources(), ids=label)
def test_every_module_has_its_place(path):
    assert room_of_path(path) in ROOMS or room_of_path(path) == "__init__"


@pytest.mark.parametrize("path", [path for path in sources() if room_of_path(path) in ROOMS], ids=label)
def test_a_room_imports_only_from_rooms_before_it(path):
    assert against_the_flow(room_of_path(path), path.read_text(encoding="utf-8")) == []


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
        "from kdprompt.nowhere import x",
    ],
)
def test_an_import_against_the_flow_is_noticed(source):
    assert against_the_flow("pool", source)
    assert not against_the_flow(
        "pool", "import torch\nfrom kdprompt.errors import PoolError\nfrom kdprompt.pool.records import Query"
    )


@pytest.mark.parametrize(
    ("root", "package"),
    [(PACKAGE.parent, "kdprompt"), *((INTEGRATIONS, path.name) for path in sorted(INTEGRATIONS.glob("*_kdprompt")))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_module_imports_itself_through_others(root, package):
    assert find_circles(read_imports(find_modules(root, package))) == []


def test_rooms_do_not_import_one_another_in_circles():
    assert find_circles(merge_into_rooms(read_checkout(PACKAGE.parent))) == []


def test_a_circle_is_noticed():
    assert find_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


@pytest.mark.parametrize(
    "path",
    [path for path in sources() if room_of_path(path) in OUTSIDE] + sources(INTEGRATIONS),
    ids=label,
)
def test_what_stands_outside_uses_public_names_alone(path):
    for module, name in imports(path.read_text(encoding="utf-8"), package=""):
        if name and module.partition(".")[2].partition(".")[0] not in OUTSIDE:
            assert name in import_module(module).__all__, f"{module}.{name}"


# -- the surface --------------------------------------------------------------------------------------------------


def test_every_public_name_resolves_and_is_listed():
    assert len(kdprompt.__all__) > 20 and len(set(kdprompt.__all__)) == len(kdprompt.__all__)
    for name in kdprompt.__all__:
        assert getattr(kdprompt, name) is not None
    assert set(kdprompt.__all__) <= set(dir(kdprompt))
    with pytest.raises(AttributeError, match="nowhere"):
        kdprompt.nowhere  # noqa: B018


MODULES = [name for name, path in find_modules(PACKAGE.parent, "kdprompt").items() if path.name != "__init__.py"]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_is_public_and_has_it(name):
    module = import_module(name)
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
