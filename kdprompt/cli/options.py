"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

from typer import Option

__all__ = [
    "DeviceOption",
    "EmbeddingModelOption",
    "IdKeyOption",
    "InputKeyOption",
    "NoOutputsOption",
    "OutputKeyOption",
    "PoolOption",
    "ProfileOption",
    "QueriesOption",
    "SeedOption",
    "TaskKeyOption",
]

_FORMATS = "JSON lines, JSON, CSV, TSV or Parquet, also with .gz"
PoolOption = Annotated[Path, Option(help=f"Examples: {_FORMATS}.", exists=True, dir_okay=False)]
QueriesOption = Annotated[
    Path | None,
    Option(help=f"Queries: {_FORMATS}, with the input keys; or .txt, one a line.", exists=True, dir_okay=False),
]
InputKeyOption = Annotated[
    list[str] | None, Option(help="Key or column of the input; repeatable. Default: input.", metavar="KEY")
]
OutputKeyOption = Annotated[
    list[str] | None, Option(help="Key or column of the output; repeatable. Default: output.", metavar="KEY")
]
TaskKeyOption = Annotated[str | None, Option(help="Key or column of the task tag. Default: task.", metavar="KEY")]
IdKeyOption = Annotated[str | None, Option(help="Key or column of the id. Default: id.", metavar="KEY")]
ProfileOption = Annotated[
    str | None,
    Option(help="The reader's profile: a file of kdprompt profile, or the name of a shipped one. No answer is needed."),
]
NoOutputsOption = Annotated[bool, Option("--no-outputs", help="The examples have inputs alone.")]
EmbeddingModelOption = Annotated[str | None, Option(help="sentence-transformers model. Default: all-MiniLM-L6-v2.")]
DeviceOption = Annotated[str | None, Option(help="cpu, cuda, mps, … Default: the best there is.")]
SeedOption = Annotated[int, Option(help="Seed of every random draw.")]
