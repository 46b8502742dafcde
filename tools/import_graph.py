"""How the modules of kdprompt import one another: rooms, floors, circles, and imports against the order of rooms.

    python tools/import_graph.py                 # this checkout
    python tools/import_graph.py OTHER_CHECKOUT  # another one, an older one say

A room is a package of ``kdprompt``, or a module that stands directly in it; each adapter is a room too. Standard
library alone; ``tests/test_architecture.py`` holds the order of rooms and asks the same functions.
"""

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

Graph = Mapping[str, set[str]]


def find_modules(root: Path, package: str) -> dict[str, Path]:
    """The modules of a package below a folder, by name; a package's ``__init__`` bears the name of the package."""
    modules = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def read_imports(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """What each of the modules imports from the others, wherever in it the import stands."""
    graph = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                module = _absolute(package, node.level, node.module or "")
                names = {f"{module}.{alias.name}" for alias in node.names}
                targets |= (names & set(modules)) or {module}
        graph[name] = {target for target in targets if target in modules and target != name}
    return graph


def _absolute(package: str, level: int, module: str) -> str:
    if not level:
        return module
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], *filter(None, [module])])


def room_of(module: str) -> str:
    """The room of a module: the second part of its name within kdprompt, the first one elsewhere."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or package if package == "kdprompt" else package


def find_circles(graph: Graph) -> list[set[str]]:
    """Modules that import one another, directly or through others, grouped."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reached = {module: reach(module) for module in graph}
    circles: list[set[str]] = []
    for module in graph:
        if module in reached[module] and not any(module in circle for circle in circles):
            circles.append({other for other in reached[module] if module in reached[other]})
    return circles


def merge_into_rooms(graph: Graph) -> dict[str, set[str]]:
    """The same graph between rooms; imports inside a room are left out."""
    rooms: dict[str, set[str]] = {}
    for module, targets in graph.items():
        room = room_of(module)
        rooms.setdefault(room, set()).update(room_of(target) for target in targets if room_of(target) != room)
    return rooms


def count_floors(graph: Graph) -> int:
    """Length of the longest chain of imports; the members of a circle stand on one floor."""
    circle_of = {module: frozenset(circle) for circle in find_circles(graph) for module in circle}
    floors: dict[object, int] = {}

    def floor(module: str) -> int:
        members = circle_of.get(module, frozenset({module}))
        if members not in floors:
            below = {target for member in members for target in graph.get(member, set())} - members
            floors[members] = 1 + max(map(floor, below), default=0)
        return floors[members]

    return max(map(floor, graph), default=0)


def find_upward(graph: Graph, order: Iterable[str]) -> list[tuple[str, str]]:
    """Imports from a room that stands later in the order, as (module, imported module)."""
    place = {room: i for i, room in enumerate(order)}
    return [
        (module, target)
        for module, targets in sorted(graph.items())
        for target in sorted(targets)
        if place.get(room_of(module), len(place)) < place.get(room_of(target), -1)
    ]


def read_order(checkout: Path) -> tuple[str, ...]:
    """The order of rooms in ``tests/test_architecture.py``; empty where there is none."""
    path = checkout / "tests" / "test_architecture.py"
    if not path.exists():
        return ()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ROOMS":
            return tuple(ast.literal_eval(node.value))
    return ()


def read_checkout(checkout: Path) -> dict[str, set[str]]:
    """The imports of kdprompt and of its adapters."""
    modules = find_modules(checkout, "kdprompt")
    for adapter in sorted((checkout / "integrations").glob("*_kdprompt")):
        modules |= find_modules(checkout / "integrations", adapter.name)
    return read_imports(modules)


def describe(checkout: Path) -> str:
    """The figures of a checkout, one a line."""
    graph, order = read_checkout(checkout), read_order(checkout)
    rooms = merge_into_rooms(graph)
    between = sum(room_of(module) != room_of(target) for module, targets in graph.items() for target in targets)
    inner = {module: {t for t in targets if room_of(t) == room_of(module)} for module, targets in graph.items()}
    circles = [sorted(circle) for circle in (*find_circles(inner), *find_circles(rooms))]
    lines = [
        f"modules                      {len(graph)}",
        f"rooms                        {len(rooms)}",
        f"floors of rooms              {count_floors(rooms)}",
        f"floors of modules            {count_floors(graph)}",
        f"imports between rooms        {between}",
        f"ways between rooms           {sum(map(len, rooms.values()))}",
        f"circles                      {len(circles)}" + "".join(f"\n  {' <-> '.join(c)}" for c in circles),
    ]
    upward = find_upward(graph, order)
    lines.append(
        f"imports against the order    {len(upward)}"
        + "".join(f"\n  {module} -> {target}" for module, target in upward)
    )
    return "\n".join(lines)


if __name__ == "__main__":
    for folder in sys.argv[1:] or [str(Path(__file__).resolve().parents[1])]:
        sys.stdout.write(f"{describe(Path(folder))}\n")
