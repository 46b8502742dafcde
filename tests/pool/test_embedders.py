"""What ``embeddings=`` takes: objects, functions, models and their names."""

import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector, SentenceTransformerEmbedder, Settings
from kdprompt.pool.embedders import as_embedder
from kdprompt.pool.sentence_transformer import find_packaged_model

EXAMPLES = [{"input": f"{a} + {b}", "output": a + b} for a in range(3) for b in range(3)]


def digits(texts):
    return [[float(text[0]), float(text[-1]), 1.0] for text in texts]


class Both:
    def embed_documents(self, texts):
        return digits(texts)

    def embed_query(self, text):
        return digits([text])[0]


def test_an_embedder_stays_what_it_is():
    embedder = Both()
    assert as_embedder(embedder) is embedder


def test_a_function_becomes_an_embedder(tmp_path):
    selector = DistillationSelector.from_examples(EXAMPLES, digits, settings=Settings(k=2))
    same = DistillationSelector.from_examples(EXAMPLES, CallableEmbedder(digits), settings=Settings(k=2))
    assert selector.select("1 + 2") == same.select("1 + 2")
    selector.save(tmp_path / "s")
    assert DistillationSelector.load(tmp_path / "s", digits).select("1 + 2") == same.select("1 + 2")
    selector.embedder = digits
    assert selector.select("1 + 2") == same.select("1 + 2")


def test_a_function_may_give_a_generator():
    embedder = CallableEmbedder(lambda texts: (torch.tensor(row) for row in digits(texts)))
    selector = DistillationSelector.from_examples(EXAMPLES, embedder, settings=Settings(k=2))
    assert selector.select("1 + 2").ids == selector.select_batch(["1 + 2"])[0].ids
    assert embedder.embed_query("1 + 2").tolist() == [1, 2, 1]


def test_names_and_folders_are_models():
    assert as_embedder(None).name is None
    assert as_embedder("intfloat/e5-small").name == "intfloat/e5-small"


def test_a_loaded_model_is_an_embedder(embedder):
    made = as_embedder(embedder.model)
    assert isinstance(made, SentenceTransformerEmbedder) and made.model is embedder.model
    by_folder = as_embedder(find_packaged_model())
    assert torch.allclose(by_folder.embed_query("a text"), made.embed_query("a text"), atol=1e-5)


@pytest.mark.parametrize("wrong", [Both, 7, [0.1], b"model", True])
def test_anything_else_is_refused_with_what_it_is(wrong):
    with pytest.raises(TypeError, match="embeddings must be an embedder"):
        DistillationSelector.from_examples(EXAMPLES, wrong, settings=Settings(k=2))
