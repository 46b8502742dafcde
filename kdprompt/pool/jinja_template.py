"""A whole prompt written as one jinja2 template, in a sandbox; what it does not know is an error."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdprompt.errors import TemplateError
from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.pool.value_text import is_missing

__all__ = ["JinjaTemplate"]

_SINGLE_BRACES = re.compile(r"(?<![{%#])\{\s*([A-Za-z_]\w*)\s*\}(?!\})")


class _Probe(dict[str, str]):
    """An example that has every key: which ones the pool's have is not known yet."""

    def __missing__(self, key: str) -> str:
        return "probe-value"


_PROBE = _Probe()


@dataclass(frozen=True)
class JinjaTemplate(PromptTemplate):
    r"""A prompt as a jinja2 template: ``examples``, each with its own keys, ``input`` for the query, ``instruction``.

    Every example has ``input``, ``output``, ``id`` and ``task`` beside the keys of its record. Values are put in as
    they are: braces in them mean nothing; missing ones (None, NaN) are empty. The template runs in jinja2's sandbox.

    Attributes:
        source: The template. The attributes of ``PromptTemplate`` but ``instruction`` are not used.
        name: Names it in errors.

    Raises:
        TemplateError: jinja2 cannot read it, it uses a variable that there is not, or it shows no query or no examples.
            That an example lacks a key is said when it is shown.

    Example:
        >>> source = "{% for e in examples %}{{ e.input }} -> {{ e.output }}\n{% endfor %}{{ input }} ->"
        >>> template = JinjaTemplate(source=source)
        >>> print(template.text([Demonstration(id="1", input="{{ 7 * 7 }}", output="x")], "{y}"))
        {{ 7 * 7 }} -> x
        {y} ->
    """

    separator: str = ""
    source: str = "{% for e in examples %}{{ e.input }}\n{{ e.output }}\n\n{% endfor %}{{ input }}\n"
    name: str = "the template"

    def __post_init__(self) -> None:
        probe = self._fill([_PROBE], "probe-query")
        for shown, what in (("probe-query", "{{ input }}, the query"), ("probe-value", "the inputs of {{ examples }}")):
            if shown not in probe:
                raise TemplateError(f"{self.name} never shows {what}")
        if self.instruction and self.instruction not in probe:
            raise TemplateError(f"{self.name} never shows {{{{ instruction }}}}; write it there or give none")
        literal = _SINGLE_BRACES.search(self.source)
        if literal and literal[1] in ("input", "output", "query", "question", "text", "instruction", "examples"):
            raise TemplateError(
                f"{self.name} would print {literal[0]} as it stands; variables have two braces: {{{{ {literal[1]} }}}}"
            )

    @classmethod
    def from_file(cls, path: str | Path, instruction: str = "") -> "JinjaTemplate":
        """Reads a template from a UTF-8 file.

        Raises:
            TemplateError: As the class says, or the file is not UTF-8.
            FileNotFoundError: There is no such file.
        """
        try:
            source = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise TemplateError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
        return cls(instruction=instruction, source=source, name=str(path))

    def render(self, demonstration: Demonstration) -> str:
        """What one demonstration adds to the prompt."""
        without, shown = self.text([], ""), self.text([demonstration], "")
        before = next((i for i, (a, b) in enumerate(zip(without, shown, strict=False)) if a != b), len(without))
        return shown[before : before + max(0, len(shown) - len(without))]

    def text(self, demonstrations: Iterable[Demonstration], query: str) -> str:
        """The finished prompt for a query.

        Raises:
            TemplateError: An example lacks a key that the template shows, or the template fails otherwise.
        """
        return self._fill([_variables(demonstration) for demonstration in demonstrations], query)

    def _fill(self, examples: Sequence[Mapping[str, Any]], query: str) -> str:
        compiled = self._compiled
        try:
            return str(compiled.render(examples=examples, input=query, instruction=self.instruction))
        except Exception as error:  # a template may do anything that an expression may
            raise TemplateError(
                f"{self.name} cannot be filled: {error}. It has examples (each with input, output, id, task and the "
                "keys of its record), input and instruction."
            ) from error

    @cached_property
    def _compiled(self) -> Any:
        from jinja2 import StrictUndefined, TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        try:
            environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_show)
            return environment.from_string(self.source)
        except TemplateSyntaxError as error:
            raise TemplateError(f"{self.name}, line {error.lineno} is no jinja2: {error.message}") from error
        except (RecursionError, SyntaxError, MemoryError) as error:  # of Python, into which jinja2 turns it
            raise TemplateError(f"{self.name} cannot be compiled ({error}); it is nested too deeply") from error
        except Exception as error:  # what is constant is evaluated here, and may fail as any expression
            raise TemplateError(f"{self.name} has a constant expression that fails: {error}") from error


def _variables(demonstration: Demonstration) -> Mapping[str, Any]:
    own = {"input": demonstration.input, "output": demonstration.output or ""}
    return _Fields({**demonstration.fields, **own, "id": demonstration.id, "task": demonstration.task or ""})


class _Fields(dict[str, Any]):
    """The values of an example, whose keys come before what a dictionary can do: ``e.items`` may be one of them."""

    def __getattribute__(self, name: str) -> Any:
        return self[name] if dict.__contains__(self, name) else dict.__getattribute__(self, name)


def _show(value: object) -> object:
    return "" if is_missing(value) else value
