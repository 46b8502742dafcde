"""The objective J: its parameters, the estimated target, Gram matrices, and J itself."""

from kdprompt.moved_modules import forward_names

__getattr__ = forward_names("kdprompt.objective", "kdprompt.objective.parameters", "kdprompt.objective.objective")
