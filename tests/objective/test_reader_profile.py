"""The constants of a reader: what is refused, given and read from a file, and that J stays finite with the rest."""

import json
import math

import pytest
import torch
from pydantic import ValidationError

from kdprompt import CallableEmbedder, DistillationSelector, ObjectiveSettings, Settings
from kdprompt.objective.parameters import ObjectiveWeights
from kdprompt.objective.reader_profile import ReaderProfile, read_profile
from kdprompt.pool.records import MOST_NATS

EXTREME = [
    {"follow": MOST_NATS},
    {"knowledge_weight": MOST_NATS},
    {"recency": -MOST_NATS},
    {"recency": MOST_NATS},
    {"label_bias": {"a": MOST_NATS, "b": -MOST_NATS}},
]
BEYOND = [
    {"follow": 1.1 * MOST_NATS},
    {"follow": -1.0},
    {"knowledge_weight": 1e308},
    {"recency": -1.1 * MOST_NATS},
    {"label_bias": {"a": 1e308, "b": -1e308}},
    {"label_bias": {"a": math.nan}},
]


@pytest.mark.parametrize("constants", BEYOND, ids=repr)
def test_constants_that_would_drown_j_are_refused_with_the_value(constants, tmp_path):
    (name,) = constants
    with pytest.raises(ValidationError, match=name):
        ReaderProfile(**{"name": "x", "follow": 1.0, **constants})
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "x", "follow": 1.0, **constants}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"mine.json is no profile of a reader: {name}.*, got .*kdprompt profile"):
        read_profile(path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"mine\.json is not UTF-8 .* save the file as UTF-8"):
        read_profile(path)


@pytest.mark.parametrize("constants", EXTREME, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_j_is_finite_with_the_largest_constants(constants, dtype):
    def embed(texts):
        generators = [torch.Generator().manual_seed(sum(text.encode())) for text in texts]
        return torch.stack([torch.randn(8, generator=g, dtype=getattr(torch, dtype)) for g in generators])

    profile = ReaderProfile(**{"name": "x", "follow": 1.0, **constants})
    objective = ObjectiveSettings(profile=profile, weights=ObjectiveWeights(reader=1.0))
    examples = [{"input": f"question {i}", "output": "ab"[i % 2]} for i in range(12)]
    settings = Settings(k=3, objective=objective)
    selector = DistillationSelector.from_examples(examples, CallableEmbedder(embed), settings=settings)
    own = {"a": -MOST_NATS, "b": 0.0}
    for selection in (selector.select("question", own=own), selector.select_static()):
        assert len(selection) == 3
        assert math.isfinite(selection.terms.total) and math.isfinite(selection.empty_terms.total)
