"""What travels together through a selection: the pool, the settings, and the parameters of J in force."""

from dataclasses import dataclass

from kdprompt.objective.own_knowledge import OwnEstimate
from kdprompt.objective.parameters import ObjectiveParameters
from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.objective.regression import KernelRegression
from kdprompt.objective.target import Target
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.settings import Settings

__all__ = ["SelectionContext"]


@dataclass(frozen=True)
class SelectionContext:
    """Everything that a selection depends on beside the queries.

    Attributes:
        pool: The pool, embedded.
        settings: How many demonstrations, under which limits, in which order.
        parameters: J's parameters in force.
        regression: Estimates the outputs of queries.
        own_estimate: Estimates what the reader knows of queries itself; None: nothing is known of it.
    """

    pool: EmbeddedPool
    settings: Settings
    parameters: ObjectiveParameters
    regression: KernelRegression
    own_estimate: OwnEstimate | None = None

    @property
    def tensors(self) -> PoolTensors:
        """The pool as tensors."""
        return self.pool.tensors

    def reader_loss(self, target: Target) -> ReaderLoss | None:
        """What a prompt for the target is expected to cost the reader (R9); None where outputs are no labels."""
        if self.tensors.output_mode != "labels":
            return None
        outputs = [output for _, output in self.tensors.labels]
        return ReaderLoss.build(target, self.parameters.profile, outputs, self.own_estimate)
