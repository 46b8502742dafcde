"""An embedder is known again by what it makes of one text."""

import json
import math

import pytest
import torch

from kdprompt import CallableEmbedder, EmbeddingError, SentenceTransformerEmbedder
from kdprompt.pool.fingerprint import Fingerprint, check_fingerprint, remember_fingerprint, take_fingerprint


def constant(*row):
    return CallableEmbedder(lambda texts: torch.tensor([row] * len(texts), dtype=torch.float64))


def test_it_is_of_unit_norm_whatever_the_scale():
    for scale in (1e-30, 1.0, 1e30):
        taken = take_fingerprint(constant(3 * scale, -4 * scale), "text")
        assert taken == Fingerprint("text", (0.6, -0.8))
    assert Fingerprint.read(json.loads(json.dumps(taken.to_json()))) == taken


@pytest.mark.parametrize(("angle", "same"), [(0.0, True), (0.04, True), (0.05, False), (1.0, False), (math.pi, False)])
def test_embeddings_of_cosine_999_are_of_one_embedder(angle, same):
    """cos 0.04 = 0.9992, cos 0.05 = 0.9988."""
    known, given = Fingerprint("text", (1.0, 0.0)), constant(7 * math.cos(angle), 7 * math.sin(angle))
    if same:
        check_fingerprint(known, given, "mine")
        return
    with pytest.raises(EmbeddingError, match=rf"than that of the pool \(mine\).*cosine {math.cos(angle):.3f}"):
        check_fingerprint(known, given, "mine")


def test_an_embedder_that_fails_is_named():
    failing = CallableEmbedder(lambda texts: 1 / 0)
    assert take_fingerprint(failing, "text") is None
    with pytest.raises(EmbeddingError, match=r"cannot be compared .* \(mine\).*'text'.*ZeroDivisionError"):
        check_fingerprint(Fingerprint("text", (1.0,)), failing, "mine")


def test_a_model_is_not_loaded_to_save_its_fingerprint():
    embedder = SentenceTransformerEmbedder("no/such/model")
    assert take_fingerprint(embedder, "text") is None and not embedder.is_loaded
    known = Fingerprint("text", (1.0,))
    remember_fingerprint(embedder, known)
    assert take_fingerprint(embedder, "another text") is known


@pytest.mark.parametrize("stored", [None, [], {}, {"text": 1, "vector": [1.0]}, {"text": "x", "vector": [2.0]}])
def test_what_is_no_fingerprint_is_refused(stored):
    with pytest.raises((TypeError, ValueError), match="fingerprint"):
        Fingerprint.read(stored)
