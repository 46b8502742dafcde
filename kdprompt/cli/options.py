"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from kdprompt.defaults import DEFAULT_K

__all__ = [
    "BudgetOption",
    "DeviceOption",
    "EmbeddingModelOption",
    "IdKeyOption",
    "InputKeyOption",
    "InstructionOption",
    "KOption",
    "MinSimilarityOption",
    "NoOutputsOption",
    "OrderOption",
    "OutputKeyOption",
    "PermitOption",
    "PoolOption",
    "PoolOrStoredOption",
    "ProfileOption",
    "QueriesOption",
    "SeedOption",
    "TaskKeyOption",
    "TaskOption",
    "TemplateOption",
    "TokenizerOption",
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
KOption = Annotated[str | None, Option(help=f"Demonstrations a prompt, or 'auto'. Default: {DEFAULT_K}.")]
BudgetOption = Annotated[int | None, Option(help="Most tokens that the demonstrations may take.", min=0)]
MinSimilarityOption = Annotated[
    float | None,
    Option(
        help="Never show an example less similar to the query than this (a cosine); where none fits, the prompt is "
        "empty. Default: no floor.",
        min=-1,
        max=1,
    ),
]
TaskOption = Annotated[str | None, Option(help="Choose from this task alone.")]
PermitOption = Annotated[list[str] | None, Option(help="Choose from examples with this output; repeatable.")]
OrderOption = Annotated[
    Literal["evidence-last", "agreement-last", "likeliest-last", "nearest-last", "nearest-first", "by-objective"]
    | None,
    Option(help="Reading order. Default: evidence-last; for text agreement-last; with --static by-objective."),
]
TemplateOption = Annotated[
    Path | None,
    Option(
        help="jinja2 template of the prompt: examples (each with input, output and its own keys), input, instruction.",
        exists=True,
        dir_okay=False,
    ),
]
InstructionOption = Annotated[str | None, Option(help="What stands in front of the demonstrations.")]
TokenizerOption = Annotated[
    str | None,
    Option(help="Counts the tokens of --budget: a tokenizer.json, its folder, or a Hugging Face model's name."),
]
NoOutputsOption = Annotated[bool, Option("--no-outputs", help="The examples have inputs alone.")]
EmbeddingModelOption = Annotated[str | None, Option(help="sentence-transformers model. Default: all-MiniLM-L6-v2.")]
DeviceOption = Annotated[str | None, Option(help="cpu, cuda, mps, … Default: the best there is.")]
SeedOption = Annotated[int, Option(help="Seed of every random draw.", min=0, max=2**63 - 1)]
PoolOrStoredOption = Annotated[
    Path,
    Option(
        help=f"Examples: {_FORMATS}; or what kdprompt build wrote of them.",
        exists=True,
        dir_okay=False,
    ),
]
