"""What is wrong with a pool, before it costs answers; ``kdprompt doctor`` is its command."""

from kdprompt.diagnose.coverage import Coverage, coverage
from kdprompt.diagnose.task_mixture import Mixture, mixture

__all__ = ["Coverage", "Mixture", "coverage", "mixture"]
