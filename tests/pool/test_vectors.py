"""The gate for vectors: what may come, what is refused, whose memory it is, and norms of any scale."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdprompt import CallableEmbedder, DistillationSelector, EmbeddingError, Settings
from kdprompt.pool.embedding import embed_documents, embed_queries
from kdprompt.pool.vectors import cast_vectors, check_vectors, normalise_rows

TEXTS = ["one", "two", "three"]
ROWS = [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]
EXAMPLES = [{"input": f"{a} + {b}", "output": a + b} for a in range(4) for b in range(4)]


def digits(texts):
    return [[float(text[0]), float(text[-1]), 1.0] for text in texts]


def choose(embedder, **more):
    selector = DistillationSelector.from_examples(EXAMPLES, embedder, settings=Settings(k=3), **more)
    return [selection.ids for selection in selector.select_batch(["1 + 3", "2 + 2", "3 + 0"])]


# -- what may come ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda rows: (row for row in rows),
        lambda rows: (np.array(row, np.float32) for row in rows),
        lambda rows: [torch.tensor(row) for row in rows],
        lambda rows: (torch.tensor(row) for row in rows),
        lambda rows: np.array(rows, ">f4"),
        lambda rows: np.array(rows, np.longdouble),
        lambda rows: np.array(rows, object),
        lambda rows: np.asfortranarray(np.array(rows))[:, ::-1][:, ::-1],
        lambda rows: torch.tensor(rows, requires_grad=True) * 1,
    ],
    ids=["generator", "arrays", "tensors", "tensor generator", "big end", "long", "object", "strides", "graph"],
)
def test_whatever_holds_numbers_passes(convert):
    found = check_vectors(convert(ROWS), TEXTS, "vectors")
    assert found.tolist() == ROWS and not found.requires_grad and found.is_leaf


@pytest.mark.filterwarnings("error")
def test_rows_are_not_copied_for_whoever_copies_them():
    locked = np.array(ROWS, dtype=np.float32)
    locked.setflags(write=False)
    found = check_vectors(locked, TEXTS, "vectors", copy=False)
    assert found.data_ptr() == locked.ctypes.data and found.tolist() == ROWS
    bound = torch.tensor(ROWS, requires_grad=True)
    assert check_vectors(bound, TEXTS, "vectors", copy=False).data_ptr() == bound.data_ptr()
    assert not check_vectors(bound, TEXTS, "vectors", copy=False).requires_grad


def test_sparse_vectors_are_refused_by_name():
    for copy in (True, False):
        with pytest.raises(EmbeddingError, match=r"sparse.*to_dense"):
            check_vectors(torch.tensor(ROWS).to_sparse(), TEXTS, "vectors", copy=copy)


def test_unit_rows_stay_beside_extreme_ones():
    unit = normalise_rows(torch.randn(20, 33))
    found = normalise_rows(torch.cat([unit, torch.full((1, 33), 1e30)]))
    assert torch.equal(found[:20], unit) and abs(float(found[20].norm()) - 1) < 1e-6


def test_read_only_arrays_and_inference_tensors_may_be_used_freely():
    locked = np.array(ROWS)
    locked.setflags(write=False)
    with torch.inference_mode():
        bound = torch.tensor(ROWS)
        found = check_vectors(bound, TEXTS, "vectors")
    for vectors in (check_vectors(locked, TEXTS, "vectors"), found):
        vectors.requires_grad_().square().sum().backward()
        assert vectors.grad is not None


@pytest.mark.parametrize("bad", [[[1j, 1.0]], torch.tensor([[1j, 1.0]]), np.array([["a", "b"]]), {"a": [1.0]}, 3])
def test_what_is_no_array_of_numbers_is_named(bad):
    with pytest.raises(EmbeddingError, match="vectors must return"):
        check_vectors(bad, ["one"], "vectors")


def test_a_row_of_another_length_is_named_with_its_text():
    with pytest.raises(EmbeddingError, match=r"2 for text 0, 3 for text 1 \('two'\)"):
        check_vectors([[1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0]], TEXTS, "vectors")


@pytest.mark.parametrize(("scale", "what"), [(1e300, "NaN or infinite"), (1e-300, "zeros only")])
def test_what_float32_cannot_hold_is_refused_with_its_text(scale, what):
    vectors = np.array(ROWS)
    vectors[1] *= scale
    with pytest.raises(EmbeddingError, match=rf"text 1 \('two'\) has {what}.* as float32, though not as given"):
        check_vectors(vectors, TEXTS, "vectors")


def test_what_half_precision_cannot_hold_is_refused_where_the_pool_has_it():
    class Growing:
        factor = 1.0

        def embed_documents(self, texts):
            return torch.tensor(digits(texts), dtype=torch.float16) if self.factor == 1 else self.large(texts)

        def large(self, texts):
            return torch.tensor(digits(texts)) * self.factor

        embed_queries = embed_documents

        def embed_query(self, text):
            return self.embed_documents([text])[0]

    selector = DistillationSelector.from_examples(EXAMPLES, Growing(), settings=Settings(k=2))
    before = selector.select("1 + 3")
    selector.embedder.factor = 1e6
    with pytest.raises(EmbeddingError, match=r"'9 \+ 9'.* as float16"):
        selector.add_example({"input": "9 + 9", "output": 18})
    assert selector.select("1 + 3").ids == before.ids and len(selector.pool) == 16


# -- whose memory it is -------------------------------------------------------------------------------------------


def test_an_embedder_may_use_its_buffer_again_and_sort_its_list():
    class Frugal:
        def __init__(self):
            self.buffer = np.zeros((64, 3), np.float32)

        def embed_documents(self, texts):
            texts.sort(reverse=True)
            return [digits([text])[0] for text in texts]

        def embed_query(self, text):
            self.buffer[0] = digits([text])[0]
            return self.buffer[0]

    assert embed_queries(Frugal(), ["1 + 3", "2 + 2"]).tolist() == digits(["1 + 3", "2 + 2"])
    listed = ["1 + 3", "2 + 2"]
    embed_documents(Frugal(), listed)
    assert listed == ["1 + 3", "2 + 2"]
    known = digits([example["input"] for example in EXAMPLES])
    assert choose(Frugal(), vectors=known) == choose(CallableEmbedder(digits))


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_vectors_of_the_caller_may_change_later(kind):
    vectors = kind(digits([example["input"] for example in EXAMPLES]))
    selector = DistillationSelector.from_examples(EXAMPLES, digits, settings=Settings(k=3), vectors=vectors)
    before = selector.stored().vectors.clone()
    vectors[:] = 7.0
    assert torch.equal(selector.stored().vectors, before)


# -- norms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-20, 1e19, 1e30, 1e37])
def test_the_scale_of_an_embedder_changes_no_selection(scale):
    def scaled(texts):
        return (np.array(digits(texts)) * scale).astype(np.float32)

    if scale < 1e-37:  # few digits are left below float32's normal range, but no row is lost
        selector = DistillationSelector.from_examples(EXAMPLES, scaled, settings=Settings(k=3))
        assert len(selector.select("1 + 3")) == 3
    else:
        assert choose(scaled) == choose(digits)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9), st.integers(-36, 36))
def test_norms_agree_with_float64(values, exponent):
    row = (torch.tensor([values], dtype=torch.float64) * 10.0**exponent).float()
    exact = row.double()
    norm = exact.norm()
    found = normalise_rows(row)
    if norm == 0:
        assert not found.any()
    elif row.abs().max() > 1e-35:
        assert torch.allclose(found.double(), exact / norm, atol=1e-6)


@given(st.integers(1, 4096), st.integers(0, 2**31), st.booleans())
def test_normalised_rows_stay_as_they_are(width, seed, is_double):
    dtype = torch.float64 if is_double else torch.float32
    x = torch.randn(20, width, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 10
    unit = normalise_rows(x)
    assert normalise_rows(unit) is unit
    mixed = torch.stack([x[0], unit[1]])
    assert torch.equal(normalise_rows(mixed), unit[:2])


def test_usual_rows_are_normalised_as_torch_does_bit_by_bit(device, dtype):
    x = torch.randn(50, 33, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    assert torch.equal(normalise_rows(x), torch.nn.functional.normalize(x, dim=-1, eps=1e-30))


def test_a_cast_keeps_what_fits():
    like = torch.zeros(1, dtype=torch.float16)
    assert cast_vectors(torch.tensor(ROWS), like, TEXTS, "vectors").dtype is torch.float16
    with pytest.raises(EmbeddingError, match=r"text 2 \('three'\)"):
        cast_vectors(torch.tensor([*ROWS[:2], [1e9, 1.0]]), like, TEXTS, "vectors")
