"""Pools held in half precision: what they hold, how far their cosines miss, and that nothing else changes."""

import numpy as np
import pytest
import torch

from kdprompt import Answer, CallableEmbedder, DistillationSelector, Gaussian
from kdprompt.objective.own_knowledge import OwnKnowledge
from kdprompt.pool.content_ids import make_content_id
from kdprompt.pool.vectors import halve_rows
from kdprompt.theory.point_pairs import multiply_with_all
from support import make_settings

WIDTH = 48
MISS = 1e-4  # of a cosine, as the documentation says


def draw(n, seed=0, scale=1.0):
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed)) * scale


def embed(texts):
    return torch.cat([draw(1, int(text.split()[-1])) for text in texts])


def examples(n, first=0):
    return [{"input": f"example {i}", "output": f"label {i % 3}"} for i in range(first, first + n)]


def make(n=80, **fields):
    chosen = make_settings(**{"k": 4, "half_precision": True, "shortlist": 20, **fields})
    return DistillationSelector.from_examples(examples(n), CallableEmbedder(embed), settings=chosen)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


QUERIES = [f"query {i}" for i in range(1000, 1012)]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_rows_are_halved_whatever_their_scale(scale, given):
    x = draw(300).to(given) * scale
    half = halve_rows(x)
    assert half.dtype is torch.float16 and np.abs(half.double().numpy() - unit(x.double())).max() <= 2**-12
    assert torch.equal(halve_rows(half), half) and not torch.equal(halve_rows(3 * half), 3 * half)
    mixed = halve_rows(torch.cat([half[:10], 3 * half[10:20]]))
    assert torch.equal(mixed[:10], half[:10]) and mixed.float().norm(dim=-1).sub(1).abs().max() < 1e-3


def test_products_with_many_rows_are_of_single_precision(device):
    x, q = halve_rows(draw(200_000).to(device)), halve_rows(draw(5, 1).to(device)).float()
    for few in (q[:1], q[:3], q):
        exact = few.double().cpu().numpy() @ x.double().cpu().numpy().T
        found = multiply_with_all(few, x)
        assert found.dtype is torch.float32 and np.abs(found.double().cpu().numpy() - exact).max() < 1e-6


def test_the_pool_is_held_once_in_float16():
    pool = make()._pool
    assert pool.tensors.x.dtype is torch.float16 and pool.tensors.v.dtype is torch.float32
    assert pool.embeddings.stored is pool.tensors.memory.x
    given = halve_rows(draw(80))
    chosen = make_settings(k=4, half_precision=True)
    selector = DistillationSelector.from_examples(examples(80), CallableEmbedder(embed), settings=chosen, vectors=given)
    assert torch.equal(selector._pool.vectors, given) and selector._pool.embeddings.stored.rows is not given
    given[:] = 0
    assert bool(selector._pool.vectors.any())


def test_cosines_of_real_embeddings_miss_by_what_the_documentation_says(embedder, data):
    records = data("trec", "pool")[:1500]
    queries = [record["input"] for record in data("trec", "dev")[:100]]
    selectors = [
        DistillationSelector.from_examples(
            records, embedder, settings=make_settings(k=8, half_precision=half, kernel=Gaussian(0.1), calibrate=False)
        )
        for half in (False, True)
    ]
    full, half = (selector._pool.tensors for selector in selectors)
    assert full.rows.ids == half.rows.ids
    q = selectors[0]._pool.encode(selectors[0].pool.queries(queries), selectors[0].settings).q
    exact = q.double() @ full.x.double().T
    assert float((multiply_with_all(q, half.x) - exact).abs().max()) <= MISS
    sets = [[set(prompt.ids) for prompt in selector.select_batch(queries)] for selector in selectors]
    shared = sum(len(a & b) for a, b in zip(*sets, strict=True)) / (8 * len(queries))
    assert shared > 0.97


@pytest.mark.parametrize("fields", [{}, {"outputs": "text", "lexical_share": 0.3}, {"k": "auto"}], ids=str)
def test_a_file_holds_the_same_bits_in_half_the_space(fields, tmp_path):
    selector, full = make(400, **fields), make(400, half_precision=False, **fields)
    for name, one in (("half", selector), ("full", full)):
        one.save(tmp_path / name)
    saved = 400 * WIDTH * 2
    assert (tmp_path / "full").stat().st_size - (tmp_path / "half").stat().st_size > 0.9 * saved
    for loaded in (
        DistillationSelector.load(tmp_path / "half", CallableEmbedder(embed)),
        DistillationSelector.from_dict(selector.to_dict(), CallableEmbedder(embed)),
    ):
        assert torch.equal(loaded._pool.tensors.x, selector._pool.tensors.x)
        assert [one.ids for one in loaded.select_batch(QUERIES)] == [one.ids for one in selector.select_batch(QUERIES)]
        loaded.add_examples(examples(3, 400))
        assert (loaded._pool.embeddings.stored is loaded._pool.tensors.memory.x) is ("lexical_share" not in fields)
        assert loaded._pool.tensors.x.dtype is torch.float16 and loaded.pool[402].input == "example 402"


def test_a_full_file_may_be_loaded_in_half_precision_and_a_half_one_in_full(tmp_path):
    for held in (True, False):
        make(half_precision=held).save(tmp_path / "selector")
        settings = make_settings(k=4, half_precision=not held, shortlist=20)
        loaded = DistillationSelector.load(tmp_path / "selector", CallableEmbedder(embed), settings=settings)
        assert loaded._pool.tensors.x.dtype is (torch.float32 if held else torch.float16)
        loaded.add_example({"input": "example 99", "output": "label 1"})
        assert (loaded._pool.embeddings.stored is loaded._pool.tensors.memory.x) is not held
        assert loaded.calibration.parameters and len(loaded.select(QUERIES[0]).ids) == 4


@pytest.mark.parametrize("fields", [{}, {"output_share": 0.0, "weights": {}}], ids=["default", "MMD alone"])
def test_static_prompts_are_those_of_the_rows_as_they_are_held(fields):
    half = make(**fields)
    again = DistillationSelector.from_examples(
        examples(80),
        CallableEmbedder(embed),
        settings=make_settings(k=4, shortlist=20, half_precision=False, **fields),
        vectors=half._pool.vectors.float(),
    )
    again.calibration = half.calibration
    for queries in (QUERIES, None):  # rows differ by their norms, so near-ties may fall otherwise
        ours, theirs = (selector.select_static(queries).terms.total for selector in (half, again))
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_an_index_finds_rows_of_half_precision():
    pytest.importorskip("faiss")
    selector = make(3000, kernel=Gaussian(0.5), calibrate=False)
    expected = [one.ids for one in selector.select_batch(QUERIES)]
    selector.build_index(recall=1.0)
    selector.add_examples(examples(5, 3000))
    assert [one.ids for one in selector.select_batch(QUERIES)] == expected


def test_an_answer_does_not_speak_for_its_own_example():
    selector = make(60)
    known = OwnKnowledge(
        ids=tuple(shown.id for shown in selector.pool),
        inputs=tuple(make_content_id(shown.input) for shown in selector.pool),
        outputs=("label 0", "label 1", "label 2"),
        log_probs=tuple((0.0, -5.0, -5.0) if i == 0 else (-1.0, -1.0, -1.0) for i in range(60)),
        temperature=0.02,
        shrinkage=0.0,
    )
    first = selector._pool.estimate_own(known)
    parsed = selector.pool.queries([shown.input for shown in selector.pool])
    found = first(selector._pool.encode(parsed, selector.settings).q)
    assert float(found[0].max() - found[0].min()) < 1e-3  # only the first answer says anything


class LastOutput:
    """Answers, for the most part, the last output that it is shown."""

    name = "last output"

    def answers(self, prompts, labels):
        for prompt in prompts:
            shown = [line.removeprefix("Output: ") for line in prompt.splitlines() if line.startswith("Output: ")]
            logits = torch.tensor([2.0 * (shown[-1:] == [label]) for label in labels])
            log_probs = tuple(logits.log_softmax(-1).tolist())
            yield Answer(labels[int(logits.argmax())], log_probs)

    def count_tokens(self, text):
        return len(text.split())


def test_a_reader_is_measured_on_a_pool_in_half_precision():
    prompts = []
    for half in (True, False):
        selector = make(240, half_precision=half)
        found = selector.calibrate(LastOutput(), max_answers=800)
        assert found.parameters.profile.recency > 0.5
        prompts.append(selector.select_batch(QUERIES))
    same = sum(a.ids == b.ids for a, b in zip(*prompts, strict=True))
    assert same >= len(QUERIES) - 2
