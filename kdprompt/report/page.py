"""What the HTML pages share: templates that escape what they are given, one style, and a policy that forbids the rest.

Pages are rendered by jinja2 from ``kdprompt/report/templates``. They load nothing from elsewhere and run nothing: their
content security policy permits the page's own style, known by its hash, and pictures inside the page.
"""

import base64
import hashlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kdprompt.atomic_write import atomic_write
from kdprompt.printable import make_printable

__all__ = ["figure_to_image", "make_axes", "render_template", "write_template"]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("kdprompt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_template(path: Path, template: str, **context: object) -> None:
    """Renders a template and writes the page; text in the context is escaped, and signs that steer a terminal are.

    Args:
        path: The file; replaced where it exists.
        template: Name of the template without ``.html.jinja``.
        context: The template's variables.
    """
    atomic_write(path, render_template(template, **context))


def render_template(template: str, **context: object) -> str:
    """A template as text without signs that nobody sees, with the pages' style and policy, see ``write_template``."""
    style, policy = _style()
    page = _environment().get_template(f"{template}.html.jinja")
    return make_printable(page.render(**context, style=style, policy=policy))


@lru_cache(maxsize=1)
def _style() -> tuple[Markup, str]:
    """The style of all pages, and the policy that permits it and nothing else."""
    style = _environment().get_template("style.css.jinja").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return Markup(style), policy


def make_axes(height: float, *, width: float = 9) -> tuple[Any, Any]:
    """A figure with one pair of axes in the style of the pages.

    Args:
        height: Height in inches.
        width: Width in inches.

    Returns:
        The figure and its axes.

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


def figure_to_image(figure: Any) -> str:
    """A figure as the address of a picture inside the page; the same figure gives the same bytes.

    Names are no formulas, so a dollar sign in a legend, a title or the label of an axis or a tick is one.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    for axes in figure.axes:
        labelled = (FixedFormatter, FuncFormatter)  # others write numbers, powers of ten as formulas
        named = [axis for axis in (axes.xaxis, axes.yaxis) if isinstance(axis.get_major_formatter(), labelled)]
        legend = axes.get_legend()
        ticks = [label for axis in named for label in axis.get_ticklabels()]
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *ticks, *(legend.get_texts() if legend else ())):
            text.set_parse_math(False)
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "kdprompt"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
