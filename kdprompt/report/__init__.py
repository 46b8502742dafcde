"""Pages and pictures of what the other rooms found."""

from kdprompt.report.benchmark import write_page
from kdprompt.report.markdown import write_markdown

__all__ = ["write_markdown", "write_page"]
