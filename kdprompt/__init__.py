"""kdprompt: which demonstrations go into a prompt, how many, and in which order, by the distillation view.

``DistillationSelector.from_examples(examples)`` and then ``select``, ``select_batch`` or ``select_static``.

The public names are listed once, in ``__init__.pyi``; each is imported when it is first used, so that
``import kdprompt`` costs next to nothing.
"""

import lazy_loader as lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
