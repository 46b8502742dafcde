"""``kdprompt profile``: how a reader weighs what it knows and what it is shown."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdprompt.cli.checks import check_apart, check_device, check_file
from kdprompt.cli.options import (
    DeviceOption,
    EmbeddingModelOption,
    IdKeyOption,
    InputKeyOption,
    OutputKeyOption,
    PoolOption,
    TaskKeyOption,
)
from kdprompt.cli.output import print_json
from kdprompt.cli.pools import Keys, read_pool
from kdprompt.cli.reader import CacheOption, count_answers, keep_answers, open_reader
from kdprompt.cli.terminal import Terminal
from kdprompt.defaults import DEFAULT_K
from kdprompt.printable import make_json_printable

__all__ = ["profile"]

Option = typer.Option


def profile(  # noqa: PLR0913 - a command's options are its interface
    pool: PoolOption,
    reader: Annotated[
        str, Option(help="'smollm2', a Hugging Face name or folder, or python:MODULE:NAME (LangChain model, callable).")
    ],
    output: Annotated[Path | None, Option(help="Write the profile here, as JSON, for --profile.")] = None,
    k: Annotated[int, Option(help="Demonstrations a prompt.", min=1)] = DEFAULT_K,
    cache: CacheOption = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, Option(help="Precision of a local model. Default: its own.")
    ] = None,
    input_key: InputKeyOption = None,
    output_key: OutputKeyOption = None,
    task_key: TaskKeyOption = None,
    id_key: IdKeyOption = None,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Measure a reader's profile by some 360 answers to examples of the pool, and say how well it foretells others."""
    from kdprompt import DistillationSelector, Settings, measure_profile
    from kdprompt.atomic_write import atomic_write
    from kdprompt.cli.progress import ProgressEmbedder

    check_file(output)
    check_apart(filter(None, [output]), {"--pool": pool})
    check_device(device)
    log = Terminal(stderr=True)
    loaded = read_pool(pool, Keys(input_key, output_key, task_key, id_key))
    asked = open_reader(reader, log, device=device, dtype=dtype)
    selector = DistillationSelector.from_examples(
        loaded, ProgressEmbedder(model, device=device), settings=Settings(k=k)
    )
    with keep_answers(asked, cache) as kept, count_answers(kept, total=360) as counted:
        measured = measure_profile(selector, counted)
    text = make_json_printable(measured.profile.model_dump_json(indent=2)) + "\n"
    if output is None:
        print_json(text)
    else:
        atomic_write(output, text)
        log.print(f"wrote the profile to {output}", style="dim")
    log.print(str(measured), soft_wrap=True)
