"""kdprompt: which demonstrations go into a prompt, how many, and in which order, by the distillation view.

``DistillationSelector.from_examples(examples)`` and then ``select``, ``select_batch`` or ``select_static``.

The public names are listed once, in ``__init__.pyi``; each is imported when it is first used, so that
``import kdprompt`` costs next to nothing.
"""

import sys
from typing import Any

import lazy_loader as lazy

from kdprompt import moved_modules
from kdprompt.deprecation import resolve_renamed

__version__ = "0.1.0"

RENAMED = {"Penalties": "ObjectiveWeights"}

_load, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
moved_modules.install()


def __getattr__(name: str) -> Any:
    return resolve_renamed(sys.modules[__name__], name, RENAMED) if name in RENAMED else _load(name)
