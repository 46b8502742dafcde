"""The probe on tiny models of every family and on the real small LM: exact bookkeeping, R2 and R6 on real heads."""

import warnings

import pytest
import torch

from kdprompt import ByObjective, DistillationSelector, PromptTemplate, Settings
from kdprompt.pool.records import Demonstration
from kdprompt.probe import KeyEmbedder, Segments, calibrate_position_profile, probe
from kdprompt.probe.capture import capture_attention
from kdprompt.resources import support_desk

DEMONSTRATIONS = [
    Demonstration(id=str(i), input=text, output=output)
    for i, (text, output) in enumerate(
        [
            ("a fine film", "positive"),
            ("a dull film", "negative"),
            ("where is my card", "card arrival"),
            ("so slow", "negative"),
        ]
    )
]
QUERY = "what a lovely day"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}


def families():
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        GemmaConfig,
        GemmaForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    gpt2 = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=300, n_positions=256)
    return {
        "llama": (LlamaForCausalLM, LlamaConfig(**GROUPED)),
        "qwen2": (Qwen2ForCausalLM, Qwen2Config(**{**SMALL, "num_key_value_heads": 2})),
        "qwen3": (Qwen3ForCausalLM, Qwen3Config(**GROUPED)),
        "gemma": (GemmaForCausalLM, GemmaConfig(**{**SMALL, "num_key_value_heads": 1, "head_dim": 8})),
        "gemma2": (Gemma2ForCausalLM, Gemma2Config(**GROUPED, sliding_window=16, query_pre_attn_scalar=8)),
        "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**GROUPED, sliding_window=16, query_pre_attn_scalar=8)),
        "gpt2": (GPT2LMHeadModel, gpt2),
        "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL, rotary_pct=0.5)),
    }


NAMES = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neox"]
every_family = pytest.mark.parametrize("name", NAMES)


def tiny(name: str, attention: str = "sdpa"):
    kind, config = families()[name]
    attention = "eager" if name == "gemma2" else attention  # its soft cap has no fused form
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind._from_config(config, attn_implementation=attention)
    for parameter in model.parameters():  # larger than the initialisation, so that heads differ
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-pair tokenizer of 300 tokens, trained here."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    texts = [PromptTemplate().text(DEMONSTRATIONS, QUERY)] * 4
    trained.train_from_iterator(texts, vocab_size=300, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)


@every_family
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_contributions_and_rest_make_up_every_head(name, attention, tokenizer):
    model = tiny(name, attention)
    before = model.config._attn_implementation
    read = probe(model, tokenizer, DEMONSTRATIONS, QUERY)
    assert model.config._attn_implementation == before and len(read.layers) == 2
    for layer in read.layers:
        whole = layer.contribution.sum(1) + layer.rest
        assert float((whole - layer.output).norm() / layer.output.norm()) < 1e-4
        assert torch.allclose(layer.attention.sum(-1), torch.ones(4), atol=1e-5) and layer.output.shape[0] == 4
        # The read-out is that of attention renormalised over the demonstrations.
        inside = layer.token_owners >= 0
        renormalised = layer.attention * inside / (layer.attention * inside).sum(-1, keepdim=True)
        assert torch.allclose(layer.read_out, (renormalised[..., None] * layer.values).sum(1), atol=1e-5)


@every_family
def test_what_is_captured_is_what_the_model_computes(name, tokenizer):
    """Attention recomputed from the captured queries and keys, and the eager weights that the model itself returns."""
    model = tiny(name, "eager")
    read = probe(model, tokenizer, DEMONSTRATIONS, QUERY)
    by_model = model(read.segments.token_ids[None], output_attentions=True).attentions
    for layer, weights in zip(read.layers, by_model, strict=True):
        assert torch.allclose(layer.attention, weights[0, :, -1], atol=1e-6)
    if name in ("gemma2", "gemma3"):  # soft cap or sliding window: not plain softmax over all tokens
        return
    for layer in read.layers:
        logits = layer.scaling * torch.einsum("hd,hnd->hn", layer.query, layer.keys)
        assert torch.allclose(layer.attention, logits.softmax(-1), atol=1e-5)


@every_family
def test_r2_holds_on_every_head(name, tokenizer):
    model = tiny(name)
    one = probe(model, tokenizer, DEMONSTRATIONS[:2], QUERY)
    other = probe(model, tokenizer, DEMONSTRATIONS[2:], QUERY)
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        distance, shift = mine.bias(theirs)
        assert bool((shift <= distance * (1 + 1e-6)).all()) and bool((distance > 0).all())
        k = torch.cat([mine.keys[:, mine.token_owners >= 0], theirs.keys[:, theirs.token_owners >= 0]], 1).double()
        v = torch.cat([mine.values[:, mine.token_owners >= 0], theirs.values[:, theirs.token_owners >= 0]], 1).double()
        n = int((mine.token_owners >= 0).sum())
        for head in range(4):  # explicit features: a square root of the kernel matrix
            exponents = mine.scaling * k[head] @ k[head].T
            values, vectors = torch.linalg.eigh((exponents - exponents.max()).exp())
            phi = vectors * values.clamp_min(0).sqrt()
            model_d, model_q = v[head, :n].T @ phi[:n] / n, v[head, n:].T @ phi[n:] / (len(phi) - n)
            assert float((model_d - model_q).norm()) == pytest.approx(float(distance[head]), rel=1e-4)
        same, _ = mine.bias(mine)
        assert float(same.max()) < 1e-6 * float(distance.max())


@every_family
def test_r6_is_never_violated_on_the_heads(name, tokenizer):
    read = probe(tiny(name), tokenizer, DEMONSTRATIONS, QUERY)
    for layer in read.layers:
        missed, bound = layer.interference([0, 0, 1, 0], query_task=0)
        assert bool((missed <= bound * (1 + 1e-5) + 1e-7).all())
        alone, none = layer.interference([0, 0, 0, 0], query_task=0)
        assert float(alone.abs().max()) < 1e-5 and float(none.abs().max()) < 1e-5
        with pytest.raises(ValueError, match="must name the task of each of 4 demonstrations, the query's task 2"):
            layer.interference([0, 0, 1, 0], query_task=2)


def test_tokens_belong_to_their_demonstrations(tokenizer):
    template = PromptTemplate(instruction="Say it.")
    segments = Segments.build(tokenizer, DEMONSTRATIONS, QUERY, template)
    for i, demonstration in enumerate(DEMONSTRATIONS):
        written = tokenizer.decode(segments.token_ids[segments.token_owners == i])
        assert written == template.render(demonstration) + template.separator
    outside = tokenizer.decode(segments.token_ids[segments.token_owners == -1])
    assert outside == f"Say it.\n\nInput: {QUERY}\nOutput:"


def test_a_token_that_two_demonstrations_share_is_named(tokenizer):
    # ByteLevel joins a space to the word behind it, so a separator of one space reaches into the next demonstration.
    template = PromptTemplate(demonstration="film{input}{output}", separator=" ")
    with pytest.raises(ValueError, match=r"token ' film' .*reaches from demonstration 0 into demonstration 1"):
        Segments.build(tokenizer, DEMONSTRATIONS, QUERY, template)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(TypeError, match="needs a fast tokenizer"):
        Segments.build(object(), DEMONSTRATIONS, QUERY)


def test_an_encoder_is_refused(tokenizer):
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**SMALL))
    with pytest.raises(ValueError, match="needs a causal language model, got BertModel"):
        probe(model, tokenizer, DEMONSTRATIONS, QUERY)


def test_a_prompt_longer_than_the_context_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"the prompt has \d+ tokens and GPT2LMHeadModel a context of 256"):
        probe(tiny("gpt2"), tokenizer, DEMONSTRATIONS * 10, QUERY)


def test_the_position_profile_averages_the_demonstrations_out(tokenizer):
    model = tiny("llama")
    profile = calibrate_position_profile(model, tokenizer, DEMONSTRATIONS, [QUERY, "so slow again"], orders=4)
    assert len(profile.measured) == 4 and sum(profile.measured) == pytest.approx(1)
    assert profile == calibrate_position_profile(model, tokenizer, DEMONSTRATIONS, [QUERY, "so slow again"], orders=4)
    same = [DEMONSTRATIONS[0]] * 3
    by_hand = probe(model, tokenizer, same, QUERY).mass.mean(0)
    one = calibrate_position_profile(model, tokenizer, same, [QUERY], orders=1)
    assert one.measured == pytest.approx((by_hand / by_hand.sum()).tolist(), rel=1e-5)
    assert ByObjective(profile=profile).profile.weights(4) == pytest.approx(list(profile.measured))
    with pytest.raises(ValueError, match="needs demonstrations, queries and orders, got 0, 1, 8"):
        calibrate_position_profile(model, tokenizer, [], [QUERY])


@every_family
def test_the_key_embedding_is_the_mean_cosine_of_the_keys(name, tokenizer):
    model = tiny(name)
    texts = [d.input for d in DEMONSTRATIONS]
    embedder = KeyEmbedder(model, tokenizer, sample=texts, layers=[1], heads=[0, 2])
    vectors = embedder.embed_documents(texts)
    assert vectors.shape[0] == 4 and torch.allclose(vectors.norm(dim=-1), torch.ones(4), atol=1e-5)
    keys = []
    for text in texts:
        ids = torch.tensor(tokenizer(PromptTemplate().text((), text))["input_ids"])
        keys.append(capture_attention(model, ids, last_position=255)[1].keys[[0, 2], -1])
    centred = torch.stack(keys) - torch.stack(keys).mean(0)
    cosine = torch.nn.functional.cosine_similarity(centred[0], centred[1], dim=-1).mean()
    assert float(vectors[0] @ vectors[1]) == pytest.approx(float(cosine), abs=1e-5)
    assert torch.equal(embedder.embed_query(texts[2]), vectors[2])
    assert embedder.values(texts).shape == vectors.shape
    with pytest.raises(ValueError, match="layers must be among the 2 of the model"):
        KeyEmbedder(model, tokenizer, sample=texts, layers=[2])
    with pytest.raises(ValueError, match="heads must be among the 4 of each layer"):
        KeyEmbedder(model, tokenizer, sample=texts, heads=[4])
    with pytest.raises(ValueError, match="at least 2 texts"):
        KeyEmbedder(model, tokenizer, sample="one text")


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox"])
def test_rotary_positions_do_not_enter_the_key_embedding(name, tokenizer):
    """One layer: the key of a token depends on the token and its place alone, and the place is always the same."""
    kind, config = families()[name]
    config.num_hidden_layers = 1
    torch.manual_seed(0)
    model = kind(config).eval()
    texts = [PromptTemplate().text((), text) for text in ("so", "so slow, so slow, so slow, so slow")]
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
    short, long = (capture_attention(model, one, last_position=200)[0].keys[:, -1] for one in ids)
    assert torch.allclose(short, long, atol=1e-5 * float(short.abs().max()))
    moved = capture_attention(model, ids[0])[0].keys[:, -1]
    assert not torch.allclose(short, moved, atol=1e-2 * float(short.abs().max()))
    # Such a layer tells no text from another, and what is left of rounding is not taken for a difference.
    embedder = KeyEmbedder(model, tokenizer, sample=["so slow", "a card"], layers=[0])
    assert float(embedder.embed_query("so slow, so slow").abs().max()) == 0


def test_the_old_name_of_the_key_embedder_warns():
    import kdprompt.probe

    with pytest.warns(
        DeprecationWarning, match=r"kdprompt\.probe\.AttentionKernel is deprecated: use kdprompt\.probe\.KeyEmbedder"
    ) as caught:
        assert kdprompt.probe.AttentionKernel is KeyEmbedder
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match=r"module 'kdprompt\.probe' has no attribute 'nowhere'"):
        kdprompt.probe.nowhere  # noqa: B018


@pytest.mark.llm
def test_selection_in_the_geometry_of_the_reader(small_lm):
    examples = [{"input": d.input, "output": d.output} for d in support_desk() if d.task == "support"][:16]
    embedder = KeyEmbedder(small_lm.model, small_lm.tokenizer, sample=[e["input"] for e in examples[:6]])
    selector = DistillationSelector.from_examples(examples, embedder, settings=Settings(k=3))
    assert len(selector.select("I cannot log in any more")) == 3


@pytest.mark.llm
def test_the_real_small_lm_is_read_exactly(small_lm):
    before = small_lm.label_scores(PromptTemplate().text(DEMONSTRATIONS, QUERY), ["positive", "negative"])
    read = probe(small_lm.model, small_lm.tokenizer, DEMONSTRATIONS, QUERY)
    assert len(read.layers) == 30
    for layer in read.layers:
        whole = layer.contribution.sum(1) + layer.rest
        assert float((whole - layer.output).norm() / layer.output.norm()) < 1e-4
        missed, bound = layer.interference([0, 0, 1, 0], query_task=0)
        assert bool((missed <= bound * (1 + 1e-4) + 1e-6).all())
    after = small_lm.label_scores(PromptTemplate().text(DEMONSTRATIONS, QUERY) + " ", ["positive", "negative"])
    again = small_lm.label_scores(PromptTemplate().text(DEMONSTRATIONS, QUERY), ["positive", "negative"])
    assert torch.allclose(before, again, atol=1e-4) and after.shape == before.shape
