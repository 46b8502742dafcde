"""Every former public name still works, and says what to write instead."""

import subprocess
import sys
import warnings
from importlib import import_module

import pytest
import torch

import kdprompt
from kdprompt import CallableEmbedder, DistillationSelector, Gaussian, ObjectiveWeights, SearchSettings, Settings
from kdprompt.moved_modules import MOVED, RENAMED
from kdprompt.settings import FLAT_NAMES

VALUES = {
    "kernel": Gaussian(0.3),
    "share": 0.25,
    "neighbourhood": 0.5,
    "penalties": ObjectiveWeights(1.0, 0.1, 0.7),
    "tolerance": 0.05,
    "shortlist": 40,
    "near_duplicate": 0.9,
    "leave_out_own": False,
    "static_shortlist": 100,
    "static_queries": 20,
    "static_rounds": 3,
}


def selector(**fields):
    examples = [{"input": f"{a} + {b}", "output": a + b} for a in range(4) for b in range(4)]
    embedder = CallableEmbedder(lambda texts: torch.tensor([[float(t[0]), float(t[-1]), 1.0] for t in texts]))
    return DistillationSelector.from_examples(examples, embedder, settings=Settings(k=2, **fields))


def test_every_flat_setting_has_a_value_here():
    assert VALUES.keys() == FLAT_NAMES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_a_flat_setting_is_taken_and_read_and_names_its_group(name):
    group, field = FLAT_NAMES[name]
    with pytest.warns(DeprecationWarning, match=rf"Settings\.{name} is deprecated: use {group}\.{field}") as caught:
        settings = Settings(**{name: VALUES[name]})
    assert [warning.filename for warning in caught] == [__file__]
    assert getattr(getattr(settings, group), field) == VALUES[name]
    with pytest.warns(DeprecationWarning, match=name) as caught:
        assert getattr(settings, name) == VALUES[name]
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=name):
        changed = Settings().model_copy(update={name: VALUES[name]})
    assert changed == settings
    with pytest.warns(DeprecationWarning, match=name):
        assert Settings.model_validate({**dict(Settings()), name: VALUES[name]}) == settings


@pytest.mark.parametrize(("old", "new"), [("most", "largest_k"), ("reading", "query_order")])
def test_former_properties_of_settings_warn(old, new):
    with pytest.warns(DeprecationWarning, match=rf"Settings\.{old} is deprecated: use {new}"):
        assert getattr(Settings(k=3), old) == getattr(Settings(k=3), new)


def test_a_selection_stored_under_former_names_is_read():
    selection = selector().select("1 + 3")
    former = {"empty_terms": "before", "terms": "after", "weights": "penalties", "prefix_length": "core"}
    stored = {former.get(name, name): value for name, value in selection.model_dump(mode="json").items()}
    assert type(selection).model_validate(stored) == selection


def test_flat_settings_join_those_of_their_group():
    with pytest.warns(DeprecationWarning):
        settings = Settings(search={"shortlist": 7}, near_duplicate=0.5, static_rounds=1)
    assert (settings.search.shortlist, settings.search.near_duplicate, settings.static.rounds) == (7, 0.5, 1)
    with pytest.warns(DeprecationWarning), pytest.raises(ValueError, match="search"):
        Settings(search=5, shortlist=7)
    with pytest.warns(DeprecationWarning), pytest.raises(ValueError, match="output_share"):
        Settings(share=1.5)


@pytest.mark.parametrize("method", ["select", "select_batch"])
def test_a_core_is_a_prefix(method):
    chooser = selector()
    query = "1 + 3" if method == "select" else ["1 + 3"]
    ids = chooser.pool.demonstrations[0].id, chooser.pool.demonstrations[5].id
    with pytest.warns(DeprecationWarning, match=rf"{method}\(core=…\) is deprecated: use prefix=") as caught:
        found = getattr(chooser, method)(query, core=ids)
    assert caught[0].filename == __file__
    assert found == getattr(chooser, method)(query, prefix=ids)
    with pytest.raises(TypeError, match="both prefix and its former name core"):
        getattr(chooser, method)(query, prefix=ids, core=ids)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("before", "empty_terms"),
        ("after", "terms"),
        ("penalties", "weights"),
        ("core", "prefix_length"),
        ("core_tokens", "prefix_tokens"),
        ("reusable", "cacheable_share"),
    ],
)
def test_a_selection_keeps_its_former_attributes(old, new):
    found = selector().select("1 + 3")
    with pytest.warns(DeprecationWarning, match=rf"Selection\.{old} is deprecated: use {new}"):
        assert getattr(found, old) == getattr(found, new)


def test_a_calibration_keeps_its_former_attributes():
    calibration = selector().calibration
    with pytest.warns(DeprecationWarning):
        assert calibration.core == calibration.prefix == ()
    with pytest.warns(DeprecationWarning):
        assert calibration.static.penalties == calibration.static_parameters.weights
    with pytest.warns(DeprecationWarning):
        assert calibration.chosen.share == calibration.parameters.output_share
    with pytest.warns(DeprecationWarning):
        assert calibration.chosen.kernel is calibration.parameters.kernel


def test_penalties_are_weights():
    with pytest.warns(DeprecationWarning, match=r"kdprompt\.Penalties is deprecated: use kdprompt\.ObjectiveWeights"):
        assert kdprompt.Penalties is ObjectiveWeights
    with pytest.raises(AttributeError, match="Nonsense"):
        kdprompt.Nonsense  # noqa: B018


NAMES = [  # what README, cookbook and docstrings of 0.1.0 told to import
    ("kdprompt.bounds", "interference"),
    ("kdprompt.bounds", "query_sample_error"),
    ("kdprompt.data", "Demonstration"),
    ("kdprompt.data", "Pool"),
    ("kdprompt.data", "read_jsonl"),
    ("kdprompt.embedding", "Embedder"),
    ("kdprompt.embedding", "SentenceTransformerEmbedder"),
    ("kdprompt.evaluate.baselines", "mmr"),
    ("kdprompt.evaluate.phenomena", "bias_and_loss"),
    ("kdprompt.evaluate.summary", "summarise"),
    ("kdprompt.evaluate.models", "HuggingFaceModel"),
    ("kdprompt.evaluate.models", "smollm2"),
    ("kdprompt.evaluate.readers", "LabelReader"),
    ("kdprompt.kernels", "Gaussian"),
    ("kdprompt.kernels", "Sum"),
    ("kdprompt.mmd", "Joint"),
    ("kdprompt.mmd", "joint_points"),
    ("kdprompt.mmd", "mmd"),
    ("kdprompt.ordering", "Custom"),
    ("kdprompt.ordering", "NearestLast"),
    ("kdprompt.ordering", "order_by_name"),
    ("kdprompt.ordering", "Profile"),
    ("kdprompt.prompt", "PromptTemplate"),
    ("kdprompt.reading", "Answer"),
    ("kdprompt.temperature", "leave_one_out"),
    ("kdprompt.temperature", "median_temperature"),
    ("kdprompt.two_sample", "TwoSample"),
]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_former_module_finds_its_names(module, name):
    sys.modules.pop(module, None)
    with pytest.warns(DeprecationWarning, match=rf"the module {module} is deprecated: use kdprompt\."):
        value = getattr(import_module(module), name)
    assert value.__name__ == RENAMED.get(name, name)


def test_every_former_module_is_gone_and_has_targets():
    for module, targets in MOVED.items():
        for target in targets:
            assert import_module(target).__all__
        assert getattr(import_module(module.rpartition(".")[0]), "__path__", None), module


def test_a_name_that_a_former_module_never_had_is_an_import_error():
    sys.modules.pop("kdprompt.kernels", None)
    with pytest.warns(DeprecationWarning), pytest.raises(ImportError, match="Bogus"):
        from kdprompt.kernels import Bogus  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        import_module("kdprompt.nowhere")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("calibration", "calibrate"),
        ("objective", "Penalties"),
        ("objective", "Objective"),
        ("search", "Constraints"),
        ("selection", "Chosen"),
        ("selection", "Selection"),
    ],
)
def test_a_package_that_was_a_module_finds_its_names(package, name):
    room = import_module(f"kdprompt.{package}")
    with pytest.warns(DeprecationWarning, match=rf"kdprompt\.{package}\.{name} is deprecated: use kdprompt\."):
        assert getattr(room, name).__name__ == RENAMED.get(name, name)
    with pytest.raises(AttributeError, match="nonsense"):
        room.nonsense  # noqa: B018


def test_importing_kdprompt_warns_of_nothing_and_loads_nothing():
    script = "import sys, kdprompt; assert 'torch' not in sys.modules; from kdprompt import *; assert Settings"
    ended = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def test_a_star_import_from_a_former_module_brings_its_names():
    source = "from kdprompt.kernels import *; from kdprompt.mmd import *; print(Sum, Gaussian, mmd, Joint)"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", source], capture_output=True, text=True, check=False)
    assert "JointKernel" in run.stdout, run.stderr


@pytest.mark.parametrize("module", ["kdprompt.diagnose.covering", "kdprompt.evaluate.summary", "kdprompt.kernels"])
def test_importing_a_former_module_warns_at_the_import_and_its_names_do_not_again(module):
    sys.modules.pop(module, None)
    with pytest.warns(DeprecationWarning, match=module):
        found = import_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(getattr(found, name) is not None for name in dir(found))


def test_a_settings_file_keeps_infinity():
    settings = Settings(search=SearchSettings(near_duplicate=float("inf")))
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
