"""``kdprompt demo``: the main job on the pool that the package ships."""

from typing import Annotated

import typer

from kdprompt.cli.terminal import Terminal

__all__ = ["demo"]

QUERY = "since the last update my board takes half a minute to open, can someone look into this?"


def demo(
    query: Annotated[str, typer.Argument(help="A message to the support desk.")] = QUERY,
    k: Annotated[int, typer.Option(help="Demonstrations in the prompt.", min=0)] = 6,
) -> None:
    """Select demonstrations for a message to a support desk from 202 examples of two mixed tasks, and show why."""
    from kdprompt import DistillationSelector, PromptTemplate, Settings
    from kdprompt.cli.progress import ProgressEmbedder
    from kdprompt.cli.selection_view import show
    from kdprompt.resources import support_desk, support_desk_queries

    console = Terminal()
    pool = support_desk()
    console.print(
        f"A pool of {len(pool)} messages to the support desk of an imagined product. Two tasks are mixed in it: which "
        "desk a message goes to (support), and its tone (tone). The query is of the first.\n"
    )
    template = PromptTemplate(
        demonstration="Message: {input}\nDesk: {output}",
        query="Message: {input}\nDesk:",
        instruction="Route each message to the right desk.",
    )
    with console.status("embedding the pool and calibrating on it"):
        selector = DistillationSelector.from_examples(
            pool,
            ProgressEmbedder(),
            queries=[message["input"] for message in support_desk_queries()],
            settings=Settings(k=k, template=template),
        )
        explanation = selector.explain(query, task="support")
    show(console, explanation, template.text(explanation.selection.demonstrations, query))
    blind = selector.explain(query)
    console.print(
        f"\nWithout the task tag, {sum(c.other_task for c in blind.selection.chosen)} of {len(blind.selection)} "
        f"demonstrations would be of the other task, at an interference from other tasks of "
        f"{blind.selection.cross_task:.3f}.\nNext: kdprompt select --pool yours.jsonl --query '…'"
    )
