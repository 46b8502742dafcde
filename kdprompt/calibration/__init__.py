"""Chooses the parameters of J on pool examples held out as pseudo-queries, without an LLM."""

from kdprompt.moved_modules import forward_names

__getattr__ = forward_names("kdprompt.calibration", "kdprompt.calibration.calibration")
