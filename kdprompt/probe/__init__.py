"""A causal LM opened up: what its attention distils from the demonstrations of a prompt, head by head."""

from kdprompt.probe.heads import LayerProbe, Probe, probe
from kdprompt.probe.key_embedder import AttentionKernel
from kdprompt.probe.profile import calibrate_position_profile
from kdprompt.probe.segments import Segments

__all__ = ["AttentionKernel", "LayerProbe", "Probe", "Segments", "calibrate_position_profile", "probe"]
