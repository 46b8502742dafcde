"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

from typer import Option

__all__ = ["DeviceOption", "EmbeddingModelOption", "PoolOption", "QueriesOption", "SeedOption"]

PoolOption = Annotated[Path, Option(help="Examples, one JSON object a line.", exists=True, dir_okay=False)]
QueriesOption = Annotated[
    Path | None, Option(help="Queries, one JSON object a line with the input keys.", exists=True, dir_okay=False)
]
EmbeddingModelOption = Annotated[str | None, Option(help="sentence-transformers model. Default: all-MiniLM-L6-v2.")]
DeviceOption = Annotated[str | None, Option(help="cpu, cuda, mps, … Default: the best there is.")]
SeedOption = Annotated[int, Option(help="Seed of every random draw.")]
