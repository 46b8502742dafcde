"""One prompt from start to finish: candidates, problem, pipeline, accounting, result."""

from kdprompt.moved_modules import forward_names

__getattr__ = forward_names("kdprompt.selection", "kdprompt.selection.result")
