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
    "atomic_write",
    "theory",
    "pool",
    "objective",
    "search",
    "settings",
    "calibration",
    "selection",
    "readers",
    "tuning",
    "explanation",
    "storage",
    "micro_batching",
    "selector",
    "resources",
    "probe",
    "evaluate",
    "reproduce",
    "diagnose",
    "report",
    "cli",
)
OUTSIDE = ("probe", "evaluate", "reproduce", "diagnose", "report", "cli")  # these use public names alone

FUNCTION_LINES = 45  # without the docstring
MODULE_LINES = 410


def sources(folder=PACKAGE):
    return sorted(folder.rglob("*.py"))


def label(path):
    return str(path.relative_to(PACKAGE.parent)) if isinstance(path, Path) else str(path)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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


def circles(graph):
    """Modules that import one another, directly or through others."""

    def reachable(start):
        seen, waiting = set(), [start]
        while waiting:
            for target in graph.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    return sorted(module for module in graph if module in reachable(module))


def import_graph(root, package):
    """The modules of a package and what each imports from it; names that are modules count as these."""
    paths = {module_name(path, root): path for path in sources(root / package)}
    graph = {}
    for module, path in paths.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= (names & set(paths)) or {node.module}
        graph[module] = {target for target in targets if target in paths and target != module}
    return graph


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
    assert circles(import_graph(root, package)) == []


def test_a_circle_is_noticed():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "path",
    [path for path in sources() if room_of(path) in OUTSIDE] + sources(INTEGRATIONS),
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


MODULES = [module_name(path, PACKAGE.parent) for path in sources() if path.name != "__init__.py"]


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
