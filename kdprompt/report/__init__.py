"""Benchmarks, diagnoses and phenomena as HTML pages and Markdown tables."""

from kdprompt.report.benchmark import write_page
from kdprompt.report.diagnosis import write_diagnosis
from kdprompt.report.markdown import write_markdown
from kdprompt.report.phenomena import write_phenomena

__all__ = ["write_diagnosis", "write_markdown", "write_page", "write_phenomena"]
