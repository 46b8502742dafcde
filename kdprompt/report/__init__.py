"""Pages and pictures of what the other rooms found."""

from kdprompt.report.benchmark import write_page

__all__ = ["write_page"]
