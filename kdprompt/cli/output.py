"""JSON on standard output; selections as JSON lines, there or in a file."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from kdprompt.cli.terminal import Terminal
from kdprompt.printable import make_json_printable, to_json_line

__all__ = ["Written", "print_json", "write_selections"]


@dataclass(frozen=True)
class Written:
    """What is written of a selection beside what it is.

    Attributes:
        template: Writes the finished prompt under ``prompt``; None leaves it out.
        messages: Whether the prompt stands there as a chat too, under ``messages``.
        system: The chat's system message, where not empty.
    """

    template: Any = None
    messages: bool = False
    system: str = ""

    def record(self, selection: Any) -> dict[str, Any]:
        """The query, the original examples in reading order, the numbers, and the prompt."""
        whole = selection.model_dump(mode="json", exclude={"chosen", "query"})
        chosen = [
            {"id": member.demonstration.id, **member.model_dump(mode="json", exclude={"demonstration"})}
            for member in selection.chosen
        ]
        return {
            "query": None if selection.query is None else selection.query.model_dump(mode="json"),
            "examples": selection.examples,
            **self._prompt(selection),
            "chosen": chosen,
            **whole,
        }

    def _prompt(self, selection: Any) -> Mapping[str, Any]:
        """The finished prompt; of a static one what stands before the query."""
        from kdprompt import to_messages

        asked = None if selection.query is None else selection.query.text
        prompt: dict[str, Any] = {}
        if self.template is not None:
            prompt["prompt"] = self.template.text(selection.demonstrations, "{input}" if asked is None else asked)
        if self.messages:
            chat = to_messages(selection.demonstrations, asked or "", system=self.system)
            prompt["messages"] = chat if asked is not None else chat[:-1]
        return prompt


def write_selections(selections: Iterable[Any], output: Path | None, written: Written, log: Terminal) -> None:
    """Writes one JSON object a line, to a file or to standard output."""
    from kdprompt.atomic_write import atomic_write

    lines = [to_json_line(written.record(selection)) + "\n" for selection in selections]
    if output is None:
        print_json("".join(lines))
        return
    atomic_write(output, "".join(lines))
    log.print(f"wrote {len(lines):,} selections to {output}", style="dim")


def print_json(text: str) -> None:
    """Prints JSON, whole lines of it; what would steer the terminal, or what it has no sign for, is escaped."""
    typer.echo(make_json_printable(text, ascii_only=not _can_print(text)), nl=False)


def _can_print(text: str) -> bool:
    """Whether standard output has a sign for every sign of the text: a Windows console's code page has few."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
