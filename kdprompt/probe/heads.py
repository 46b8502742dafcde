"""Each head of a causal language model on a prompt: its attention on every demonstration, R2 and R6 measured.

Takes a model of transformers and a prompt, and gives the queries, keys, values and attention of the last token, where
the answer begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.probe.capture import CapturedAttention, capture_attention
from kdprompt.probe.segments import Segments
from kdprompt.theory.attention import normalise_attention

__all__ = ["HeadBias", "HeadInterference", "LayerProbe", "Probe", "probe"]


class HeadInterference(NamedTuple):
    """R6 on the heads of a layer.

    Attributes:
        deviation: ‖f̄_D − f̄_τ*‖, how far the read-out is from that of the query's task ``[heads]``.
        bound: Σ_{τ ≠ τ*} α_τ ‖f̄_τ − f̄_τ*‖, never smaller ``[heads]``.
    """

    deviation: Tensor
    bound: Tensor


class HeadBias(NamedTuple):
    """R2 on the heads of a layer; both relative to the largest exponent of the kernel, so that they stay finite.

    Attributes:
        distance: ‖W_D − W_Q‖, the MMD ``[heads]``, float64.
        shift: ‖f_D(q) − f_Q(q)‖/√κ(q, q), the shift of the unnormalised read-out at the query, never larger
            ``[heads]``, float64.
    """

    distance: Tensor
    shift: Tensor


@dataclass(frozen=True)
class LayerProbe:
    """The heads of one layer at the last token of a prompt of ``n`` tokens, where the answer begins.

    Attributes:
        query: Rotated query of the last token ``[heads, d]``.
        keys: Rotated keys of all tokens ``[heads, n, d]``.
        values: Values of all tokens ``[heads, n, d]``.
        attention: The model's own attention of the last token ``[heads, n]``; sums to 1.
        output: The model's own head outputs at the last token ``[heads, d]``.
        token_owners: Demonstration of each token ``[n]``, −1 for the rest.
        demonstration_count: Number of demonstrations, k.
        scaling: Factor of ⟨q, k⟩.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    attention: Tensor
    output: Tensor
    token_owners: Tensor
    demonstration_count: int
    scaling: float

    @property
    def membership(self) -> Tensor:
        """1 where a token belongs to a demonstration, else 0 ``[k, n]``."""
        demonstrations = torch.arange(self.demonstration_count, device=self.token_owners.device)
        return (self.token_owners == demonstrations[:, None]).to(self.attention.dtype)

    @property
    def mass(self) -> Tensor:
        """Attention mass of each demonstration ``[heads, k]``; the other tokens have what is missing to 1."""
        return self.attention @ self.membership.T

    @property
    def contribution(self) -> Tensor:
        """Each demonstration's part of the head output, Σ a_i v_i over its tokens ``[heads, k, d]``."""
        return torch.einsum("hn,jn,hnd->hjd", self.attention, self.membership, self.values)

    @property
    def read_out(self) -> Tensor:
        """f̄_D: the head output if it attended to the demonstrations alone ``[heads, d]`` (R1, softmax)."""
        mass = self.mass.sum(-1, keepdim=True)
        return self.contribution.sum(1) / mass.clamp_min(torch.finfo(mass.dtype).tiny)

    @property
    def rest(self) -> Tensor:
        """The other tokens' part of the head output ``[heads, d]``; with the contributions it sums to the output."""
        outside = (self.token_owners < 0).to(self.attention.dtype)
        return torch.einsum("hn,n,hnd->hd", self.attention, outside, self.values)

    def interference(self, tasks: Sequence[int], query_task: int) -> HeadInterference:
        """R6 on each head: the pull of other tasks on the read-out, and its bound.

        The read-out of the demonstrations is Σ_τ α_τ f̄_τ with α_τ the share of attention on task τ.

        Args:
            tasks: Task of each demonstration ``[k]``.
            query_task: The query's task τ*; its read-out stands for v*.

        Raises:
            ValueError: Not every demonstration has a task, or none is of the query's task.
        """
        if query_task not in tasks or len(tasks) != self.demonstration_count:
            raise ValueError(
                f"tasks must name the task of each of {self.demonstration_count} demonstrations, the query's task "
                f"{query_task} among them, got {tasks}"
            )
        codes = sorted(set(tasks))
        members = torch.tensor(
            [[task == code for task in tasks] for code in codes], dtype=self.mass.dtype, device=self.mass.device
        )
        mass = self.mass @ members.T
        tiny = torch.finfo(mass.dtype).tiny
        sums = torch.einsum("tj,hjd->htd", members, self.contribution)
        read_outs = sums / mass[..., None].clamp_min(tiny)
        truth = read_outs[:, codes.index(query_task)]
        share = normalise_attention(mass, dim=-1)
        bound = (share * (read_outs - truth[:, None]).norm(dim=-1)).sum(-1)
        return HeadInterference((self.read_out - truth).norm(dim=-1), bound)

    def bias(self, target: "LayerProbe") -> HeadBias:
        """R2 on each head: the distance between the reference models of two prompts' demonstrations.

        Under κ(k, k′) = exp(scaling·⟨k, k′⟩), the kernel of softmax attention without a soft cap, and uniform weights
        of the demonstrations' tokens.

        Args:
            target: The same layer on another prompt.
        """
        mine, theirs = self.token_owners >= 0, target.token_owners >= 0
        keys = torch.cat([self.keys[:, mine], target.keys[:, theirs]], 1).double()
        values = torch.cat([self.values[:, mine], target.values[:, theirs]], 1).double()
        weights = torch.cat([mine[mine] / mine.sum(), -(theirs[theirs] / theirs.sum())]).to(keys)
        exponents = self.scaling * keys @ keys.transpose(-1, -2)
        largest = exponents.amax((-1, -2))[:, None, None]
        joint_gram = (exponents - largest).exp() * (values @ values.transpose(-1, -2))
        distance = torch.einsum("i,hij,j->h", weights, joint_gram, weights).clamp_min(0).sqrt()
        query = self.query.double()[..., None]
        query_exponents = self.scaling * (keys @ query - (query * query).sum(-2, keepdim=True) / 2) - largest / 2
        shift = ((weights[:, None] * query_exponents.exp()) * values).sum(1).norm(dim=-1)
        return HeadBias(distance, shift)


@dataclass(frozen=True)
class Probe:
    """A prompt as a causal language model reads it.

    Attributes:
        segments: The prompt, its tokens, and the demonstration of each.
        layers: The model's layers in order.
    """

    segments: Segments
    layers: tuple[LayerProbe, ...]

    @property
    def mass(self) -> Tensor:
        """Attention mass of each demonstration, mean over heads ``[layers, k]``."""
        return torch.stack([layer.mass.mean(0) for layer in self.layers])


def probe(
    model: Any,
    tokenizer: Any,
    demonstrations: Sequence[Demonstration],
    query: str,
    *,
    template: PromptTemplate | None = None,
) -> Probe:
    """Runs a causal language model on a prompt and returns what each of its heads does there.

    Args:
        model: Llama, Qwen, Gemma, GPT-2, GPT-NeoX or any other model of transformers that attends through its
            interface.
        tokenizer: Its fast tokenizer.
        demonstrations: In reading order.
        query: The input to answer; it stands last.
        template: How the prompt is written; None takes the default.

    Returns:
        Layers and heads with their attention on each demonstration. The contributions and the rest sum to the head's
        own output.

    Raises:
        ValueError: The model is not a causal language model, the prompt is longer than its context, or a token belongs
            to two demonstrations.
        TypeError: The tokenizer does not know where its tokens come from.
    """
    segments = Segments.build(tokenizer, demonstrations, query, template)
    captured = capture_attention(model, segments.token_ids)
    return Probe(segments, tuple(_probe_layer(layer, segments) for layer in captured))


def _probe_layer(captured: CapturedAttention, segments: Segments) -> LayerProbe:
    return LayerProbe(
        query=captured.queries[:, -1],
        keys=captured.keys,
        values=captured.values,
        attention=captured.weights[:, -1].to(captured.values.dtype),
        output=captured.outputs[:, -1],
        token_owners=segments.token_owners.to(captured.values.device),
        demonstration_count=segments.demonstration_count,
        scaling=captured.scaling,
    )
