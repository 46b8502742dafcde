"""``kdprompt report``: one selection as a page."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from kdprompt.cli.checks import check_apart, check_device, check_file, check_request
from kdprompt.cli.embeddings import NoCacheOption, open_embedder
from kdprompt.cli.options import (
    BudgetOption,
    DeviceOption,
    EmbeddingModelOption,
    IdKeyOption,
    InputKeyOption,
    InstructionOption,
    KOption,
    MinSimilarityOption,
    NoOutputsOption,
    OrderOption,
    OutputKeyOption,
    PermitOption,
    PoolOrStoredOption,
    ProfileOption,
    TaskKeyOption,
    TaskOption,
    TemplateOption,
    TokenizerOption,
)
from kdprompt.cli.pools import Keys, PoolFile, read_pool
from kdprompt.cli.prompts import PromptOptions
from kdprompt.cli.select_job import load_stored
from kdprompt.cli.terminal import Terminal

__all__ = ["report"]

PageOption = Annotated[Path, Option(help="The page, one HTML file.", metavar="FILE.html")]
QueryOption = Annotated[str | None, Option(help="The query. Without one: one prompt for inputs like the pool's.")]


def report(  # noqa: PLR0913 - a command's options are its interface
    pool: PoolOrStoredOption,
    output: PageOption,
    query: QueryOption = None,
    k: KOption = None,
    budget: BudgetOption = None,
    tokenizer: TokenizerOption = None,
    template: TemplateOption = None,
    instruction: InstructionOption = None,
    min_similarity: MinSimilarityOption = None,
    order: OrderOption = None,
    profile: ProfileOption = None,
    task: TaskOption = None,
    permit: PermitOption = None,
    input_key: InputKeyOption = None,
    output_key: OutputKeyOption = None,
    task_key: TaskKeyOption = None,
    id_key: IdKeyOption = None,
    no_outputs: NoOutputsOption = False,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
    no_cache: NoCacheOption = False,
) -> None:
    """Write a page that shows one prompt: beside the nearest neighbours', what it covers and what it does not.

    --pool takes examples, or the file that kdprompt build wrote.
    """
    options = PromptOptions(k, budget, order, None, profile, template, instruction, tokenizer, min_similarity)
    check_file(output)
    check_apart([output], {"--pool": pool, **options.files()})
    check_device(device)
    settings = options.settings()
    file = PoolFile.open(pool)
    if file.is_stored:
        selector = load_stored(file, settings, device)
    else:
        examples = read_pool(pool, Keys(input_key, output_key, task_key, id_key, no_outputs), file.content)
        check_request(examples, task, permit)
        selector = _build(examples, settings, open_embedder(model, device, None, keep=not no_cache))
    check_request(selector.pool, task, permit)
    asked = {"task": task, "outputs": permit}
    selection = selector.select_static(**asked) if query is None else selector.select(query, **asked)
    selection.to_html(output)
    Terminal(stderr=True).print(f"wrote the page of {len(selection)} demonstrations to {output}", style="dim")


def _build(pool: Any, settings: Any, embedder: Any) -> Any:
    from kdprompt import DistillationSelector, Settings

    return DistillationSelector.from_examples(pool, embedder, settings=settings(Settings()))
