"""DSPy adapter of kdprompt: ``DistilledFewShot`` compiles demonstrations, ``DistilledPredict`` selects them a query."""

try:
    import dspy  # noqa: F401 -- asked for here, so that its absence is explained
except ModuleNotFoundError as error:
    if error.name != "dspy":
        raise
    raise ImportError("dspy_kdprompt needs DSPy 3 or later: pip install 'kdprompt[dspy]'") from error

from dspy_kdprompt.predict import DistilledPredict, per_query
from dspy_kdprompt.teleprompter import DistilledFewShot

__all__ = ["DistilledFewShot", "DistilledPredict", "per_query"]
