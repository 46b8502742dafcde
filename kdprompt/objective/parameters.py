"""The parameters of J: the only place that lists them.

``ObjectiveParameters`` are values in force. ``ObjectiveSettings`` are what a user fixes of them: None leaves a
parameter to calibration.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from kdprompt.deprecation import keep_attributes
from kdprompt.objective.reader_profile import CAPABLE_READER, ReaderProfile
from kdprompt.short_repr import ChangedFields, Record
from kdprompt.theory.kernels import Kernel

__all__ = ["ObjectiveParameters", "ObjectiveSettings", "ObjectiveWeights"]

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FROZEN = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


@dataclass(frozen=True)
class ObjectiveWeights:
    """The weights of J's terms, each ≥ 0.

    Attributes:
        bias: Weight of the MMD between prompt and target (R2).
        complexity: Weight of the Rademacher complexity (R3).
        interference: Weight of the interference (R6).
        reader: Weight of what the reader is expected to lose (R9); outputs that are labels alone.
    """

    bias: Weight = 1.0
    complexity: Weight = 0.0
    interference: Weight = 0.0
    reader: Weight = 0.0


class ObjectiveParameters(Record):
    """Everything that J depends on beside the pool and the queries.

    Attributes:
        kernel: κ of the inputs.
        output_share: Share ρ of the output kernel, in [0, 1].
        neighbourhood: Share η of a query's neighbourhood in its target, in [0, 1].
        weights: Weights of the terms.
        profile: The reader of R9.
        tolerance: Share of the fall of J that a shorter prompt may give up, in [0, 1]; used where k is ``"auto"``.
    """

    model_config = FROZEN

    kernel: Kernel
    output_share: Share
    neighbourhood: Share
    weights: ObjectiveWeights
    profile: ReaderProfile = CAPABLE_READER
    tolerance: Share = 0.0


keep_attributes(ObjectiveParameters, {"share": "output_share", "penalties": "weights"})  # as in Calibration.static


class ObjectiveSettings(ChangedFields):
    """The parameters of J that a user fixes; the attributes are those of ``ObjectiveParameters``, None where open.

    Attributes:
        kernel: None: the Gaussian with a calibrated temperature, for a static prompt with a sixteenth of the median
            heuristic's.
        output_share: None: calibrated.
        neighbourhood: None: calibrated.
        weights: None: calibrated. For a static prompt: 1 for the MMD and, for the interference, the share of the
            outputs that k demonstrations can show.
        profile: None: ``CAPABLE_READER``.
        tolerance: None: calibrated.
    """

    model_config = FROZEN

    kernel: Kernel | None = None
    output_share: Share | None = None
    neighbourhood: Share | None = None
    weights: ObjectiveWeights | None = None
    profile: ReaderProfile | None = None
    tolerance: Share | None = None

    def fixed_in(self, parameters: ObjectiveParameters) -> bool:
        """Whether the parameters have every value that is fixed here."""
        return all(value is None or value == getattr(parameters, name) for name, value in self)
