"""Selections as JSON lines, to a file or to standard output."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from kdprompt.cli.terminal import Terminal
from kdprompt.printable import to_json_line

__all__ = ["Written", "write_selections"]


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

    records = [written.record(selection) for selection in selections]
    lines = [to_json_line(record) + "\n" for record in records]
    if output is None:
        text = "".join(lines)
        if not _can_print(text):  # JSON has escapes for what the console has no sign for
            text = "".join(to_json_line(record, ascii_only=True) + "\n" for record in records)
        typer.echo(text, nl=False)
        return
    atomic_write(output, "".join(lines))
    log.print(f"wrote {len(lines):,} selections to {output}", style="dim")


def _can_print(text: str) -> bool:
    """Whether standard output has a sign for every sign of the text: a Windows console's code page has few."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
