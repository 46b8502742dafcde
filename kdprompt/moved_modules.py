"""Modules that moved: importing a former module warns and finds its public names where they now are.

``kdprompt`` puts ``MovedModules`` at the end of ``sys.meta_path``, so that it is asked only for what is found nowhere
else. Modules that were never documented are not kept; the CHANGELOG has the whole table.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from kdprompt.deprecation import warn_renamed

__all__ = ["MOVED", "MovedModules", "forward_names", "install"]

MOVED: dict[str, tuple[str, ...]] = {  # former modules, and the modules that have their names now
    "kdprompt.batching": ("kdprompt.micro_batching",),
    "kdprompt.bounds": ("kdprompt.theory",),
    "kdprompt.data": ("kdprompt.pool.records", "kdprompt.pool.pool", "kdprompt.pool.jsonl"),
    "kdprompt.diagnose.covering": ("kdprompt.diagnose",),
    "kdprompt.diagnose.mixing": ("kdprompt.diagnose",),
    "kdprompt.embedding": ("kdprompt.pool.embedding", "kdprompt.pool.sentence_transformer"),
    "kdprompt.evaluate.baselines": ("kdprompt.evaluate.query_baselines",),
    "kdprompt.evaluate.contenders": ("kdprompt.evaluate",),
    "kdprompt.evaluate.embedders": ("kdprompt.evaluate.lsa",),
    "kdprompt.evaluate.models": ("kdprompt.readers.causal_lm", "kdprompt.readers.label_tree"),
    "kdprompt.evaluate.phenomena": ("kdprompt.reproduce",),
    "kdprompt.evaluate.readers": ("kdprompt.readers.label_reader", "kdprompt.readers.text_reader"),
    "kdprompt.evaluate.summary": ("kdprompt.evaluate",),
    "kdprompt.kernels": ("kdprompt.theory.kernels",),
    "kdprompt.mmd": ("kdprompt.theory.mmd", "kdprompt.theory.kernels", "kdprompt.theory.samples"),
    "kdprompt.ordering": (
        "kdprompt.search.ordering",
        "kdprompt.search.order_names",
        "kdprompt.search.position_profiles",
    ),
    "kdprompt.probe.attention": ("kdprompt.probe",),
    "kdprompt.prompt": ("kdprompt.pool.prompt",),
    "kdprompt.reading": ("kdprompt.readers.reader", "kdprompt.tuning.halving"),
    "kdprompt.temperature": ("kdprompt.theory.bandwidth",),
    "kdprompt.two_sample": ("kdprompt.theory.two_sample",),
}
RENAMED = {
    "AttentionKernel": "KeyEmbedder",
    "Baseline": "QueryBaseline",
    "Coverage": "PoolCoverage",
    "Distillation": "DistillationBenchmarkSelector",
    "FromLangChain": "LangChainSelector",
    "Mixture": "TaskMixture",
    "PerQuery": "PerQuerySelector",
    "Shuffled": "ShuffledSelector",
    "Static": "StaticSelector",
    "coverage": "measure_coverage",
    "joined": "join_results",
    "mixture": "find_task_mixture",
    "Chosen": "ChosenDemonstration",
    "Custom": "MeasuredProfile",
    "HuggingFaceModel": "CausalLM",
    "Joint": "JointKernel",
    "LeaveOneOut": "LeaveOneOutFit",
    "Penalties": "ObjectiveWeights",
    "Profile": "PositionProfile",
    "Race": "HalvingResult",
    "TwoSample": "TwoSampleResult",
    "bias_and_loss": "measure_bias_and_loss",
    "bias_and_mmd": "measure_bias_and_mmd",
    "checked_vectors": "check_vectors",
    "gap_and_length": "measure_gap_and_length",
    "interference_and_share": "measure_interference_and_share",
    "joint_points": "join_inputs_and_values",
    "leave_one_out": "fit_by_leave_one_out",
    "length_and_loss": "measure_length_and_loss",
    "load": "load_causal_lm",
    "median_temperature": "median_heuristic",
    "normalised": "normalise_text",
    "order_and_spread": "measure_order_and_spread",
}


class MovedModules:
    """Finds former modules, and makes of each one that looks its names up in the present modules.

    A finder and a loader by their protocols: their base classes would treble the time of ``import kdprompt``.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: Any = self
        return ModuleSpec(fullname, loader) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves making the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        targets = MOVED[module.__name__]
        warn_renamed(f"the module {module.__name__}", " and ".join(targets), stacklevel=3)
        find = _find_in(module.__name__, targets)

        def find_or_list(name: str) -> Any:
            return _list_names(targets) if name == "__all__" else find(name)

        module.__dict__["__getattr__"] = find_or_list
        module.__dict__["__dir__"] = lambda: _list_names(targets)


def _list_names(targets: Sequence[str]) -> list[str]:
    """The names that a former module has: those of the present modules, and what they were called."""
    present = {name for target in targets for name in import_module(target).__all__}
    return sorted(present | {old for old, new in RENAMED.items() if new in present})


def _find_in(old: str, targets: Sequence[str]) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        present = RENAMED.get(name, name)
        for target in targets:
            value = getattr(import_module(target), present, None)
            if value is not None and not name.startswith("_"):
                return value
        raise AttributeError(f"module {old!r} has no attribute {name!r}; it moved to {' and '.join(targets)}")

    return find


def forward_names(package: str, *targets: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package that bears the name of a former module: its names warn and are found.

    Args:
        package: The package.
        targets: The modules that have the names of the former module now.
    """
    find = _find_in(package, targets)

    def warn_and_find(name: str) -> Any:
        value = find(name)
        warn_renamed(f"{package}.{name}", f"{value.__module__}.{RENAMED.get(name, name)}", stacklevel=3)
        return value

    return warn_and_find


def install() -> None:
    """Lets former modules be imported; once, however often it is called."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
