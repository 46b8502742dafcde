"""Old public names of the harness and of the diagnosis: they work, and warn with the new name."""

import pytest

from kdprompt import diagnose, evaluate

OLD = {
    evaluate: {
        "Asked": "QueryBatch",
        "Contender": "BenchmarkSelector",
        "Distillation": "DistillationBenchmarkSelector",
        "FromLangChain": "LangChainSelector",
        "HuggingFaceModel": "CausalLM",
        "PerQuery": "PerQuerySelector",
        "Problem": "BenchmarkPool",
        "Shuffled": "ShuffledSelector",
        "Static": "StaticSelector",
        "contender": "make_selector",
        "contenders": "make_selectors",
        "duplicates": "add_duplicates",
        "imbalance": "unbalance_outputs",
        "joined": "join_results",
        "label_noise": "add_label_noise",
        "mixed": "mix_datasets",
        "stress": "apply_suite",
    },
    diagnose: {
        "Coverage": "PoolCoverage",
        "Mixture": "TaskMixture",
        "coverage": "measure_coverage",
        "mixture": "find_task_mixture",
    },
}


@pytest.mark.parametrize(
    ("module", "old", "new"), [(module, old, new) for module, names in OLD.items() for old, new in names.items()]
)
def test_an_old_name_warns_and_is_the_new_object(module, old, new):
    name = module.__name__
    with pytest.warns(DeprecationWarning, match=f"^{name}.{old} is deprecated: use {name}.{new}$") as caught:
        assert getattr(module, old) is getattr(module, new)
    assert caught[0].filename == __file__, "the warning points at the caller"
    assert new in module.__all__ and old not in module.__all__


@pytest.mark.parametrize("module", OLD)
def test_the_table_is_whole(module):
    assert OLD[module] == module.RENAMED
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nowhere'"):
        module.nowhere  # noqa: B018


def test_an_old_name_can_be_imported():
    with pytest.warns(DeprecationWarning, match=r"contender is deprecated: use kdprompt\.evaluate\.make_selector$"):
        from kdprompt.evaluate import contender
    assert contender("mmr:trade_off=0.9").name == "mmr:trade_off=0.9"
