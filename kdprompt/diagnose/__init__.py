"""What is wrong with a pool, before it costs answers; ``kdprompt doctor`` is its command."""

from kdprompt.diagnose.mixing import Mixture, mixture

__all__ = ["Mixture", "mixture"]
