"""What a causal language model's attention does with the demonstrations of a prompt, head by head.

``probe`` takes a model of transformers and a prompt and gives each head's attention on each demonstration.
``calibrate_position_profile`` measures the position profile of R7, and ``KeyEmbedder`` makes the model's keys the
embedding in which demonstrations are selected.
"""

import sys
from typing import TYPE_CHECKING

from kdprompt.deprecation import resolve_renamed
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

RENAMED = {"AttentionKernel": "KeyEmbedder"}


if not TYPE_CHECKING:  # type checkers shall not know the old names

    def __getattr__(name: str) -> object:
        return resolve_renamed(sys.modules[__name__], name, RENAMED)
