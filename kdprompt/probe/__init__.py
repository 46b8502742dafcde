"""What a causal language model's attention does with the demonstrations of a prompt, head by head.

``probe`` takes a model of transformers and a prompt and gives each head's attention on each demonstration.
``calibrate_position_profile`` measures the position profile of R7, and ``KeyEmbedder`` makes the model's keys the
embedding in which demonstrations are selected.
"""

import warnings

from kdprompt.probe.heads import HeadBias, HeadInterference, LayerProbe, Probe, probe
from kdprompt.probe.key_embedder import KeyEmbedder
from kdprompt.probe.profile import calibrate_position_profile
from kdprompt.probe.segments import Segments

__all__ = [
    "HeadBias",
    "HeadInterference",
    "KeyEmbedder",
    "LayerProbe",
    "Probe",
    "Segments",
    "calibrate_position_profile",
    "probe",
]

_RENAMED = {"AttentionKernel": "KeyEmbedder"}


def __getattr__(name: str) -> object:
    """Old names still work, with a warning that tells the new one."""
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"{__name__}.{name} is now called {new}", DeprecationWarning, stacklevel=2)
        return globals()[new]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
