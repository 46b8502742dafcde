"""What is wrong with a pool, before it costs answers; ``kdprompt doctor`` is its command."""

from kdprompt.diagnose.covering import Coverage, coverage
from kdprompt.diagnose.mixing import Mixture, mixture

__all__ = ["Coverage", "Mixture", "coverage", "mixture"]
