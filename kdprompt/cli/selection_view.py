"""A selection on the terminal."""

from rich.console import Group
from rich.panel import Panel
from rich.table import Table

from kdprompt.cli.terminal import Terminal, plain
from kdprompt.explanation import Explanation
from kdprompt.selection.result import Selection

__all__ = ["show"]


def show(console: Terminal, explanation: Explanation, prompt: str) -> None:
    """Prints the demonstrations, what speaks for each output, the terms of J, the bounds and the finished prompt."""
    selection = explanation.selection
    console.print(_demonstrations(selection))
    if selection.evidence:
        console.print(_evidence(explanation))
    console.print(_terms(explanation))
    console.print(_notes(explanation))
    console.print(Panel(plain(prompt), title="the finished prompt", title_align="left"))


def _demonstrations(selection: Selection) -> Table:
    what = f"for the query: {selection.query.text}" if selection.query else "for the query distribution"
    table = Table(title=f"Demonstrations in reading order, {what}", title_justify="left", title_style="bold")
    several = len({chosen.demonstration.task for chosen in selection.chosen}) > 1
    for name in ("id", "input", "output", *(("task",) if several else ())):
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for name in ("attends", "marginal", "conflict"):
        table.add_column(name, justify="right", no_wrap=True)
    for chosen in selection.chosen:
        shown = chosen.demonstration
        cells = [shown.id, shown.input, shown.output or "", *((shown.task or "",) if several else ())]
        numbers = (chosen.attention, chosen.marginal, chosen.interference)
        table.add_row(*cells, *(f"{number:.3f}" for number in numbers))
    return table


def _evidence(explanation: Explanation) -> Table:
    """What pool, prompt and reader say of each output, in nats against the likeliest one."""
    evidence, profile = explanation.selection.evidence, explanation.profile
    first = evidence[0]
    title = f"Evidence in nats against {first.output!r} (R9), for {profile.name}: τ = {profile.follow:g}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("output", overflow="fold")
    for name in ("shown", "pool", "prompt", "own", "aim", "expected"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in evidence:
        nats = (item.pool - first.pool, item.prompt - first.prompt, item.own - first.own)
        shares = (f"{item.target:.2f}", f"{item.expected:.2f}")
        table.add_row(item.output, f"{item.shown:.0%}", *(f"{value:.1f}" for value in nats), *shares)
    return table


def _terms(explanation: Explanation) -> Table:
    selection = explanation.selection
    table = Table(title="Terms of the objective J (lower is better)", title_justify="left", title_style="bold")
    for name, justify in (("term", "left"), ("no demonstrations", "right"), ("nearest neighbours", "right")):
        table.add_column(name, justify="left" if justify == "left" else "right")
    table.add_column("chosen", justify="right", style="bold")
    table.add_column("weight in J", justify="right")
    weights = selection.weights
    for name, key, weight in (
        ("bias: MMD to the target (R2)", "bias", weights.bias),
        ("complexity (R3)", "complexity", weights.complexity),
        ("interference (R6)", "interference", weights.interference),
        ("reader's expected log-loss (R9)", "reader", weights.reader),
        ("J (R8)", "total", None),
    ):
        values = [getattr(terms, key) for terms in (selection.empty_terms, explanation.nearest, selection.terms)]
        shown = "" if weight is None else f"{weight:g}"
        table.add_row(name, *(f"{value:.4f}" for value in values), shown)
    return table


def _notes(explanation: Explanation) -> Group:
    selection = explanation.selection
    lines = [f"{len(selection)} demonstrations, about {selection.tokens} tokens."]
    if selection.estimate:
        guess = ", ".join(f"{name} {share:.2f}" for name, share in selection.estimate.items())
        lines.append(f"Estimated outputs at the target: {guess} (support {selection.support:.2f}).")
    others = sum(chosen.other_task for chosen in selection.chosen)
    lines.append(
        f"Interference from other tasks {selection.cross_task:.4f} ({others} demonstrations), from conflicting outputs "
        f"of the same task {selection.label_conflict:.4f}."
    )
    lines += [f"{bound.result} {bound.value:.3f}, {bound.kind}: {bound.premise}." for bound in selection.bounds]
    lines += [f"Settings: {explanation.source}."]
    lines += [f"Note: {note}." for note in selection.notes]
    return Group(*(plain(f"• {line}") for line in lines))
