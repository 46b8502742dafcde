"""What the pages share: one style, one way to draw, nothing loaded from elsewhere."""

import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["axes_of", "document", "svg"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #667085; --line: #d8dee8; --mark: #eef4ff; --ground: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --dim: #98a2b3; --line: #333c4d; --mark: #1d2a44; --ground: #12161f; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto;
  max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
p, dd, figcaption { color: var(--dim); } dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.reference { background: var(--mark); font-weight: 600; }
td.better { color: #15803d; } td.worse { color: #b42318; }
figure { margin: 1rem 0; background: #fff; padding: .5rem; border-radius: 6px; }
figure svg { width: 100%; height: auto; }
"""


def document(title: str, body: str, about: Mapping[str, object]) -> str:
    """A whole HTML page: a title, what was run, and a body."""
    record = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in about.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><dl>{record}</dl>{body}</body></html>"
    )


def axes_of(height: float, *, width: float = 9) -> tuple[Any, Any]:
    """A figure of some inches with one pair of axes in the page's style.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the page needs matplotlib: pip install 'kdprompt[bench]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e7ec", linewidth=0.7)
    return figure, axes


def svg(figure: Any) -> str:
    """A figure as an SVG element that scales with the page; the same picture gives the same bytes."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": "kdprompt"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return re.sub(r"\s+(width|height)=\"[\d.]+pt\"", "", text[text.index("<svg") :], count=2)
