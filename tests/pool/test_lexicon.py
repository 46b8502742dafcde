"""TF-IDF words against scikit-learn, in joint vectors and in a selector."""

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from kdprompt import CallableEmbedder, DistillationSelector, SearchSettings, Settings
from kdprompt.pool.lexicon import BUCKETS, Lexicon
from support import make_settings

TEXTS = ["Is EECS 281 hard ?", "is EECS 280 harder than eecs 281?", "Who teaches Greek", "who teaches who", "…", ""]


def test_features_are_those_of_scikit_learn_but_for_collisions():
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    expected = vectorizer.fit_transform(TEXTS).toarray()
    found = Lexicon.build(TEXTS, 0.5).encode(TEXTS)
    assert found.shape == (len(TEXTS), BUCKETS)
    np.testing.assert_allclose((found @ found.T).numpy(), expected @ expected.T, atol=1e-6)
    other = ["EECS 281 taught by nobody known", "unknown words"]
    queries = vectorizer.transform(other).toarray()
    encoded = Lexicon.build(TEXTS, 0.5).encode(other)
    np.testing.assert_allclose((encoded @ found.T).numpy(), queries @ expected.T, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_inner_products_of_joint_vectors_are_the_mixture(share):
    dense = torch.nn.functional.normalize(torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), dim=-1)
    lexicon = Lexicon.build(TEXTS[:4], share)
    joint, words = lexicon.join(dense, TEXTS[:4]), lexicon.encode(TEXTS[:4])
    torch.testing.assert_close(joint @ joint.T, (1 - share) * dense @ dense.T + share * words @ words.T)
    torch.testing.assert_close(joint.norm(dim=-1), torch.ones(4))


def test_a_text_without_words_is_compared_by_its_embedding_alone():
    dense = torch.nn.functional.normalize(torch.ones(1, 3), dim=-1)
    joint = Lexicon.build(TEXTS, 0.4).join(dense, ["   "])
    torch.testing.assert_close(joint[:, :3], dense)


def records(n=200):
    """Questions whose embedding says nothing, and whose output repeats their own name."""
    return [
        {"input": f"tell me of thing{i % 40} please {i}", "output": f"SELECT thing{i % 40} FROM t{i}"} for i in range(n)
    ]


def embed(texts):
    """Outputs lie by their thing; inputs all alike but for noise."""
    rows = []
    for text in texts:
        rng = np.random.default_rng(list(text.encode()))
        if text.startswith("SELECT"):
            thing = np.random.default_rng(int(text.split("thing")[1].split()[0])).normal(size=16)
            rows.append(thing + 0.1 * rng.normal(size=16))
        else:
            rows.append(np.ones(16) + 0.3 * rng.normal(size=16))
    return np.array(rows)


def test_calibration_gives_words_a_share_where_they_bring_the_right_output_near():
    selector = DistillationSelector.from_examples(records(), CallableEmbedder(embed), settings=make_settings(k=4))
    assert selector.calibration.lexical_share > 0
    assert selector._pool.lexical_share == selector.calibration.lexical_share
    chosen = selector.select("tell me of thing7 now")
    assert any("thing7 " in d.output for d in chosen.demonstrations)
    assert selector.select_batch(["tell me of thing7 now"])[0] == chosen
    pinned = make_settings(k=4, lexical_share=0.0)
    plain = DistillationSelector.from_examples(records(), CallableEmbedder(embed), settings=pinned)
    assert plain.calibration.lexical_share == 0 and plain._pool.tensors.x.shape[-1] == 16


def test_labels_get_no_words_unless_they_are_asked_for():
    pool = [{**record, "output": "ab"[i % 2]} for i, record in enumerate(records())]
    selector = DistillationSelector.from_examples(pool, CallableEmbedder(embed), settings=Settings(k=4))
    assert selector.calibration.lexical_share == 0
    asked = Settings(k=4, search=SearchSettings(lexical_share=0.25))
    selector = DistillationSelector.from_examples(pool, CallableEmbedder(embed), settings=asked)
    assert selector._pool.tensors.x.shape[-1] == 16 + BUCKETS and len(selector.select("thing3 ?")) == 4


def test_words_stay_in_a_changed_and_in_a_stored_pool(tmp_path):
    selector = DistillationSelector.from_examples(records(), CallableEmbedder(embed), settings=make_settings(k=4))
    selector.add_example({"input": "tell me of thing99 please", "output": "SELECT thing99 FROM t"})
    share = selector.calibration.lexical_share
    assert selector._pool.lexical_share == share
    assert any("thing99" in d.output for d in selector.select("what of thing99").demonstrations)
    selector.save(tmp_path / "selector.kd")
    again = DistillationSelector.load(tmp_path / "selector.kd", CallableEmbedder(embed))
    assert again._pool.lexical_share == share
    assert again.select("what of thing99") == selector.select("what of thing99")
    for share_now in (0.0, 0.5):
        settings = make_settings(k=4, lexical_share=share_now)
        pinned = DistillationSelector.from_dict(selector.to_dict(), CallableEmbedder(embed), settings=settings)
        assert pinned.calibration.lexical_share == share_now, "a new pin calibrates again"
    ident = selector.pool.demonstrations[0].id
    selector.remove(ident)
    selector.update(selector.pool.demonstrations[0].id, {"input": "a thing98", "output": "SELECT thing98 FROM t"})
    assert any("thing98" in d.output for d in selector.select("tell of thing98").demonstrations)
