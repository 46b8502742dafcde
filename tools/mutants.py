"""Changes of a module's functions: which there are, and how a loaded module gets one."""

import ast
import difflib
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

__all__ = ["ROOT", "Mutant", "apply", "find_silent", "list_codes", "list_mutants", "patch", "show"]

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = ("RemoveDecorator", "ExceptionReplacer")  # what is left is no module, or no other behaviour

Place = tuple[int, int]
Codes = dict[tuple[str, int], CodeType]


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: The module, from the root of the checkout.
        operator: cosmic-ray's name of the kind of change.
        occurrence: Which of the places in the module where it can be made.
        line: The line of that place, from 1.
    """

    module: str
    operator: str
    occurrence: int
    line: int


def list_mutants(module: str) -> Iterator[Mutant]:
    """Every change of a module's functions that cosmic-ray knows, without those at silent places."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / module).read_text(encoding="utf-8")
    silent, bodies = list(find_silent(source)), list(_find_bodies(source))
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or name.endswith(SKIPPED):
            continue
        places = [start for node in nodes for start, _ in operator().mutation_positions(node)]
        for occurrence, start in enumerate(places):
            if _is_within(start, bodies) and not _is_within(start, silent):
                yield Mutant(module, name, occurrence, start[0])


def _is_within(place: Place, ranges: list[tuple[Place, Place]]) -> bool:
    return any(begin <= place < end for begin, end in ranges)


def find_silent(source: str) -> Iterator[tuple[Place, Place]]:
    """Where a change says nothing about what a module computes, as (line, column): from there, to there.

    Annotations, which nothing reads; texts of messages, which are checked by what is in them; ``strict=`` of zip, which
    says what holds already; what only a type checker sees.

    Example:
        >>> list(find_silent("def f(x: int | None) -> str: ..."))
        [((1, 9), (1, 19)), ((1, 24), (1, 27))]
    """
    lines = [line.encode() for line in source.splitlines()]

    def place(line: int, column: int) -> Place:
        return line, len(lines[line - 1][:column].decode())  # ast counts bytes

    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None), _find_silent_part(node)):
            if isinstance(part, ast.AST):
                begin = place(part.lineno, part.col_offset)
                yield begin, place(part.end_lineno or 0, part.end_col_offset or 0)


def _find_silent_part(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return node
    return node if isinstance(node, ast.JoinedStr) else None


def _find_bodies(source: str) -> Iterator[tuple[Place, Place]]:
    """Where the bodies of functions are; what stands outside of them is run when the module is loaded."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            yield (node.body[0].lineno, 0), ((node.end_lineno or 0) + 1, 0)


def apply(mutant: Mutant, source: str) -> str:
    """The module with the change."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    changed = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    assert changed is not None
    return str(changed)


def list_codes(module: str, source: str) -> Codes | None:
    """The compiled functions of a module by name and line; None where it cannot be compiled."""
    try:
        left = [compile(source, str(ROOT / module), "exec", dont_inherit=True)]
    except SyntaxError:
        return None
    codes: Codes = {}
    while left:
        inner = [part for part in left.pop().co_consts if isinstance(part, CodeType)]
        codes |= {(code.co_qualname, code.co_firstlineno): code for code in inner}
        left += inner
    return codes


def differ(first: Codes, second: Codes) -> bool:
    """Whether functions do other things, wherever their parts stand in the lines."""
    return first.keys() != second.keys() or any(_steps(first[key]) != _steps(second[key]) for key in first)


def _steps(code: CodeType) -> tuple[object, ...]:
    values = [(type(value), repr(value)) for value in code.co_consts if not isinstance(value, CodeType)]
    return code.co_code, values, code.co_names


def patch(module: str, source: str) -> None:
    """Gives the functions of a loaded module, wherever they were taken, the code that they have in another source."""
    codes, path = list_codes(module, source), str(ROOT / module)
    assert codes is not None
    assert any(getattr(loaded, "__file__", None) == path for loaded in list(sys.modules.values()))
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__code__.co_filename == path:
            code = codes.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
            if code is not None:  # none: what dataclasses and the like write themselves
                function.__code__ = code


def show(mutant: Mutant, before: str, after: str) -> str:
    """A mutant as a difference of lines."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join([f"{mutant.module}:{mutant.line} {mutant.operator}", *changed])
