"""What is wrong with a pool, before it costs answers; ``kdprompt doctor`` is its command."""

import sys
from typing import TYPE_CHECKING

from kdprompt.deprecation import resolve_renamed
from kdprompt.diagnose.diagnosis import Diagnosis, Finding, Instance
from kdprompt.diagnose.doctor import DoctorSettings, diagnose_pool
from kdprompt.diagnose.drift import Drift, measure_drift
from kdprompt.diagnose.examined_pool import EmbeddedTexts
from kdprompt.diagnose.input_checks import TokenLimit
from kdprompt.diagnose.pool_coverage import PoolCoverage, measure_coverage
from kdprompt.diagnose.task_mixture import TaskMixture, find_task_mixture
from kdprompt.diagnose.wrong_outputs import SuspectedOutput, WrongOutputs, find_wrong_outputs

__all__ = [
    "Diagnosis",
    "DoctorSettings",
    "Drift",
    "EmbeddedTexts",
    "Finding",
    "Instance",
    "PoolCoverage",
    "SuspectedOutput",
    "TaskMixture",
    "TokenLimit",
    "WrongOutputs",
    "diagnose_pool",
    "find_task_mixture",
    "find_wrong_outputs",
    "measure_coverage",
    "measure_drift",
]

RENAMED = {
    "Coverage": "PoolCoverage",
    "Mixture": "TaskMixture",
    "coverage": "measure_coverage",
    "mixture": "find_task_mixture",
}

if not TYPE_CHECKING:  # type checkers shall not know the old names

    def __getattr__(name: str) -> object:
        return resolve_renamed(sys.modules[__name__], name, RENAMED)
