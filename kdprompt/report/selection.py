"""A selection as one HTML file, and as a card in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.report.charts import Scale, Tick, format_number, witness_class
from kdprompt.report.page import render_template, write_template
from kdprompt.selection.portrait import DrawnDemonstration, DrawnPoint, Portrait, draw_portrait
from kdprompt.selection.result import ChosenDemonstration, OutputEvidence, Selection, TermValues
from kdprompt.short_repr import shorten

__all__ = ["render_card", "sum_gains", "write_selection"]

WIDTH, HEIGHT = 400, 300  # of a chart, in units of the drawing
QUERY_STANDS_HERE = "{the query}"
LIKELY = 0.05  # probability from which an output that is not shown counts as not covered
TERMS = {
    "bias": "bias: distance to the target (MMD, R2)",
    "complexity": "complexity (R3)",
    "interference": "interference (R6)",
    "reader": "reader's expected log-loss (R9)",
    "total": "J, their weighted sum (R8)",
}


@dataclass(frozen=True)
class _Mark:
    """A point of a chart: its place, class of colour, what it says, and its number in the prompt or 0."""

    x: float
    y: float
    colour: str
    says: str
    place: int = 0


@dataclass(frozen=True)
class _Map:
    """The map of the pool."""

    points: list[_Mark]
    queries: list[_Mark]
    note: str


@dataclass(frozen=True)
class _Line:
    """A line of a chart: its points as SVG has them, and its dots."""

    name: str
    kind: str
    points: str
    dots: list[_Mark]


@dataclass(frozen=True)
class _Chart:
    """J against the number of demonstrations."""

    lines: list[_Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    says: str


@dataclass(frozen=True)
class _Evidence:
    """An output with what the nearest neighbours' prompt would carry; numbers of evidence against the likeliest."""

    ours: OutputEvidence
    pool: float
    prompt: float
    nearest: float | None


@dataclass(frozen=True)
class _Bar:
    """A contribution with its bar: from ``start``, ``length`` wide, in percent of the bar's width."""

    member: ChosenDemonstration
    start: float
    length: float


@dataclass(frozen=True)
class _Part:
    """A part of a prompt, and whether the other prompt has it too; None where that is no question."""

    text: str
    shared: bool | None


@dataclass(frozen=True)
class _Term:
    """A term of J in the empty prompt, the nearest neighbours' and ours, and its weight; None where it has none."""

    name: str
    values: list[float]
    weight: float | None


def write_selection(selection: Selection, path: Path, template: PromptTemplate | None = None) -> None:
    """Writes the page of a selection.

    Args:
        selection: The selection. One that was read from JSON has lost what it was chosen from: its page has no map and
            no nearest neighbours, and says so.
        path: The file; replaced where it exists.
        template: How prompts are written; None takes the settings'.
    """
    origin = selection.origin
    portrait = None if origin is None else draw_portrait(selection, origin)
    nearest = None if portrait is None else portrait.nearest
    template = template or (PromptTemplate() if origin is None else origin.context.settings.template)
    write_template(
        path,
        "selection",
        title="One prompt for the query distribution" if selection.query is None else "A prompt for one query",
        about=None,
        selection=selection,
        nearest=nearest,
        portrait=portrait,
        budget=None if origin is None else origin.context.settings.budget,
        map=None if portrait is None else _draw_map(portrait),
        chart=_draw_falls(selection, nearest) if selection.chosen else None,
        evidence=_compare_evidence(selection, nearest),
        bars=_draw_bars(selection),
        prompts=_write_prompts(selection, nearest, template),
        terms=_list_terms(selection, nearest),
        missing=[item for item in selection.evidence if not item.shown and item.target >= LIKELY],
        number=format_number,
    )


def render_card(selection: Selection) -> str:
    """A selection as a fragment of HTML for a notebook: what was chosen, and what the numbers are."""
    return render_template("card", selection=selection, bars=_draw_bars(selection), number=format_number)


def _describe(shown: Demonstration) -> str:
    output = "" if shown.output is None else f" → {shorten(shown.output, 60)}"
    return shorten(shown.input, 120) + output


def _draw_map(portrait: Portrait) -> _Map:
    everything: list[DrawnPoint] = [*portrait.points, *portrait.queries]
    x = Scale.over([point.x for point in everything], 12, WIDTH - 12)
    y = Scale.over([point.y for point in everything], HEIGHT - 12, 12)
    largest = max((abs(point.witness) for point in everything), default=0.0)

    def mark(point: DrawnDemonstration) -> _Mark:
        says = f"{_describe(point.demonstration)} (witness {format_number(point.witness)})"
        return _Mark(x(point.x), y(point.y), witness_class(point.witness, largest), says, point.place)

    queries = [
        _Mark(x(q.x), y(q.y), witness_class(q.witness, largest), f"query: {shorten(q.text, 120)}")
        for q in portrait.queries
    ]
    note = f"Two principal axes of the inputs' embeddings, which hold {portrait.explained:.0%} of their variance"
    if portrait.shown_share < 1:
        note += f"; {len(portrait.points)} demonstrations, {portrait.shown_share:.1%} of the pool, are drawn"
    return _Map([mark(point) for point in portrait.points], queries, note)


def sum_gains(selection: Selection) -> list[float]:
    """J of the empty prompt and of the first 1, 2, … demonstrations: the gains are its falls."""
    values = [selection.empty_terms.total]
    for member in selection.chosen:
        values.append(values[-1] - member.gain)
    return values


def _draw_falls(selection: Selection, nearest: Selection | None) -> _Chart:
    series = [("this prompt", "ours", sum_gains(selection))]
    if nearest is not None and nearest.chosen:
        series.append(("nearest neighbours", "theirs", sum_gains(nearest)))
    longest = max(len(values) for _, _, values in series)
    x = Scale(0, longest - 1, 42, WIDTH - 14)
    y = Scale.over([value for _, _, values in series for value in values], HEIGHT - 100, 12)
    lines = []
    for name, kind, values in series:
        dots = [_Mark(x(k), y(v), kind, f"{name}, first {k}: J = {format_number(v)}") for k, v in enumerate(values)]
        lines.append(_Line(name, kind, " ".join(f"{dot.x},{dot.y}" for dot in dots), dots))
    step = -(-longest // 12)
    says = "; ".join(f"{name}: {', '.join(format_number(v) for v in values)}" for name, _, values in series)
    return _Chart(lines, [Tick(x(k), str(k)) for k in range(0, longest, step)], y.ticks(), says)


def _compare_evidence(selection: Selection, nearest: Selection | None) -> list[_Evidence]:
    if not selection.evidence:
        return []
    first = selection.evidence[0]
    theirs = {} if nearest is None else {item.output: item.expected for item in nearest.evidence}
    return [
        _Evidence(item, item.pool - first.pool, item.prompt - first.prompt, theirs.get(item.output))
        for item in selection.evidence
    ]


def _draw_bars(selection: Selection) -> list[_Bar]:
    """The marginal contributions as bars around a zero in the middle."""
    largest = max((abs(member.marginal) for member in selection.chosen), default=0.0) or 1.0
    bars = []
    for member in selection.chosen:
        length = round(50 * abs(member.marginal) / largest, 1)
        bars.append(_Bar(member, 50 if member.marginal >= 0 else 50 - length, length))
    return bars


def _write_prompts(
    selection: Selection, nearest: Selection | None, template: PromptTemplate
) -> list[tuple[str, str, list[_Part]]]:
    """Each prompt: its name, its size in words, and its parts."""
    query = QUERY_STANDS_HERE if selection.query is None else selection.query.text
    prompts = [("This prompt", selection)]
    if nearest is not None:
        prompts.append(("Nearest neighbours, nearest last, under the same limits", nearest))
    written = []
    for name, one in prompts:
        others = {ident for _, other in prompts if other is not one for ident in other.ids}
        marks = [(template.render(d), d.id in others if len(prompts) > 1 else None) for d in one.demonstrations]
        parts = _split(template.text(one.demonstrations, query), marks)
        written.append((name, f"{len(one)} demonstrations, {one.tokens} tokens", parts))
    return written


def _split(text: str, marks: Sequence[tuple[str, bool | None]]) -> list[_Part]:
    """A prompt in parts, each demonstration that is found in it, in order, with its mark."""
    parts, at = [], 0
    for rendered, shared in marks:
        start = text.find(rendered, at) if rendered else -1
        if start >= 0:
            parts += [_Part(text[at:start], None), _Part(rendered, shared)]
            at = start + len(rendered)
    return [*parts, _Part(text[at:], None)]


def _list_terms(selection: Selection, nearest: Selection | None) -> list[_Term]:
    prompts: list[TermValues] = [selection.empty_terms, *([] if nearest is None else [nearest.terms]), selection.terms]
    return [
        _Term(words, [getattr(terms, name) for terms in prompts], getattr(selection.weights, name, None))
        for name, words in TERMS.items()
    ]
