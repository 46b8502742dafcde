"""The share of words: the best of a few by what prompts show of the true output, computed here from the outside."""

import numpy as np
import pytest
import torch

from kdprompt import CallableEmbedder, DistillationSelector
from kdprompt.calibration.lexical_fit import FEWEST, HELD_OUT, SHARES, fit_lexical_share
from kdprompt.calibration.pseudo_queries import Trial, TrialResult, find_best
from support import make_settings

WIDTH = 12


def vectors_of(texts):
    """A direction for the last letter of a text, and noise: what stands before it, an embedding does not tell."""
    rows = []
    for text in texts:
        rng = np.random.default_rng(sum(map(ord, text)))
        rows.append(np.eye(WIDTH)[ord(text[-1]) % 4] + 0.15 * rng.normal(size=WIDTH))
    return np.stack(rows)


def world(n, *, words_matter):
    """Inputs with a code word and a last letter; the output repeats one of the two."""
    rng = np.random.default_rng(n)
    pool = []
    for i in range(n):
        word, letter = f"code{rng.integers(12)}", "abcd"[rng.integers(4)]
        output = f"value of {word if words_matter else letter * 7} in row {i}"
        pool.append({"id": f"{i:04d}", "input": f"{word} please no {i} for {letter}", "output": output})
    embedder = CallableEmbedder(vectors_of)
    outputs = torch.tensor(np.stack([embed_output(record["output"]) for record in pool]))
    return pool, embedder, outputs


def embed_output(text):
    rng = np.random.default_rng(sum(map(ord, text.split(" in ")[0])) * 7919)
    return rng.normal(size=WIDTH)


def selector_of(n, *, words_matter, **changes):
    pool, _, _ = world(n, words_matter=words_matter)

    def embed(texts):
        return np.stack([embed_output(t) if t.startswith("value of") else vectors_of([t])[0] for t in texts])

    settings = make_settings(k=4, outputs="text", shortlist=24, **changes)
    return DistillationSelector.from_examples(pool, CallableEmbedder(embed), settings=settings)


@pytest.mark.parametrize(("words_matter", "least", "most"), [(True, 0.15, 0.5), (False, 0.0, 0.15)])
def test_words_get_a_share_where_outputs_follow_them(words_matter, least, most):
    assert least <= selector_of(400, words_matter=words_matter).calibration.lexical_share <= most


def test_the_share_is_one_whose_prompts_lose_least_to_examples_that_they_cannot_hold():
    """By the selector's own prompts for a pool without the held-out rows, each share in turn."""
    selector = selector_of(400, words_matter=True, calibrate=True)
    settings = selector.settings
    chosen = selector.calibration.lexical_share
    tensors = selector._pool.with_lexical_share(0.0, settings).tensors
    generator = torch.Generator().manual_seed(settings.seed)
    rows = torch.randperm(len(tensors), generator=generator)[:100].tolist()
    held = [selector._pool.demonstration(row) for row in rows]
    losses = {}
    for share in SHARES:
        pinned = make_settings(
            k=4, outputs="text", shortlist=24, lexical_share=share, output_share=1.0, neighbourhood=0.0
        )
        rest = DistillationSelector.from_dict(selector.to_dict(), selector.embedder, settings=pinned)
        rest.remove([example.id for example in held])
        prompts = rest.select_batch([example.input for example in held])
        value = {selector._pool.demonstration(row).id: tensors.v[row] for row in range(len(tensors))}
        losses[share] = np.mean(
            [
                min(float((value[ident] - value[example.id]).square().sum()) for ident in prompt.ids)
                for prompt, example in zip(prompts, held, strict=True)
            ]
        )
    assert losses[chosen] <= min(losses.values()) + 0.25 * (max(losses.values()) - min(losses.values()))


def test_nothing_is_fitted_where_the_share_is_pinned_or_outputs_are_few():
    assert HELD_OUT > FEWEST > 4 and SHARES[0] == 0
    selector = selector_of(FEWEST - 1, words_matter=True)
    assert selector.calibration.lexical_share == 0
    pinned = make_settings(k=4, outputs="text", lexical_share=0.5)
    assert fit_lexical_share(selector._pool, pinned) == 0.5
    assert fit_lexical_share(selector._pool, make_settings(k=4, outputs="text", calibrate=False)) == 0


def test_of_near_ties_the_trial_that_is_preferred_is_chosen():
    losses = torch.linspace(0, 1, 50)
    shifts = ((torch.zeros(50), 3.0), (0.02 * torch.linspace(-1, 1, 50), 1.0), (torch.full((50,), 0.5), 0.0))
    made = [TrialResult(Trial(None), losses + shift, preference) for shift, preference in shifts]
    assert find_best(made) is made[1] and find_best(made[:1]) is made[0] and find_best(made[2:]) is made[2]
