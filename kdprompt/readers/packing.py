"""Several prompts in one forward pass: which ones go together, and how they are laid out in one sequence.

Prompts that begin alike are computed as a tree: the shared beginning once, then a branch for each prompt with the rest
of it and the labels. An attention mask keeps the branches apart.

Rejected: a padded batch, which repeats the shared beginning for every prompt.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprompt.readers.label_tree import LabelTree

__all__ = [
    "ACCELERATOR_PACKING",
    "CPU_PACKING",
    "PackedPrompts",
    "PackingRule",
    "common_prefix_length",
    "split_into_packs",
]


@dataclass(frozen=True)
class PackingRule:
    """When prompts are read in one pass.

    Attributes:
        max_tokens: Most tokens of a pass that follow the shared beginning, those of the labels included.
        needs_common_prefix: Whether the prompts must share at least half of the shortest of them.
    """

    max_tokens: int
    needs_common_prefix: bool

    def allows(self, prompts: Sequence[list[int]], label_tokens: int) -> bool:
        """Whether one pass may read prompts, given as token ids, each with ``label_tokens`` tokens of labels."""
        shared = common_prefix_length(prompts)
        if self.needs_common_prefix and shared < min(len(prompt) for prompt in prompts) / 2:
            return False
        return sum(len(prompt) - shared + label_tokens for prompt in prompts) <= self.max_tokens


# On a CPU, attention over longer sequences costs more than a shared pass saves. An accelerator is idle between passes,
# so that prompts which share nothing are read together too.
CPU_PACKING = PackingRule(max_tokens=320, needs_common_prefix=True)
ACCELERATOR_PACKING = PackingRule(max_tokens=2048, needs_common_prefix=False)


def split_into_packs(prompts: Iterable[list[int]], *, label_tokens: int, rule: PackingRule) -> Iterator[range]:
    """Cuts prompts, in their order, into packs that one forward pass reads.

    Args:
        prompts: Token ids of each prompt; taken one at a time.
        label_tokens: Tokens that the labels add to each prompt.
        rule: When prompts go together. A prompt that fits no pack is one by itself.

    Returns:
        The positions of the prompts of each pack.
    """
    start, pack = 0, list[list[int]]()
    for prompt in prompts:
        if pack and not rule.allows([*pack, prompt], label_tokens):
            yield range(start, start + len(pack))
            start, pack = start + len(pack), []
        pack.append(prompt)
    if pack:
        yield range(start, start + len(pack))


def common_prefix_length(sequences: Sequence[list[int]]) -> int:
    """Number of tokens that all sequences begin with in common."""
    first, last = min(sequences), max(sequences)  # of a sorted list these two differ soonest
    shortest = min(len(first), len(last))
    return next((i for i in range(shortest) if first[i] != last[i]), shortest)


@dataclass(frozen=True)
class PackedPrompts:
    """Prompts with a shared beginning laid out in one sequence of ``n`` tokens that follows ``c`` cached ones.

    Attributes:
        token_ids: ``[n]``.
        positions: Position of each token in its own prompt ``[n]``.
        attention_mask: Whether a token attends to another, cached ones first, boolean ``[n, c + n]``.
        logit_positions: Tokens whose logits score the labels ``[p · (1 + s)]``: for each prompt its last token, then
            the ``s`` internal nodes of the label tree.
    """

    token_ids: Tensor
    positions: Tensor
    attention_mask: Tensor
    logit_positions: Tensor

    @classmethod
    def build(cls, prompts: Sequence[list[int]], tree: LabelTree, *, cached: int, shared: int) -> "PackedPrompts":
        """Lays out prompts: the shared tokens that are not cached, then a branch for each prompt.

        Args:
            prompts: Token ids of each prompt, at least one prompt.
            tree: The labels.
            cached: Number of tokens in the cache, c ≤ shared. Below ``shared`` where some prompt is shared whole.
            shared: Number of tokens that all prompts begin with in common.
        """
        label_ids = tree.token_ids[tree.internal_nodes].tolist()
        label_depths = tree.depths[tree.internal_nodes].tolist()
        token_ids, positions = prompts[0][cached:shared], list(range(cached, shared))
        branches, logit_positions = list[_Branch](), list[int]()
        for prompt in prompts:
            branch = _Branch(start=len(token_ids), labels=len(token_ids) + len(prompt) - shared, size=len(label_ids))
            token_ids += [*prompt[shared:], *label_ids]
            positions += [*range(shared, len(prompt)), *(len(prompt) + depth for depth in label_depths)]
            last = branch.labels - 1 if branch.labels > branch.start else shared - cached - 1
            logit_positions += [last, *range(branch.labels, branch.end)]
            branches.append(branch)
        mask = _attention_mask(branches, tree, cached=cached, shared=shared)
        return cls(torch.tensor(token_ids), torch.tensor(positions), mask, torch.tensor(logit_positions))


@dataclass(frozen=True)
class _Branch:
    """Where a prompt's own tokens stand among the new tokens: the rest of the prompt, then the labels.

    Attributes:
        start: First token of the rest of the prompt.
        labels: First token of the labels.
        size: Number of tokens of the labels.
    """

    start: int
    labels: int
    size: int

    @property
    def end(self) -> int:
        """First token after the branch."""
        return self.labels + self.size


def _attention_mask(branches: Sequence[_Branch], tree: LabelTree, *, cached: int, shared: int) -> Tensor:
    """Boolean ``[n, c + n]``: the shared beginning is causal, all branches see it, and no branch sees another."""
    total = branches[-1].end
    among_labels = tree.attention_mask[tree.internal_nodes][:, tree.internal_nodes]
    mask = torch.zeros(total, cached + total, dtype=torch.bool)
    mask[:, :cached] = True
    mask[: shared - cached, cached:shared] = _causal_mask(shared - cached)
    mask[shared - cached :, cached:shared] = True
    for branch in branches:
        rest, labels = slice(branch.start, branch.labels), slice(branch.labels, branch.end)
        rest_keys = slice(cached + branch.start, cached + branch.labels)
        label_keys = slice(cached + branch.labels, cached + branch.end)
        mask[rest, rest_keys] = _causal_mask(branch.labels - branch.start)
        mask[labels, rest_keys] = True
        mask[labels, label_keys] = among_labels
    return mask


def _causal_mask(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril()
