"""``kdprompt demo``: the main job on the pool that the package ships."""

from collections import Counter
from typing import Annotated, Any

import typer
from rich.table import Table

from kdprompt.cli.checks import check_standard_output
from kdprompt.cli.terminal import Terminal

__all__ = ["demo"]

QUERY = "The reminder for a finished task went out anyway, in duplicate."
TASK = "support"


def demo(
    query: Annotated[str, typer.Argument(help="A message to the support desk.")] = QUERY,
    k: Annotated[int, typer.Option(help="Demonstrations in the prompt.", min=0)] = 6,
) -> None:
    """Select demonstrations for a message to a support desk, beside its nearest neighbours, and show why."""
    from kdprompt import DistillationSelector, PromptTemplate, Settings
    from kdprompt.cli.progress import ProgressEmbedder
    from kdprompt.cli.selection_view import show
    from kdprompt.resources import support_desk, support_desk_queries

    check_standard_output()
    console = Terminal()
    pool, traffic = support_desk(), support_desk_queries()
    right = next((message["output"] for message in traffic if message["input"] == query), None)
    console.print(
        f"A pool of {len(pool)} messages to the support desk of an imagined product, of two tasks: the desk that a "
        "message goes to (support), and its tone. This one is new; a language model is to say its desk:\n"
    )
    console.print(f"    {query}\n", style="bold")
    template = PromptTemplate(
        demonstration="Message: {input}\nDesk: {output}",
        query="Message: {input}\nDesk:",
        instruction="Route each message to the right desk.",
    )
    with console.status("embedding the pool and calibrating on it"):
        selector = DistillationSelector.from_examples(
            pool,
            ProgressEmbedder(),
            queries=[message["input"] for message in traffic],
            settings=Settings(k=k, template=template),
        )
        explanation = selector.explain(query, task=TASK)
    _compare(console, pool, explanation, right)
    console.print("Why these:\n", style="bold")
    show(console, explanation, template.text(explanation.selection.demonstrations, query))
    console.print("\nNext: kdprompt select --pool yours.csv --query '…'")


def _compare(console: Terminal, pool: Any, explanation: Any, right: str | None) -> None:
    """Prints the prompt of the nearest neighbours and kdprompt's beside each other, and what each says."""
    nearest = [pool[pool.index(ident)] for ident in explanation.nearest_ids]
    chosen = list(explanation.selection.demonstrations)
    table = Table(
        title="Two prompts for it, in reading order", title_justify="left", title_style="bold", show_lines=True
    )
    for name in ("nearest neighbours", "desk", "kdprompt", "desk"):
        table.add_column(name, overflow="fold", ratio=None if name == "desk" else 1)
    for neighbour, ours in zip(nearest, chosen, strict=False):
        table.add_row(neighbour.input, neighbour.output, ours.input, ours.output)
    table.add_section()
    table.add_row(_count(nearest), "", _count(chosen), "")
    console.print(table)
    estimate = explanation.selection.estimate
    if estimate:
        likeliest = max(estimate, key=lambda name: float(estimate[name]))
        console.print(
            f"The whole pool says {likeliest.rpartition(': ')[2]} ({estimate[likeliest]:.0%})"
            + (f"; the right desk is {right}.\n" if right else ".\n")
        )


def _count(shown: list[Any]) -> str:
    counts = Counter(demonstration.output for demonstration in shown)
    return ", ".join(f"{count} × {output}" for output, count in counts.most_common())
