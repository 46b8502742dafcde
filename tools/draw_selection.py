"""Draws docs/assets/selection.svg: one query, the prompt of the nearest neighbours and the prompt that J chooses.

    python tools/draw_selection.py

Everything in the picture is computed: the pool that the package ships, four demonstrations a prompt, the same
embeddings and the same task for both. ``--check`` only says whether the file is what would be drawn.
"""

import sys
import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path

from kdprompt import DistillationSelector, SentenceTransformerEmbedder, Settings
from kdprompt.explanation import Explanation
from kdprompt.resources import support_desk, support_desk_queries

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "assets" / "selection.svg"
QUERY, TRUE_OUTPUT = "The reminder for a finished task went out anyway, in duplicate.", "bug report"
K = 4
WIDTH, COLUMN, MARGIN, LINE = 960, 452, 16, 19
CHARACTERS = 56  # of an input, a line
STYLE = """
  text { font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .page { fill: #ffffff } .card { fill: #f6f8fa; stroke: #d0d7de } .query { fill: #eef4ff; stroke: #9db8e8 }
  .small { font-size: 12.5px; fill: #57606a } .bold { font-weight: 600 }
  .right { fill: #116329 } .wrong { fill: #9a3412 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .page { fill: #0d1117 } .card { fill: #161b22; stroke: #30363d }
    .query { fill: #14233f; stroke: #31517f } .small { fill: #9da7b3 } .right { fill: #7ee787 } .wrong { fill: #ffa657 }
  }
"""


@dataclass(frozen=True)
class Comparison:
    """What the picture shows.

    Attributes:
        explanation: The selection for the query, beside the nearest neighbours.
        nearest: Inputs and outputs of the nearest neighbours, nearest last.
        chosen: Those of the chosen demonstrations, in reading order.
        shown: For how many messages of the traffic at least half of the outputs are right: neighbours', chosen.
        messages: Number of those messages.
    """

    explanation: Explanation
    nearest: list[tuple[str, str]]
    chosen: list[tuple[str, str]]
    shown: tuple[int, int]
    messages: int


def compare() -> Comparison:
    """Selects for the query and for all messages of the traffic."""
    pool = [{"id": d.id, "input": d.input, "output": d.output} for d in support_desk() if d.task == "support"]
    by_id = {example["id"]: (str(example["input"]), str(example["output"])) for example in pool}
    traffic = support_desk_queries()
    selector = DistillationSelector.from_examples(
        pool,
        SentenceTransformerEmbedder(device="cpu"),
        queries=[message["input"] for message in traffic],
        settings=Settings(k=K),
    )
    nearest, chosen = 0, 0
    for message in traffic:
        explanation = selector.explain(message["input"])
        nearest += _share(message["output"], [by_id[i][1] for i in explanation.nearest_ids]) >= 0.5
        chosen += _share(message["output"], [by_id[i][1] for i in explanation.selection.ids]) >= 0.5
    explanation = selector.explain(QUERY)
    return Comparison(
        explanation,
        [by_id[i] for i in explanation.nearest_ids],
        [by_id[i] for i in explanation.selection.ids],
        (nearest, chosen),
        len(traffic),
    )


def _share(output: str, shown: list[str]) -> float:
    return shown.count(output) / len(shown)


def draw(comparison: Comparison) -> str:
    """The picture as SVG; it follows the reader's light or dark setting."""
    columns = [
        ("nearest neighbours", comparison.nearest, comparison.explanation.nearest.total),
        ("kdprompt", comparison.chosen, comparison.explanation.selection.terms.total),
    ]
    cards = [_column(MARGIN + i * (WIDTH - 2 * MARGIN - COLUMN), 96, *column) for i, column in enumerate(columns)]
    bottom = max(end for _, end in cards)
    height = bottom + 66
    estimate = ", ".join(f"{name} {share:.0%}" for name, share in comparison.explanation.selection.estimate.items())
    near, ours = comparison.shown
    notes = [
        f"What the whole pool says of this query: {estimate}. It is a {TRUE_OUTPUT}.",
        f"Of the {comparison.messages} messages shipped with this pool, at least half of the demonstrations name the "
        f"right desk for {near} (neighbours) and {ours} (kdprompt).",
    ]
    body = [
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<rect class="query" x="{MARGIN}" y="14" width="{WIDTH - 2 * MARGIN}" height="40" rx="6"/>',
        _text(MARGIN + 14, 39, f"Query: “{QUERY}” Which of nine desks?", "bold"),
        *(card for card, _ in cards),
        *(_text(MARGIN, bottom + 26 + 22 * i, note, "small") for i, note in enumerate(notes)),
    ]
    title = escape(f"{QUERY} — demonstrations of the nearest neighbours and of kdprompt")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{title}"><style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _column(x: int, y: int, title: str, shown: list[tuple[str, str]], objective: float) -> tuple[str, int]:
    """A column of demonstrations from the height ``y`` on, and the height where it ends."""
    parts = [
        _text(x, y - 12, title, "bold"),
        _text(x + COLUMN, y - 12, f"J = {objective:.2f}", "small", end=True),
    ]
    for text, output in shown:
        lines = textwrap.wrap(text, CHARACTERS, max_lines=3, placeholder=" …")
        height = LINE * (len(lines) + 1) + 18
        parts.append(f'<rect class="card" x="{x}" y="{y}" width="{COLUMN}" height="{height}" rx="6"/>')
        parts += [_text(x + 14, y + 24 + LINE * i, line) for i, line in enumerate(lines)]
        mark = "right" if output == TRUE_OUTPUT else "wrong"
        parts.append(_text(x + 14, y + 24 + LINE * len(lines), f"→ {output}", f"bold {mark}"))
        y += height + 10
    return "\n".join(parts), y


def _text(x: int, y: int, text: str, style: str = "", *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x}" y="{y}" class="{style}"{anchor}>{escape(text)}</text>'


if __name__ == "__main__":
    picture = draw(compare())
    if "--check" in sys.argv:
        sys.exit(PICTURE.read_text(encoding="utf-8") != picture)
    PICTURE.write_text(picture, encoding="utf-8")
