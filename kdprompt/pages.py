"""Objects that show themselves: as a page, as a figure, as a card in a notebook.

What draws them stands in ``kdprompt.report``, a room further on, and is imported when it is asked for.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["HasPage"]

WRITER = "kdprompt.report.selection"
FIGURE = "kdprompt.report.selection_figure"


class HasPage:
    """A selection that shows itself."""

    def to_html(self, path: str | Path, template: Any = None) -> None:
        """Writes one self-contained page that loads nothing and runs nothing.

        It shows the prompt beside the nearest neighbours' under the same limits, what the pool knows of each output and
        what the prompt carries, a map of the pool, what each demonstration adds, and what is not covered.

        Args:
            path: The file; replaced where it exists.
            template: How prompts are written, a ``PromptTemplate``; None takes the settings'.

        Raises:
            OSError: The file cannot be written.
        """
        import_module(WRITER).write_selection(self, Path(path), template)

    def plot(self) -> Any:
        """Draws the map of the pool, the outputs, the contributions, and J against the number of demonstrations.

        Returns:
            A matplotlib ``Figure`` of 11 by 8 inches; a notebook shows it, ``savefig`` writes it.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return import_module(FIGURE).plot_selection(self)

    def _repr_html_(self) -> str:
        return str(import_module(WRITER).render_card(self))
