"""What a causal language model says of labels after one prompt: log-probabilities and the greedy choice."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdprompt.readers.label_tree import LabelTree

__all__ = ["LabelScores"]


@dataclass(frozen=True)
class LabelScores:
    """Log-probabilities of labels after a prompt.

    Attributes:
        tree: The labels as a tree of tokens.
        node_log_probs: Log-probability of each node given the prompt and its ancestors, in nats ``[t]``, float32.
        line_break_log_probs: Log-probability of a line break at the end of the prompt and after each internal node,
            in nats ``[1 + s]``, float32.
    """

    tree: LabelTree
    node_log_probs: Tensor
    line_break_log_probs: Tensor

    @cached_property
    def log_probs(self) -> Tensor:
        """Log-probability of each whole label, in nats ``[labels]``."""
        return torch.stack([self.node_log_probs[list(path)].sum() for path in self.tree.paths])

    @property
    def mean_log_probs(self) -> Tensor:
        """Mean log-likelihood per token of each label, in nats ``[labels]``."""
        return self.log_probs / torch.tensor([len(path) for path in self.tree.paths])

    def decode_greedily(self) -> int:
        """Index of the label that greedy decoding writes if it may write labels alone.

        Where a label is the beginning of others, a line break ends it.
        """
        tree = self.tree
        label_of_last_node = {path[-1]: label for label, path in reversed(list(enumerate(tree.paths)))}
        node = -1
        while True:
            children = (tree.parents == node).nonzero().squeeze(-1)
            if not len(children):
                return label_of_last_node[node]
            best = int(children[self.node_log_probs[children].argmax()])
            line_break = self.line_break_log_probs[tree.logit_rows[best]]
            if node in label_of_last_node and line_break >= self.node_log_probs[best]:
                return label_of_last_node[node]
            node = best
