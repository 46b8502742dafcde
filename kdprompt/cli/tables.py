"""``kdprompt tables``: several benchmarks in one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kdprompt.cli.checks import check_apart, check_folder
from kdprompt.cli.terminal import Terminal

__all__ = ["check_results_folder", "tables", "write_results"]

RESULTS, MARKDOWN, PAGE = "results.json", "results.md", "report.html"


def tables(
    results: Annotated[list[Path], typer.Argument(help="results.json of several runs of kdprompt bench.", exists=True)],
    output: Annotated[Path, typer.Option(help="Folder for results.json, results.md and report.html.")],
    reference: Annotated[
        str | None, typer.Option(help="Compared with all others. Default: the first file's reference.")
    ] = None,
) -> None:
    """Put runs of kdprompt bench side by side; of a cell that two of them hold the later one stands."""
    from kdprompt.cli.progress import show_tables_progress
    from kdprompt.evaluate import join_results, read_results

    check_results_folder(output, {"RESULTS": results})
    parts = [read_results(path) for path in results]
    with show_tables_progress() as progress:
        joined = join_results(parts, reference, progress=progress)
    write_results(joined, output)


def check_results_folder(output: Path, inputs: Mapping[str, Path | Iterable[Path] | None]) -> None:
    """Refuses a folder that ``write_results`` could not write into, or in which it would replace what is read."""
    check_folder(output)
    check_apart([output / name for name in (RESULTS, MARKDOWN, PAGE)], inputs)


def write_results(results: Any, output: Path) -> None:
    """Writes a benchmark as JSON, Markdown and page into a folder, and prints its tables."""
    from kdprompt.atomic_write import atomic_write
    from kdprompt.cli.bench_view import show
    from kdprompt.evaluate import write_results_text
    from kdprompt.report import write_markdown, write_page

    atomic_write(output / RESULTS, write_results_text(results))
    write_page(results, output / PAGE)
    write_markdown(results, output / MARKDOWN)
    show(Terminal(), results)
    Terminal(stderr=True).print(f"wrote {RESULTS}, {MARKDOWN} and {PAGE} to {output}", style="dim")
